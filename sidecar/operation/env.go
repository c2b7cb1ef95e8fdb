// Package operation is what clients may ask a sidecar for, whatever protocol they
// speak: reads that wait for freshness, for loads and for other clients; fills; writes;
// what is told of state and policies. The sessions of the protocols spell it.
package operation

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/purge"
	"github.com/nearside-cache/nearside/sidecar/toggle"
)

// Env is what all sessions of a sidecar share. Its fields are fixed, and its methods
// are safe for concurrent use.
type Env struct {
	Cache    *cache.Cache
	Clients  *Clients
	Limits   resp.Limits
	Password string // asked of every client; empty: none is needed
	Version  string // of nearside
	Started  time.Time
	Memory   int64 // the budget in bytes
	// Now reads the time for the commands that a Serve is given: a moment after the
	// last of their bytes was read, so that whoever serves many clients at once may
	// read the clock once for all. nil means Cache.Now.
	Now func() time.Duration
	// BarrierTimeout bounds a barrier.
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

// Moment is the time for what a session serves now.
func (e *Env) Moment() time.Duration {
	if e.Now != nil {
		return e.Now()
	}
	return e.Cache.Now()
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
