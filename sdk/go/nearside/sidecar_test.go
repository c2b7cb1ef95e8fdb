//go:build linux

package nearside_test

import (
	"context"
	"iter"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus/membus"
	"github.com/nearside-cache/nearside/sdk/go/nearside"
	"github.com/nearside-cache/nearside/sidecar"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// drivers are those of a sidecar's connections.
var drivers = []string{"loop", "goroutine"}

const (
	podTimeout = 400 * time.Millisecond // of requests that need not wait, and of a sidecar's publishes
	tightSpace = "tight"                // namespace whose plain reads have tightBound
	tightBound = 400 * time.Millisecond
	critSpace  = "crit" // namespace of class critical
)

// pod is a sidecar on a socket of its own, and a client with an L0.
type pod struct {
	t      *testing.T
	stream *membus.Stream
	driver string
	socket string
	*nearside.Client

	sidecar *sidecartest.Sidecar
	bus     *membus.Bus

	mu    sync.Mutex
	conns []*gated
	gate  chan struct{} // what comes waits until it is closed
}

// newPods starts n of them on one stream.
func newPods(t *testing.T, driver string, n int) (pods []*pod, stream *membus.Stream) {
	stream = sidecartest.NewStream(t)
	for range n {
		p := &pod{t: t, stream: stream, driver: driver, socket: filepath.Join(sidecartest.Dir(t), "near.sock")}
		p.start()
		var err error
		p.Client, err = nearside.Open(nearside.Options{
			Dial: p.dial, Timeout: podTimeout, WriteTimeout: time.Second, L0: &nearside.L0Options{},
		})
		require.NoError(t, err)
		t.Cleanup(func() {
			p.open()
			require.NoError(t, p.Close())
		})
		pods = append(pods, p)
	}
	return pods, stream
}

func (p *pod) start() {
	p.bus = p.stream.Attach(membus.Options{})
	attached := p.bus
	p.t.Cleanup(func() { require.NoError(p.t, attached.Close()) })
	p.sidecar = sidecartest.Start(p.t, p.bus, func(c *sidecar.Config) {
		c.Socket, c.Driver, c.Memory, c.PublishTimeout = p.socket, p.driver, 16<<20, podTimeout
		c.Policies = podPolicies()
	})
}

func podPolicies() *policy.Set {
	s := policy.DefaultSet()
	s.Default.NegativeTTL = time.Minute
	tight, critical := s.Default, s.Default
	tight.MaxStale = tightBound
	critical.Class = policy.Critical
	s.Namespaces = map[string]policy.Namespace{tightSpace: tight, critSpace: critical}
	return s
}

// restart puts another sidecar in the place of this one, on the same socket.
func (p *pod) restart() {
	p.sidecar.Stop(p.t)
	p.start()
}

func (p *pod) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", p.socket)
	if err != nil {
		return nil, err
	}
	g := &gated{Conn: nc, pod: p}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, g)
	return g, nil
}

// cut closes the client's connections, as the kernel does when the other side is gone.
func (p *pod) cut() {
	p.mu.Lock()
	conns := p.conns
	p.conns = nil
	p.mu.Unlock()
	for _, c := range conns {
		_ = c.Close() // it may be closed already
	}
}

// shut holds up what comes from the sidecar, until open.
func (p *pod) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gate == nil {
		p.gate = make(chan struct{})
	}
}

func (p *pod) open() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gate != nil {
		close(p.gate)
		p.gate = nil
	}
}

// gated is a connection whose bytes can be held up.
type gated struct {
	net.Conn
	pod *pod
}

func (g *gated) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	g.pod.mu.Lock()
	gate := g.pod.gate
	g.pod.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return n, err
}

// shelf is a source whose versions the test sets.
type shelf struct {
	mu       sync.Mutex
	versions map[string]uint64
	loads    int
}

func (s *shelf) set(key string, version uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.versions[key] = version
}

func (s *shelf) source() nearside.Source[uint64] {
	return nearside.Source[uint64]{Load: func(_ context.Context, key string) (nearside.Loaded[uint64], error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.loads++
		v := s.versions[key]
		return nearside.Loaded[uint64]{Value: v, Version: v, Tags: []string{"shelf"}, Absent: v == 0}, nil
	}}
}

// eachDriver runs a test against sidecars with each of them.
func eachDriver(t *testing.T, test func(t *testing.T, driver string)) {
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) { test(t, driver) })
	}
}

// until asks until ok, which takes its time.
func until(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(sidecartest.Wait); !ok(); {
		require.True(t, time.Now().Before(end), "not in time")
	}
}

// keep reads a key until L0 answers, and requires a version of all answers.
func (p *pod) keep(key string, version uint64, from nearside.Source[uint64]) {
	p.t.Helper()
	until(p.t, func() bool {
		r, err := nearside.Load(p.t.Context(), p.Client, key, from)
		require.NoError(p.t, err)
		require.Equal(p.t, version, r.Value)
		return r.FromL0
	})
}

