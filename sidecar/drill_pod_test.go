package sidecar_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus/membus"
	"github.com/nearside-cache/nearside/sidecar/audit"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/clock"
	"github.com/nearside-cache/nearside/sidecar/loader"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/purge"
	"github.com/nearside-cache/nearside/sidecar/session"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
	"github.com/nearside-cache/nearside/sidecar/toggle"
)

// source is an origin for drills in virtual time. The value of a key is its version.
type source struct {
	began  time.Time
	conns  chan net.Conn
	closed chan struct{}

	down    atomic.Bool  // every request fails
	latency atomic.Int64 // of an answer, in nanoseconds
	busy    atomic.Int64 // requests under way
	busiest atomic.Int64

	mu       sync.Mutex
	versions map[string]uint64
	seconds  map[int]int // requests by the second in which they came
	requests int
}

func newSource(t *testing.T) *source {
	s := &source{
		began: time.Now(), conns: make(chan net.Conn), closed: make(chan struct{}),
		versions: map[string]uint64{}, seconds: map[int]int{},
	}
	s.latency.Store(int64(20 * time.Millisecond))
	server := &http.Server{Handler: s}
	ended := make(chan error)
	go func() { ended <- server.Serve(s) }()
	t.Cleanup(func() {
		require.NoError(t, server.Close())
		require.ErrorIs(t, <-ended, http.ErrServerClosed)
	})
	return s
}

// ServeHTTP answers GET /key. The version is read when the request comes.
func (s *source) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := s.busy.Add(1)
	for most := s.busiest.Load(); n > most; most = s.busiest.Load() {
		if s.busiest.CompareAndSwap(most, n) {
			break
		}
	}
	defer s.busy.Add(-1)
	key := strings.TrimPrefix(r.URL.Path, "/")
	s.mu.Lock()
	s.requests++
	s.seconds[s.second()]++
	version := strconv.FormatUint(1+s.versions[key], 10)
	s.mu.Unlock()
	select {
	case <-time.After(time.Duration(s.latency.Load())):
	case <-r.Context().Done():
	}
	if s.down.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("X-Version", version)
	_, _ = w.Write([]byte(version)) // who does not read it does not get it
}

// Load implements cache.Origins, for drills that are not about what stands between a
// pod and its origin.
func (s *source) Load(_ context.Context, _ string, r loader.Request) (loader.Result, error) {
	s.mu.Lock()
	s.requests++
	s.seconds[s.second()]++
	version := 1 + s.versions[r.Key]
	s.mu.Unlock()
	time.Sleep(time.Duration(s.latency.Load()))
	return loader.Result{Value: strconv.AppendUint(nil, version, 10), Version: version}, nil
}

// second is the number of the present one.
func (s *source) second() int { return int(time.Since(s.began) / time.Second) }

// in returns how many requests came in the seconds from and after, up to before to.
func (s *source) in(from, to int) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := from; i < to; i++ {
		n += s.seconds[i]
	}
	return n
}

// peak is the most requests of one second from the given one on.
func (s *source) peak(from int) (most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, n := range s.seconds {
		if i >= from {
			most = max(most, n)
		}
	}
	return most
}

func (s *source) total() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// commit makes a new version of key.
func (s *source) commit(key string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.versions[key]++
	return 1 + s.versions[key]
}

// version is the newest of key.
func (s *source) version(key string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return 1 + s.versions[key]
}

func (s *source) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case s.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// Accept, Close and Addr make a net.Listener of it.
func (s *source) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *source) Close() error {
	close(s.closed)
	return nil
}

func (s *source) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// pod is a sidecar in virtual time: all of it but the socket.
type pod struct {
	*cache.Cache
	t        *testing.T
	bus      *membus.Bus
	registry *prometheus.Registry
	env      *session.Env
}

// loaderOf is a loader for the drills' source, with what else p says.
func loaderOf(p policy.Loader) *policy.Loader {
	p.URL, p.VersionHeader = "http://origin/{key}", "X-Version"
	return &p
}

