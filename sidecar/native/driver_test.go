package native_test

import (
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/audit"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/native"
	"github.com/nearside-cache/nearside/sidecar/purge"
	"github.com/nearside-cache/nearside/sidecar/session"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
	"github.com/nearside-cache/nearside/sidecar/toggle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a cache and what its sessions share.
type rig struct {
	*sidecartest.Cache
	env *session.Env
}

func newRig(t testing.TB, change func(*cache.Config)) *rig {
	c := sidecartest.NewCache(t, sidecartest.NewStream(t), change)
	registry := prometheus.NewRegistry()
	log, err := audit.Open("", hclog.NewNullLogger(), registry)
	require.NoError(t, err)
	return &rig{Cache: c, env: &session.Env{
		Cache: c.Cache, Clients: session.NewClients(), Version: "1.2.3", Started: time.Now(), Memory: 16 << 20, BarrierTimeout: sidecartest.Wait,
		Limits:   resp.Limits{MaxBulk: 1 << 20, MaxFrame: 4 << 20, MaxArgs: 1 << 16},
		Metrics:  session.NewMetrics(registry),
		Toggles:  toggle.New(toggle.Config{Policies: c.Policies(), Apply: c.SetPolicies, Clock: c.Clock.Now, Audit: log, Registerer: registry}),
		Purges:   purge.New(purge.Config{Policies: c.Policies, Clock: c.Clock.Now, Audit: log, Registerer: registry}),
		Settings: func() string { return `["x"]` },
	}}
}

// frame is one that the sidecar sent, decoded.
type frame struct {
	kind near.Kind
	id   uint32
	m    near.Message
}

// peer drives one session with bytes, as a connection's goroutine does.
type peer struct {
	t     testing.TB
	s     *native.Session
	wake  chan struct{}
	in    []byte
	last  uint32  // request id
	seen  []frame // all that came, in its order
	ended bool
}

// dial begins a session, without a Hello.
func (r *rig) dial(t testing.TB) *peer {
	p := &peer{t: t, wake: make(chan struct{}, 1)}
	p.s = native.New(r.env, func() {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	})
	t.Cleanup(func() {
		p.s.Close()
		p.s.Close() // may be called twice
	})
	return p
}

// greet is dial with a Hello.
func (r *rig) greet(t testing.TB) *peer {
	p := r.dial(t)
	p.ask(near.KindHello, &near.Hello{Min: 1, Max: 1, Name: "test"})
	return p
}

// feed brings input and collects what is answered at once.
func (p *peer) feed(in []byte) []frame {
	p.t.Helper()
	p.in = append(p.in, in...)
	before := len(p.seen)
	for {
		n, out, next := p.s.Serve(p.in, nil)
		p.in = p.in[n:]
		p.collect(out)
		switch next {
		case session.Input:
			return p.seen[before:]
		case session.End:
			p.ended = true
			return p.seen[before:]
		case session.Run:
			p.t.Fatal("a native session never asks to be waited for")
		}
	}
}

func (p *peer) collect(out []byte) {
	p.t.Helper()
	for len(out) > 0 {
		h, body, err := near.Next(out)
		require.NoError(p.t, err)
		m, known := near.New(h.Kind)
		require.True(p.t, known, h.Kind)
		require.NoError(p.t, near.Parse(slices.Clone(body), m), h.Kind)
		p.seen = append(p.seen, frame{h.Kind, h.ID, m})
		out = out[h.Size():]
	}
}

// send sends a request and returns its id.
func (p *peer) send(k near.Kind, m near.Message) uint32 {
	p.t.Helper()
	p.last++
	p.feed(near.Append(nil, k, p.last, m))
	return p.last
}

// push takes what is pushed now.
func (p *peer) push() { p.collect(p.s.Pushes(nil)) }

// until takes pushes until done.
func (p *peer) until(done func() bool) {
	p.t.Helper()
	deadline := time.After(sidecartest.Wait)
	for !done() {
		select {
		case <-p.wake:
			p.push()
		case <-deadline:
			p.t.Fatalf("nothing came; seen: %v", p.seen)
		}
	}
}

// answerTo waits for the answer to a request.
func (p *peer) answerTo(id uint32) frame {
	p.t.Helper()
	at := -1
	p.until(func() bool {
		at = slices.IndexFunc(p.seen, func(f frame) bool { return f.id == id })
		return at >= 0
	})
	return p.seen[at]
}

// ask sends a request and returns its answer, which is no error.
func (p *peer) ask(k near.Kind, m near.Message) near.Message {
	p.t.Helper()
	f := p.answerTo(p.send(k, m))
	require.Equal(p.t, k.Answer(), f.kind, "%+v", f.m)
	return f.m
}

// refusal sends a request and returns the error that answers it.
func (p *peer) refusal(k near.Kind, m near.Message) *near.Error {
	p.t.Helper()
	f := p.answerTo(p.send(k, m))
	require.Equal(p.t, near.KindError, f.kind, "%+v", f.m)
	return f.m.(*near.Error)
}

func get(key string) *near.Get {
	return &near.Get{Key: []byte(key), Read: near.Read{Wait: -1}}
}

// get reads a key as its class says.
func (p *peer) get(key string) near.Value {
	p.t.Helper()
	return *p.ask(near.KindGet, get(key)).(*near.Value)
}

// store has the sidecar hold a value: a miss, and a fill under its lease.
func (p *peer) store(key, value string, version uint64, change func(*near.Fill)) {
	p.t.Helper()
	g := get(key)
	g.Wait = 0
	v := p.ask(near.KindGet, g).(*near.Value)
	require.Equal(p.t, near.Miss, v.Status)
	f := near.Fill{Key: []byte(key), Lease: v.Lease, Value: []byte(value), Version: version}
	if change != nil {
		change(&f)
	}
	require.Equal(p.t, &near.Filled{Stored: true}, p.ask(near.KindFill, &f))
}

// pushed returns the pushes of a kind that came so far.
func pushed[T near.Message](p *peer) (all []T) {
	for _, f := range p.seen {
		if m, ok := f.m.(T); ok && f.kind.IsPush() {
			all = append(all, m)
		}
	}
	return all
}