// What one pod writes, readers in both see as the mode of their read says, however they
// have kept the key before.
func TestPodsAgree(t *testing.T) {
	type write func(ctx context.Context, p *pod, version uint64) (nearside.Token, error)
	writes := []write{
		func(ctx context.Context, p *pod, v uint64) (nearside.Token, error) {
			return p.Invalidate(ctx, nearside.Key("item:1", v))
		},
		func(ctx context.Context, p *pod, _ uint64) (nearside.Token, error) {
			return p.Invalidate(ctx, nearside.Tag("shelf"))
		},
		func(ctx context.Context, p *pod, v uint64) (nearside.Token, error) {
			return p.Update(ctx, nearside.Update{Key: "item:1", Version: v, Value: strconv.AppendUint(nil, v, 10)})
		},
	}
	eachDriver(t, func(t *testing.T, driver string) {
		pods, _ := newPods(t, driver, 2)
		s := &shelf{versions: map[string]uint64{}}
		from, version := s.source(), uint64(0)
		for _, writer := range pods {
			for _, write := range writes {
				version++
				s.set("item:1", version)
				session := nearside.ContextWithSession(t.Context())
				token, err := write(session, writer, version)
				require.NoError(t, err)
				require.Equal(t, token, nearside.TokenFrom(session))
				for _, p := range pods {
					r, err := nearside.Load(session, p.Client, "item:1", from)
					require.NoError(t, err)
					require.Equal(t, version, r.Value, "read with the token of the write (I4)")
					p.keep("item:1", version, from)
					_, err = p.Barrier(t.Context())
					require.NoError(t, err)
				}
			}
		}
		strong, err := nearside.Load(t.Context(), pods[0].Client, "item:1", from, nearside.Strong())
		require.NoError(t, err)
		require.False(t, strong.FromL0, "Strong never comes from L0 (L6)")
		require.Equal(t, version, strong.Value)
	})
}

// A BARRIER is enough for L0 too: what was published before it, L0 has dropped (O4).
func TestBarrierReachesL0(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		pods, _ := newPods(t, driver, 2)
		s := &shelf{versions: map[string]uint64{"item:1": 1}}
		from := s.source()
		for version := uint64(1); version < 20; version++ {
			pods[1].keep("item:1", version, from)
			s.set("item:1", version+1)
			_, err := pods[0].Invalidate(t.Context(), nearside.Key("item:1", version+1))
			require.NoError(t, err)
			_, err = pods[1].Barrier(t.Context())
			require.NoError(t, err)
			r, err := nearside.Load(t.Context(), pods[1].Client, "item:1", from, nearside.Any())
			require.NoError(t, err)
			require.Equal(t, version+1, r.Value)
		}
	})
}

// Absences and critical keys: L0 keeps the former, and serves none of the latter to plain
// reads.
func TestWhatL0Keeps(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		pods, _ := newPods(t, driver, 1)
		c := pods[0].Client
		s := &shelf{versions: map[string]uint64{"crit:1": 1}}
		from := s.source()
		until(t, func() bool {
			r, err := nearside.Load(t.Context(), c, "item:absent", from)
			require.ErrorIs(t, err, nearside.ErrAbsent)
			return r.FromL0
		})
		require.Equal(t, 1, s.loads)
		for range 5 {
			r, err := nearside.Load(t.Context(), c, "crit:1", from)
			require.NoError(t, err)
			require.False(t, r.FromL0)
		}
		until(t, func() bool {
			a, err := c.Get(t.Context(), "crit:1", nearside.MaxStale(time.Minute))
			require.NoError(t, err)
			require.Equal(t, "1", string(a.Value))
			return a.FromL0
		})
		many, err := c.GetMany(t.Context(), []string{"item:absent", "crit:1", "item:none"}, nearside.Any())
		require.NoError(t, err)
		require.Equal(t, []nearside.Status{nearside.Negative, nearside.Hit, nearside.Miss},
			[]nearside.Status{many[0].Status, many[1].Status, many[2].Status})
	})
}

// While its sidecar is away a client loads, and says so; with the one that comes on the
// same socket it has an L0 again. Nothing that was kept before outlives it (L1).
func TestSidecarRestarts(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		pods, _ := newPods(t, driver, 2)
		s := &shelf{versions: map[string]uint64{"item:1": 1}}
		from, p := s.source(), pods[0]
		p.keep("item:1", 1, from)
		p.sidecar.Stop(t)
		require.Eventually(t, func() bool { return p.Stats().Connected == 0 }, sidecartest.Wait, time.Millisecond)
		s.set("item:1", 2)
		_, err := pods[1].Invalidate(t.Context(), nearside.Key("item:1", 2))
		require.NoError(t, err)
		_, err = p.Get(t.Context(), "item:1", nearside.Any())
		require.ErrorIs(t, err, nearside.ErrUnavailable)
		r, err := nearside.Load(t.Context(), p.Client, "item:1", from, nearside.Any())
		require.NoError(t, err)
		require.Equal(t, uint64(2), r.Value)
		require.True(t, r.Loaded)
		require.Positive(t, p.Stats().FellThrough)
		p.start()
		p.keep("item:1", 2, from)
		require.True(t, p.Stats().L0Valid)
	})
}

// Who watches is told of the events that either pod publishes, and of the gap that a
// broken connection makes.
func TestWatchSidecar(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		pods, _ := newPods(t, driver, 2)
		next, stop := iter.Pull(pods[0].Watch(t.Context()))
		defer stop()
		await := func(what string, ok func(nearside.Event) bool) {
			for {
				e, more := next()
				require.True(t, more, what)
				if ok(e) {
					return
				}
			}
		}
		gap := func(e nearside.Event) bool { return e.Gap }
		await("the first gap", gap)
		for i, p := range pods {
			version := uint64(i + 2)
			token, err := p.Invalidate(t.Context(), nearside.Key("item:1", version))
			require.NoError(t, err)
			await("the event", func(e nearside.Event) bool {
				return e.Position == token && slices.Equal(e.Keys, []nearside.KeyVersion{{Key: "item:1", Version: version}})
			})
		}
		pods[0].cut()
		await("the gap", gap)
	})
}