// newPod starts a pod on a stream, to run until the test ends. change adjusts its
// configuration.
func newPod(t *testing.T, stream *membus.Stream, origin *source, namespaces map[string]policy.Namespace, change ...func(*cache.Config)) *pod {
	p := &pod{t: t, bus: stream.Attach(membus.Options{}), registry: prometheus.NewRegistry()}
	policies := policy.DefaultSet()
	policies.Namespaces = namespaces
	require.NoError(t, policies.Validate())
	origins := loader.NewSet(loader.Deps{Dial: origin.dial, Metrics: loader.NewMetrics(p.registry)})
	require.NoError(t, origins.Apply(policies))
	cfg := sidecartest.CacheConfig(p.bus, sidecartest.NewClock())
	cfg.Clock, cfg.Policies, cfg.Origins, cfg.PublishTimeout = clock.Elapsed(), policies, origins, time.Second
	cfg.Metrics = cache.NewMetrics(p.registry)
	for _, f := range change {
		f(&cfg)
	}
	var err error
	p.Cache, err = cache.New(cfg)
	require.NoError(t, err)
	log, err := audit.Open("", hclog.NewNullLogger(), p.registry)
	require.NoError(t, err)
	p.env = &session.Env{
		Cache: p.Cache, Clients: session.NewClients(), Started: time.Now(), BarrierTimeout: 5 * time.Second,
		Limits:   resp.Limits{MaxBulk: 1 << 20, MaxFrame: 1 << 20},
		Metrics:  session.NewMetrics(p.registry),
		Toggles:  toggle.New(toggle.Config{Policies: policies, Apply: p.SetPolicies, Clock: cfg.Clock, Audit: log, Registerer: p.registry}),
		Purges:   purge.New(purge.Config{Policies: p.Policies, Clock: cfg.Clock, Audit: log, Registerer: p.registry}),
		Settings: func() string { return "[]" },
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Follow(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
		require.NoError(t, p.Close())
		require.NoError(t, origins.Close())
		require.NoError(t, p.bus.Close())
	})
	<-p.Ready()
	return p
}

// client is one connection to a pod, for one goroutine.
type client struct {
	pod *pod
	s   *session.Session
}

func (p *pod) dial() *client {
	c := &client{p, session.New(p.env, func() {})}
	p.t.Cleanup(c.s.Close)
	return c
}

// do sends a command and returns its answer, an error included.
func (c *client) do(args ...string) resp.Reply {
	in := resp.AppendCommand(nil, args...)
	var all []byte
	for {
		n, out, next := c.s.Serve(in, nil)
		in, all = in[n:], append(all, out...)
		if next == session.Run {
			c.s.Waiting().Run(context.Background())
			all = c.s.Finish(all)
			continue
		}
		r, err := resp.ReadReply(bufio.NewReader(bytes.NewReader(all)), resp.ReplyLimits{})
		if err != nil {
			c.pod.t.Errorf("%q: %v", args, err)
		}
		return r
	}
}

// get returns the version that GET found, 0 for none.
func (c *client) get(key string) uint64 { return c.versionIn(c.do("GET", key)) }

func (c *client) versionIn(r resp.Reply) uint64 {
	if r.IsNull() {
		return 0
	}
	version, err := strconv.ParseUint(r.Str, 10, 64)
	if err != nil {
		c.pod.t.Errorf("%q is no version: %v", r.Str, err)
	}
	return version
}

// near returns the status and the version that NEAR.GET answered.
func (c *client) near(args ...string) (status string, version uint64) {
	r := c.do(append([]string{"NEAR.GET"}, args...)...)
	for i := 0; i+1 < len(r.Elems); i += 2 {
		switch r.Elems[i].Str {
		case "status":
			status = r.Elems[i+1].Str
		case "value":
			version = c.versionIn(r.Elems[i+1])
		}
	}
	if status == "" {
		c.pod.t.Errorf("NEAR.GET %q: %q", args, r.Str)
	}
	return status, version
}

// invalidate tells the domain of a version and returns the token.
func (c *client) invalidate(key string, version uint64) (string, error) {
	r := c.do("NEAR.INVALIDATE", "KEYS", "1", key, strconv.FormatUint(version, 10))
	if r.Kind == resp.KindError {
		return "", errors.New(r.Str)
	}
	return r.Str, nil
}

// metric returns the value of a counter or gauge, named with its labels.
func (p *pod) metric(name string) float64 {
	families, err := p.registry.Gather()
	require.NoError(p.t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+strconv.Quote(l.GetValue()))
			}
			full := f.GetName()
			if len(labels) > 0 {
				full += "{" + strings.Join(labels, ",") + "}"
			}
			if full == name {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	p.t.Fatalf("no metric %s", name)
	return 0
}
