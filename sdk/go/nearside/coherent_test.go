//go:build linux

package nearside_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus/membus"
	"github.com/nearside-cache/nearside/sdk/go/nearside"
)

var (
	coherentSeed = flag.Uint64("coherent.seed", 0, "of TestCoherentL0; 0: a random one")
	coherentTime = flag.Duration("coherent.time", 3*time.Second, "of the faults of TestCoherentL0, with each driver")
)

const (
	coherentReaders = 6 // of each pod
	eagerReaders    = 3 // of these: they ask for nothing that a sidecar waits for
	coherentWriters = 6
)

var coherentKeys = []string{"item:1", "item:2", "item:3", "item:4", "tight:1", "tight:2", "crit:1", "crit:2"}

// world is pods, a source whose versions only grow, and an oracle: what each read must
// not be older than, by real time.
type world struct {
	t      *testing.T
	seed   uint64
	pods   []*pod
	stream *membus.Stream
	began  time.Time
	keys   map[string]*truth // fixed
	end    chan struct{}     // closed when all is over
	broken atomic.Bool

	reads, hits, strong, writes, failed atomic.Uint64
}

// truth is what is known of a key.
type truth struct {
	version atomic.Uint64 // in the source

	mu      sync.Mutex
	acks    []ackedVersion // by time; versions grow
	strong  uint64         // newest that a finished Strong read returned
	seen    []uint64       // by pod: newest that a finished read was answered by it
	own     []uint64       // by pod: newest whose write it has answered
	written versionToken   // newest of a write, and of a read
	read    versionToken
}

type ackedVersion struct {
	at      time.Duration
	version uint64
}

type versionToken struct {
	nearside.Token
	version uint64
}

func (w *world) now() time.Duration { return time.Since(w.began) }

// fault ends the test with what was wrong.
func (w *world) fault(format string, args ...any) {
	w.broken.Store(true)
	w.t.Errorf("%v: %s", w.now(), fmt.Sprintf(format, args...))
}

// Readers with an L0 in two pods, writers through both, and faults: the stream holds back,
// fails and loses events; sidecars end and come back; connections break and stand still.
// Every answer is as fresh as its read asked for, and of one pod none goes back.
func TestCoherentL0(t *testing.T) {
	seed := *coherentSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	eachDriver(t, func(t *testing.T, driver string) {
		t.Log("coherent.seed", seed)
		w := &world{t: t, seed: seed, began: time.Now(), keys: map[string]*truth{}, end: make(chan struct{})}
		w.pods, w.stream = newPods(t, driver, 2)
		for _, key := range coherentKeys {
			k := &truth{seen: make([]uint64, len(w.pods)), own: make([]uint64, len(w.pods))}
			k.version.Store(1)
			w.keys[key] = k
		}
		var all sync.WaitGroup
		stop := sync.OnceFunc(func() {
			close(w.end)
			all.Wait()
		})
		t.Cleanup(stop)
		for i := range w.pods {
			for n := range coherentReaders {
				all.Go(func() { w.reader(i, n < eagerReaders, rand.New(rand.NewPCG(seed, uint64(100*i+n)))) })
			}
		}
		for n := range coherentWriters {
			all.Go(func() { w.writer(rand.New(rand.NewPCG(seed, uint64(1000+n)))) })
		}
		w.torment(rand.New(rand.NewPCG(seed, 0)))
		stop()
		w.converge()
		t.Logf("%d reads, %d by L0, %d Strong; %d writes, %d tries failed", w.reads.Load(), w.hits.Load(), w.strong.Load(), w.writes.Load(), w.failed.Load())
		require.Positive(t, w.strong.Load())
		require.Greater(t, w.hits.Load(), w.writes.Load())
	})
}

// torment does one fault after the other, and heals everything.
func (w *world) torment(r *rand.Rand) {
	pause := func(longest time.Duration) { time.Sleep(rand.N(longest)) }
	for w.now() < *coherentTime && !w.broken.Load() {
		p := w.pods[r.IntN(len(w.pods))]
		n := 1 + r.IntN(4)
		switch r.IntN(14) {
		case 0:
			p.bus.Hold()
		case 1:
			p.bus.Disconnect()
		case 2:
			p.bus.DropNext(n)
		case 3:
			p.bus.DuplicateNext(n)
		case 4:
			p.bus.ReverseNext(n)
		case 5:
			p.bus.FailPublishes(n)
		case 6:
			p.bus.LoseAcks(n)
		case 7: // doubt
			p.bus.Disconnect()
			pause(100 * time.Millisecond)
			w.stream.Trim(w.stream.Last())
			p.bus.Reconnect()
		case 8:
			p.restart()
		case 9, 10:
			p.cut()
		case 11, 12:
			p.shut()
			pause(900 * time.Millisecond)
			p.open()
		}
		pause(time.Duration(100+400*r.IntN(2)) * time.Millisecond)
		if r.IntN(2) == 0 {
			p.bus.Release()
			p.bus.Reconnect()
		}
	}
	for _, p := range w.pods {
		p.bus.Release()
		p.bus.Reconnect()
	}
}

