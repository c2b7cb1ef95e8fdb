package sidecar_test

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/embedded"
	"github.com/nearside-cache/nearside/bus/membus"
	"github.com/nearside-cache/nearside/bus/natsbus"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// Three sidecars stay coherent whatever happens between them and their stream.
func TestCoherentUnderFaults(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	stream := sidecartest.NewStream(t)
	attached := make([]*membus.Bus, 3)
	buses := make([]bus.Bus, len(attached))
	for i := range attached {
		attached[i] = stream.Attach(membus.Options{})
		t.Cleanup(func() { attached[i].Close() })
		buses[i] = attached[i]
	}
	f := newFleet(t, time.Second, buses...)
	done := make(chan struct{})
	go func() {
		defer close(done)
		const steps = 250
		for i := range steps {
			time.Sleep(10 * time.Millisecond)
			switch i {
			case steps / 8, steps / 4:
				f.rollback(stream)
			case steps / 2:
				attached[0].Disconnect()
				time.Sleep(50 * time.Millisecond)
				stream.Trim(stream.Last() - 1)
				attached[0].Reconnect()
			default:
				disturb(random, attached[random.IntN(len(attached))])
			}
		}
		for _, b := range attached {
			heal(b)
		}
	}()
	f.run(seed, done, 2*time.Millisecond)
	<-done
	f.converges()
	var total bus.Status
	for _, b := range attached {
		s := b.Status()
		total.Doubts += s.Doubts
		total.Repairs += s.Repairs
	}
	require.Positive(t, total.Doubts)
	require.Positive(t, total.Repairs)
}

func disturb(random *rand.Rand, b *membus.Bus) {
	switch n := 1 + random.IntN(5); random.IntN(11) {
	case 0:
		b.DropNext(n)
	case 1:
		b.DuplicateNext(n)
	case 2:
		b.ReverseNext(n)
	case 3:
		b.Disconnect()
	case 4:
		b.FailCalls(n)
	case 5:
		b.LoseAcks(n)
	case 6:
		b.FailPublishes(n)
	case 7:
		b.Hold()
	default:
		heal(b)
	}
}

func heal(b *membus.Bus) {
	b.Release()
	b.Reconnect()
}

// rollback loses events that every sidecar has applied and waits until they have
// noticed: what is published at those seqs before that would be taken for
// applied by the oracle too (I9 promises a notice, not at once).
func (f *fleet) rollback(stream *membus.Stream) {
	f.writing.Lock()
	defer f.writing.Unlock()
	for _, s := range f.sidecars {
		heal(s.Bus.(*membus.Bus))
	}
	stream.Snapshot()
	for range 3 {
		_, err := stream.Publish("nearside.default.ev.lost", "", []byte(`{"keys":["lost:1"]}`))
		if err != nil {
			f.t.Error(err)
		}
	}
	settled := func(what string, condition func(bus.Position) bool) {
		for deadline := time.Now().Add(sidecartest.Wait); ; time.Sleep(time.Millisecond) {
			n := 0
			for _, s := range f.sidecars {
				if condition(s.Applied()) {
					n++
				}
			}
			if n == len(f.sidecars) {
				return
			}
			if time.Now().After(deadline) {
				f.t.Errorf("the sidecars did not %s", what)
				return
			}
		}
	}
	last := stream.Last()
	settled("apply what will be lost", func(p bus.Position) bool { return p.Seq >= last })
	fork := f.sidecars[0].Applied().Epoch.Fork
	stream.Rollback()
	stream.Restart()
	settled("notice the loss", func(p bus.Position) bool { return p.Epoch.Fork > fork })
}

// jetStream is a real server on a port that stays the same over its restarts.
type jetStream struct {
	t    *testing.T
	dir  string
	addr string

	mu  sync.Mutex
	srv *embedded.Server
}

