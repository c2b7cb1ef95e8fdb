package native_test

import (
	"cmp"
	"context"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/membus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// world is a source of truth, and what of its writes is known to be told.
type world struct {
	t *testing.T
	*rig
	foreign *membus.Bus
	ctx     context.Context

	mu        sync.Mutex
	committed map[string]uint64
	applied   map[string]uint64 // of the writes that were answered by this sidecar
	acked     map[string][]ack  // rising
}

// ack is a version whose event was acknowledged before a moment.
type ack struct {
	version uint64
	at      time.Duration
}

// Keys by what makes them stale: themselves, with a version or without; a tag, a prefix,
// their namespace; and d:0 is made of u:0, e:0 of s:0, f:0 of p:a:0.
var worldKeys = []string{"n:0", "n:1", "u:0", "u:1", "t:0", "p:a:0", "s:0", "d:0", "e:0", "f:0"}

var madeOf = map[string]string{"d:0": "u:0", "e:0": "s:0", "f:0": "p:a:0"}

// truth is the key whose versions those of key are.
func truth(key string) string {
	return cmp.Or(madeOf[key], key)
}

func (w *world) write(r *rand.Rand, key string) {
	key = truth(key)
	w.mu.Lock()
	w.committed[key]++
	v := w.committed[key]
	w.mu.Unlock()
	own, e := r.IntN(2) == 0, eventOf(key, v)
	var err error
	switch {
	case own && key[0] == 's':
		_, err = w.Flush(w.ctx, "s")
	case own:
		_, err = w.Invalidate(w.ctx, cache.Write{Keys: e.Keys, Tags: e.Tags, Prefix: e.Prefix})
	default:
		_, err = w.foreign.Publish(w.ctx, key[:1], e)
	}
	if err != nil {
		return // the stream was made anew meanwhile
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acked[key] = append(w.acked[key], ack{v, w.Now()})
	if own {
		w.applied[key] = max(w.applied[key], v)
	}
}

func eventOf(key string, version uint64) bus.Event {
	switch key[0] {
	case 'n':
		return bus.Event{Keys: []bus.KeyVersion{{Key: key, Version: version + 1}}}
	case 't':
		return bus.Event{Tags: []string{"tag"}}
	case 'p':
		return bus.Event{Prefix: "p:a:"}
	case 's':
		return bus.Event{Op: bus.OpFlush}
	}
	return bus.Event{Keys: []bus.KeyVersion{{Key: key}}}
}

// known returns what a reader must see that asks now: all that was answered here, or
// what was acknowledged before a moment.
func (w *world) known(key string, before time.Duration) (v uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if before == 0 {
		return w.applied[truth(key)]
	}
	for _, a := range w.acked[truth(key)] {
		if a.at < before {
			v = max(v, a.version)
		}
	}
	return v
}

// load fills a key on a miss, as an app does.
func (w *world) load(p *peer, key string) {
	g := get(key)
	g.Wait = 0
	miss := p.ask(near.KindGet, g).(*near.Value)
	if miss.Status != near.Miss {
		return
	}
	w.mu.Lock()
	v := w.committed[truth(key)]
	w.mu.Unlock()
	f := near.Fill{Key: []byte(key), Lease: miss.Lease, Value: strconv.AppendUint(nil, v, 10)}
	switch key[0] {
	case 'n':
		f.Version = v + 1 // 0 is none
	case 't':
		f.Tags = []string{"tag"}
	}
	if leaf := madeOf[key]; leaf != "" {
		f.Depends = [][]byte{[]byte(leaf)}
	}
	p.ask(near.KindFill, &f)
	p.seen = p.seen[:0]
}

func versionOf(t *testing.T, v near.Value) uint64 {
	n, err := strconv.ParseUint(string(v.Value), 10, 64)
	require.NoError(t, err)
	return n
}

// step is one of what a client with an L0 does.
func (w *world) step(c *tracking, r *rand.Rand, writes map[uint32]func()) {
	key := worldKeys[r.IntN(len(worldKeys))]
	switch n := r.IntN(100); {
	case n < 70:
		c.begin(key, func(g *near.Get) { g.Wait = time.Duration(r.IntN(2)) * 2 * time.Millisecond })
	case n < 80:
		c.push()
		c.take()
	case n < 90: // O2, O4: what was answered to anybody is told before a pong
		want := make(map[string]uint64)
		for _, k := range worldKeys {
			want[k] = w.known(k, 0)
		}
		c.ask(near.KindPing, &near.None{})
		c.take()
		for k, v := range c.l0.entries {
			require.GreaterOrEqual(w.t, versionOf(w.t, v), want[k], "I1, I4: %s is kept", k)
		}
	case n < 98: // O3: no entry is older than FRESH and the bound allow
		bound := time.Duration(1 + r.IntN(20))
		now := w.Now()
		if v, ok := c.l0.read(key, now, bound); ok {
			require.GreaterOrEqual(w.t, versionOf(w.t, v), w.known(key, now-bound), "I5: %s is served at %v, bound %v", key, now, bound)
		}
	default:
		w.mu.Lock()
		v := w.committed["u:1"]
		w.mu.Unlock()
		id := c.send(near.KindInvalidate, &near.Invalidate{Keys: []near.KeyVersion{{Key: []byte("u:1")}}})
		writes[id] = func() {
			if kept, ok := c.l0.entries["u:1"]; ok {
				require.GreaterOrEqual(w.t, versionOf(w.t, kept), v, "I4: u:1 is kept after a write of it was answered")
			}
		}
	}
}

// An L0 that follows the rules never keeps what it must not, however answers, events,
// writes, fills, purges, doubts and barriers race.
func TestL0Model(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := &world{
		t: t, rig: newRig(t, permitted), ctx: t.Context(),
		committed: make(map[string]uint64), applied: make(map[string]uint64), acked: make(map[string][]ack),
	}
	w.foreign = w.Stream.Attach(membus.Options{})
	t.Cleanup(func() { require.NoError(t, w.foreign.Close()) })
	ctx, stop := context.WithCancel(t.Context())
	var others sync.WaitGroup
	other := func(n uint64, do func(*rand.Rand)) {
		others.Go(func() {
			for r := rand.New(rand.NewPCG(seed, n)); ctx.Err() == nil; runtime.Gosched() {
				do(r)
			}
		})
	}
	for n := range uint64(2) {
		other(10+n, func(r *rand.Rand) { w.write(r, worldKeys[r.IntN(len(worldKeys))]) })
		p := w.greet(t)
		other(20+n, func(r *rand.Rand) { w.load(p, worldKeys[r.IntN(len(worldKeys))]) })
	}
	var rounds atomic.Uint64
	other(30, func(*rand.Rand) {
		w.Clock.Advance(time.Duration(5))
		switch n := rounds.Add(1); {
		case n%300 == 0:
			w.SetPolicies(w.Policies())
		case n%700 == 1:
			w.Stream.Recreate(n * 1000) // a doubt
		default:
			ctx, cancel := context.WithTimeout(ctx, sidecartest.Wait)
			_, _ = w.Barrier(ctx) // a new stream may end it
			cancel()
		}
	})
	c := w.tracking(w.greet(t))
	newest := make(map[string]uint64) // of what the client has seen
	c.answered = func(key string, v near.Value) {
		if v.Status.Found() {
			require.GreaterOrEqual(t, versionOf(t, v), newest[key], "I2: %s is answered", key)
			newest[key] = versionOf(t, v)
		}
	}
	kept, r := 0, rand.New(rand.NewPCG(seed, 1))
	for range 20_000 {
		writes := make(map[uint32]func())
		w.step(c, r, writes)
		kept += len(c.l0.entries)
		for key, v := range c.l0.entries {
			require.GreaterOrEqual(t, versionOf(t, v), newest[key], "I2: %s is kept", key)
		}
		for id, check := range writes {
			c.answerTo(id)
			c.take()
			check()
		}
		if c.done > 1000 {
			c.seen, c.done = append([]frame(nil), c.seen[c.done:]...), 0
		}
	}
	stop()
	others.Wait()
	w.end(c)
	require.Positive(t, kept)
	t.Logf("kept %.2f of %d keys; %d versions of n:0, %d barriers, %d doubts", float64(kept)/20_000, len(worldKeys), w.committed["n:0"], rounds.Load(), w.Status().Bus.Doubts)
}

// end asks whether L0 is as the source is (I3), when all is told.
func (w *world) end(c *tracking) {
	for _, key := range worldKeys {
		if madeOf[key] == "" {
			w.Publish(w.t, eventOfNamespace(key, w.committed[key]))
		}
	}
	c.ask(near.KindPing, &near.None{})
	c.take()
	for key, v := range c.l0.entries {
		require.Equal(w.t, w.committed[truth(key)], versionOf(w.t, v), "I3: %s", key)
	}
}

// eventOfNamespace is eventOf for Publish, which publishes what names no key under the
// default namespace.
func eventOfNamespace(key string, version uint64) bus.Event {
	if e := eventOf(key, version); e.Op != bus.OpFlush {
		return e
	}
	return bus.Event{Prefix: "s:"}
}
