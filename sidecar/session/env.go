package session

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/purge"
	"github.com/nearside-cache/nearside/sidecar/toggle"
)

// Env is what all sessions of a sidecar share. Its fields are fixed.
type Env struct {
	Cache    *cache.Cache
	Clients  *Clients
	Limits   resp.Limits
	Password string // asked for by AUTH; empty: none is needed
	Version  string // of nearside
	Started  time.Time
	Memory   int64 // the budget in bytes
	// BarrierTimeout bounds a NEAR.BARRIER.
	BarrierTimeout time.Duration
	// Reserve changes by delta the bytes that sessions hold of the memory which
	// all connections share, and reports whether there was room; giving back
	// always succeeds. nil sets no bound.
	Reserve func(delta int64) bool
	Metrics *Metrics
	Toggles *toggle.Board // of the Cache's policies
	Purges  *purge.Gate   // that wide purges must be admitted by
	// Settings describes the settings in effect and where they were given, as JSON.
	Settings func() string
}

// Metrics counts what sessions do.
type Metrics struct {
	Commands        prometheus.Counter // executed, failed ones included
	UnknownCommands prometheus.Counter // of these, not known
	ProtocolErrors  prometheus.Counter // input that was no command, or too large
}

// NewMetrics registers the sessions' metrics with r.
func NewMetrics(r prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "nearside", Name: name, Help: help})
		r.MustRegister(c)
		return c
	}
	return &Metrics{
		Commands:        counter("commands_total", "Commands executed, failed ones included."),
		UnknownCommands: counter("unknown_commands_total", "Commands that nearside does not know."),
		ProtocolErrors:  counter("protocol_errors_total", "Input that was no command, or larger than a limit."),
	}
}

// Client is what is known of a connected client, for CLIENT INFO and LIST.
type Client struct {
	ID         int64
	Since      time.Time
	Name       string
	LibName    string
	LibVersion string
}

// Clients lists the sessions in progress. It is safe for concurrent use.
type Clients struct {
	mu       sync.Mutex
	last     int64
	sessions map[*Session]*Client
}

// NewClients returns an empty list.
func NewClients() *Clients { return &Clients{sessions: make(map[*Session]*Client)} }

// Len returns the number of sessions in progress.
func (c *Clients) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sessions)
}

func (c *Clients) add(s *Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	s.client = Client{ID: c.last, Since: time.Now()}
	c.sessions[s] = &s.client
}

func (c *Clients) remove(s *Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sessions, s)
}

// rename changes s's entry under the list's lock.
func (c *Clients) rename(s *Session, change func(*Client)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&s.client)
}

// list returns copies, by id.
func (c *Clients) list() []Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]Client, 0, len(c.sessions))
	for cl := range maps.Values(c.sessions) {
		all = append(all, *cl)
	}
	slices.SortFunc(all, func(a, b Client) int { return cmp.Compare(a.ID, b.ID) })
	return all
}