func startJetStream(t *testing.T) *jetStream {
	t.Helper()
	j := &jetStream{t: t, dir: t.TempDir()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	j.addr = l.Addr().String()
	require.NoError(t, l.Close())
	j.start()
	t.Cleanup(func() { require.NoError(t, j.srv.Close()) })
	return j
}

func (j *jetStream) start() {
	srv, err := embedded.Start(embedded.Config{Dir: j.dir, Listen: j.addr})
	if err != nil {
		j.t.Errorf("NATS: %v", err)
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.srv = srv
}

func (j *jetStream) restart() {
	j.mu.Lock()
	srv := j.srv
	j.mu.Unlock()
	if err := srv.Close(); err != nil {
		j.t.Errorf("NATS: %v", err)
	}
	j.start()
}

// attach opens a bus by the given address of the server.
func (j *jetStream) attach(addr string) *natsbus.Bus {
	j.t.Helper()
	subjects, err := bus.NewSubjects(bus.DefaultDomain)
	require.NoError(j.t, err)
	b, err := natsbus.Open(j.t.Context(), natsbus.Config{
		URL: "nats://" + addr, Stream: natsbus.StreamConfig{Subjects: subjects}, CreateStream: true,
	})
	require.NoError(j.t, err)
	j.t.Cleanup(func() { require.NoError(j.t, b.Close()) })
	return b
}

// A DEL in one sidecar, and a GET in the other, once that has applied the event,
// misses or finds what a reader has loaded since.
func TestDelInOneGetInTheOther(t *testing.T) {
	const times, writers = 2000, 8
	seed := rand.Uint64()
	t.Log("seed", seed)
	j := startJetStream(t)
	f := newFleet(t, sidecartest.Wait, j.attach(j.addr), j.attach(j.addr))
	done := make(chan struct{})
	go func() {
		defer close(done)
		var wg sync.WaitGroup
		for w := range writers {
			own := f.client(w%2, seed+uint64(w))
			other := f.client(1-w%2, 0)
			wg.Go(func() {
				for range times / writers {
					if !f.delThenGet(own, other) {
						return
					}
				}
			})
		}
		wg.Wait()
	}()
	f.run(seed, done, 5*time.Millisecond)
	<-done
	require.Zero(t, f.failed.Load())
	f.converges()
}

func (f *fleet) delThenGet(own, other *fleetClient) bool {
	key, version, at, ok := own.write()
	if !ok {
		return false
	}
	if at.IsZero() { // a DEL does not tell where: everything up to now is enough
		at = f.sidecars[own.s].Applied()
	}
	deadline := time.Now().Add(sidecartest.Wait)
	for !f.sidecars[other.s].Applied().Covers(at) {
		if time.Now().After(deadline) {
			f.t.Errorf("sidecar %d does not apply %v", other.s, at)
			return false
		}
		time.Sleep(100 * time.Microsecond)
	}
	r, ok := other.do("GET", keyName(key))
	if got, _ := strconv.ParseUint(r.Str, 10, 64); ok && !r.IsNull() && got < version {
		f.t.Errorf("sidecar %d served version %d of %s after the DEL of %d", other.s, got, keyName(key), version)
		return false
	}
	return ok
}

// The same oracle while the server is restarted every 2 s, and while one sidecar
// is cut off and comes back.
func TestCoherentOverRestartsAndCuts(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	j := startJetStream(t)
	way := newWay(t, j.addr)
	f := newFleet(t, time.Second, j.attach(j.addr), j.attach(way.addr()))
	ctx, stop := context.WithTimeout(t.Context(), 4500*time.Millisecond)
	defer stop()
	var faults sync.WaitGroup
	every := func(d time.Duration, do func()) {
		faults.Go(func() {
			tick := time.NewTicker(d)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					do()
				}
			}
		})
	}
	every(2*time.Second, j.restart)
	every(1300*time.Millisecond, func() {
		way.cut()
		time.Sleep(500 * time.Millisecond)
		way.open()
	})
	f.run(seed, ctx.Done(), 2*time.Millisecond)
	faults.Wait()
	f.converges()
}

// way is a TCP proxy that can be cut.
type way struct {
	to string
	l  net.Listener

	mu     sync.Mutex
	closed bool
	conns  []net.Conn
	pipes  sync.WaitGroup
}

func newWay(t *testing.T, to string) *way {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	w := &way{to: to, l: l}
	w.pipes.Go(w.accept)
	t.Cleanup(func() {
		l.Close()
		w.cut()
		w.pipes.Wait()
	})
	return w
}

func (w *way) addr() string { return w.l.Addr().String() }

func (w *way) accept() {
	for {
		from, err := w.l.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", w.to)
		w.mu.Lock()
		if err != nil || w.closed {
			from.Close()
			if err == nil {
				to.Close()
			}
			w.mu.Unlock()
			continue
		}
		w.conns = append(w.conns, from, to)
		w.mu.Unlock()
		for _, pair := range [][2]net.Conn{{from, to}, {to, from}} {
			w.pipes.Go(func() {
				_, _ = io.Copy(pair[0], pair[1]) // ends when either is closed
				pair[0].Close()
				pair[1].Close()
			})
		}
	}
}

func (w *way) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

func (w *way) open() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = false
}