// wait waits, and reports whether there is more to do.
func (w *world) wait(d time.Duration) bool {
	select {
	case <-w.end:
		return false
	case <-time.After(d):
		return !w.broken.Load()
	}
}

// writer commits versions and says so by either pod until it is acknowledged.
func (w *world) writer(r *rand.Rand) {
	for w.wait(rand.N(20 * time.Millisecond)) {
		key := coherentKeys[r.IntN(len(coherentKeys))]
		k := w.keys[key]
		version := k.version.Add(1)
		if r.IntN(4) == 0 { // late: others load what nobody knows of
			time.Sleep(rand.N(50 * time.Millisecond))
		}
		for !w.publish(r, key, version) && !w.broken.Load() {
			w.failed.Add(1)
		}
		w.writes.Add(1)
	}
}

// publish tries once, and reports whether the stream has acknowledged it.
func (w *world) publish(r *rand.Rand, key string, version uint64) bool {
	i := r.IntN(len(w.pods))
	p, k := w.pods[i], w.keys[key]
	ctx := nearside.ContextWithSession(context.Background())
	var token nearside.Token
	var err error
	switch r.IntN(8) {
	case 0:
		token, err = p.Update(ctx, nearside.Update{Key: key, Version: version, Value: fmt.Append(nil, version)})
	case 1:
		token, err = p.Invalidate(ctx, nearside.Key(key, 0))
	case 2:
		token, err = p.Invalidate(ctx, nearside.Key(key, 0), nearside.Tag(key))
	default:
		token, err = p.Invalidate(ctx, nearside.Key(key, version))
	}
	if err != nil && !errors.Is(err, nearside.ErrNotApplied) {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	ack := ackedVersion{w.now(), version}
	if n := len(k.acks); n > 0 {
		ack.version = max(version, k.acks[n-1].version)
	}
	k.acks = append(k.acks, ack)
	k.own[i] = max(k.own[i], version)
	if err == nil && version > k.written.version {
		k.written = versionToken{token, version}
	}
	return true
}

// asked is a read under way, and what its answer must not be older than.
type asked struct {
	key     string
	what    string
	pod     int
	options []nearside.ReadOption
	least   uint64
	why     string
	strong  bool
}

// ask begins a read of some mode.
func (w *world) ask(r *rand.Rand, i int, eager bool) asked {
	key := coherentKeys[min(r.IntN(len(coherentKeys)), r.IntN(len(coherentKeys)))]
	k := w.keys[key]
	k.mu.Lock()
	defer k.mu.Unlock()
	q := asked{key: key, pod: i}
	now := w.now()
	q.atLeast(k.seen[i], "a read of this pod had returned it (I2)")
	q.atLeast(k.own[i], "this pod had answered its write (I4)")
	bounded := func(d time.Duration) {
		q.what += " " + d.String()
		q.atLeast(k.acked(now-d), "it had been acknowledged for longer (I5)")
	}
	modes := 10
	if eager {
		modes = 5
	}
	switch n := r.IntN(modes); {
	case n < 2:
		q.what, q.options = "Any", []nearside.ReadOption{nearside.Any()}
	case n < 5:
		d := []time.Duration{50, 200, 400, 1000}[r.IntN(4)] * time.Millisecond
		q.what, q.options = "MaxStale", []nearside.ReadOption{nearside.MaxStale(d)}
		bounded(d)
	case n < 7:
		token := k.written
		if r.IntN(2) == 0 {
			token = k.read
		}
		q.what, q.options = "AtLeast "+string(token.Token), []nearside.ReadOption{nearside.AtLeast(token.Token)}
		q.atLeast(token.version, "the token is of it (I4)")
	case n < 9 && key[:4] != critSpace:
		q.what = "plain"
		if key[:5] == tightSpace {
			bounded(tightBound)
		} else {
			bounded(30 * time.Second)
		}
	default:
		q.what, q.strong = "Strong", true
		if key[:4] != critSpace {
			q.options = []nearside.ReadOption{nearside.Strong()}
		}
		q.atLeast(k.acked(now), "it had been acknowledged (I6)")
		q.atLeast(k.strong, "a Strong read had returned it (I6)")
	}
	return q
}

func (q *asked) atLeast(version uint64, why string) {
	if version > q.least {
		q.least, q.why = version, why
	}
}

// acked returns the newest version that was acknowledged before a moment. k.mu is held.
func (k *truth) acked(before time.Duration) uint64 {
	for i := len(k.acks) - 1; i >= 0; i-- {
		if k.acks[i].at < before {
			return k.acks[i].version
		}
	}
	return 0
}

// reader reads by a pod, in every mode.
func (w *world) reader(i int, eager bool, r *rand.Rand) {
	c := w.pods[i].Client
	from := nearside.Source[uint64]{Load: func(_ context.Context, key string) (nearside.Loaded[uint64], error) {
		v := w.keys[key].version.Load()
		time.Sleep(rand.N(3 * time.Millisecond)) // on its way back
		return nearside.Loaded[uint64]{Value: v, Version: v, Tags: []string{key}}, nil
	}}
	for w.wait(rand.N(time.Millisecond)) {
		q := w.ask(r, i, eager)
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		if eager || r.IntN(3) == 0 {
			w.get(ctx, c, q)
		} else {
			w.load(ctx, c, q, from)
		}
		cancel()
	}
}

// get reads what is kept.
func (w *world) get(ctx context.Context, c *nearside.Client, q asked) {
	a, err := c.Get(ctx, q.key, append(q.options, nearside.WithToken(), nearside.Wait(0))...)
	if err != nil {
		return
	}
	if !a.Status.Found() {
		if a.Right {
			_ = c.Release(ctx, q.key, a.Lease) // it ends by itself, too
		}
		return
	}
	var v uint64
	if _, err := fmt.Sscan(string(a.Value), &v); err != nil || v != a.Version {
		w.fault("%s of %s by pod %d: %q at version %d (I10)", q.what, q.key, q.pod, a.Value, a.Version)
	}
	w.answered(q, v, a.FromL0, true, a.Token)
}

// load is get that loads what it misses.
func (w *world) load(ctx context.Context, c *nearside.Client, q asked, from nearside.Source[uint64]) {
	r, err := nearside.Load(ctx, c, q.key, from, q.options...)
	if err != nil {
		if !errors.Is(err, nearside.ErrUnproven) && ctx.Err() == nil {
			w.fault("%s of %s by pod %d: %v", q.what, q.key, q.pod, err)
		}
		return
	}
	if r.Value != r.Version {
		w.fault("%s of %s by pod %d: %d at version %d (I10)", q.what, q.key, q.pod, r.Value, r.Version)
	}
	// That a namespace is critical only its sidecar knows: without its word the client
	// takes a plain read for an ordinary one.
	q.strong = q.strong && (len(q.options) > 0 || r.Stored)
	w.answered(q, r.Value, r.FromL0, r.Stored, "")
}

// answered judges an answer. kept: it is the pod's, or the pod has it now.
func (w *world) answered(q asked, version uint64, fromL0, kept bool, token nearside.Token) {
	if version < q.least {
		w.fault("%s of %s by pod %d (L0: %t) returned version %d, want %d: %s", q.what, q.key, q.pod, fromL0, version, q.least, q.why)
	}
	k := w.keys[q.key]
	k.mu.Lock()
	defer k.mu.Unlock()
	w.reads.Add(1)
	if fromL0 {
		w.hits.Add(1)
	}
	if kept {
		k.seen[q.pod] = max(k.seen[q.pod], version)
	}
	if token != "" && version > k.read.version {
		k.read = versionToken{token, version}
	}
	if !q.strong {
		return
	}
	w.strong.Add(1)
	k.strong = max(k.strong, version)
	if fromL0 {
		w.fault("a Strong read of %s by pod %d was answered by L0 (L6)", q.key, q.pod)
	}
}

// converge compares what pods hold, when nothing happens any more, with the source (I3).
func (w *world) converge() {
	for i, p := range w.pods {
		_, err := p.Barrier(w.t.Context())
		require.NoError(w.t, err)
		for _, key := range coherentKeys {
			a, err := p.Get(w.t.Context(), key, nearside.Any())
			require.NoError(w.t, err)
			if a.Status.Found() {
				require.Equal(w.t, w.keys[key].version.Load(), a.Version, "%s by pod %d (I3)", key, i)
			}
		}
	}
}
