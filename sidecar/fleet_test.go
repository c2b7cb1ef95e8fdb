package sidecar_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

const (
	fleetKeys = 300
	// fleetWindow is the fill window, which bounds for how long a trimmed history
	// makes a sidecar blind; longestLoad keeps readers well within it.
	fleetWindow = 500 * time.Millisecond
	longestLoad = 5 * time.Millisecond
)

// fleet is some sidecars on one stream, a source of truth whose values are
// counters, and the oracle: what each sidecar must not go behind.
type fleet struct {
	t        *testing.T
	sidecars []*sidecartest.Sidecar
	keys     [fleetKeys]fleetKey
	writing  sync.RWMutex // held by writers, so that a fault can wait for them

	writes, failed, hits, misses atomic.Uint64
}

type fleetKey struct {
	version atomic.Uint64 // in the source

	mu     sync.Mutex
	events []fleetEvent // acknowledged
	own    []uint64     // by sidecar: the newest version whose DEL it has answered
	owed   bool         // a DEL was not acknowledged
}

// fleetEvent says that version was committed before the event at position was
// published.
type fleetEvent struct {
	position bus.Position
	version  uint64
}

// newFleet starts a sidecar on each bus; their DELs are given up after timeout.
func newFleet(t *testing.T, timeout time.Duration, buses ...bus.Bus) *fleet {
	f := &fleet{t: t}
	for _, b := range buses {
		f.sidecars = append(f.sidecars, sidecartest.Start(t, b, func(c *sidecar.Config) {
			c.Policies = &policy.Set{Window: fleetWindow, Default: policy.DefaultNamespace()}
			c.PublishTimeout = timeout
			c.Memory = 16 << 20
		}))
	}
	for i := range f.keys {
		f.keys[i].version.Store(1)
		f.keys[i].own = make([]uint64, len(buses))
	}
	return f
}

func keyName(i int) string { return fmt.Sprintf("ns%d:%d", i%3, i) }

// bound is the oldest version that sidecar s may serve of the key once it has
// applied everything up to at.
func (k *fleetKey) bound(s int, at bus.Position) uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := len(k.events) - 1; i >= 0; i-- {
		if at.Covers(k.events[i].position) {
			return max(k.own[s], k.events[i].version)
		}
	}
	return k.own[s]
}

// note records what came of the DEL that followed the commit of version.
func (k *fleetKey) note(s int, version uint64, at bus.Position, acknowledged bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.own[s] = max(k.own[s], version) // also when publishing failed (C8)
	k.owed = !acknowledged || k.owed && version < k.version.Load()
	if !at.IsZero() {
		k.events = append(k.events, fleetEvent{at, version})
		for i := len(k.events) - 1; i > 0 && k.events[i].version < k.events[i-1].version; i-- {
			k.events[i], k.events[i-1] = k.events[i-1], k.events[i]
		}
	}
}

// fleetClient is a connection to sidecar s for one goroutine.
type fleetClient struct {
	*resp.Client
	f      *fleet
	s      int
	random *rand.Rand
}

func (f *fleet) client(s int, seed uint64) *fleetClient {
	return &fleetClient{Client: f.sidecars[s].Dial(f.t).Client, f: f, s: s, random: rand.New(rand.NewPCG(seed, uint64(s)))}
}

func (c *fleetClient) do(args ...string) (r resp.Reply, ok bool) {
	ctx, cancel := context.WithTimeout(context.Background(), sidecartest.Wait)
	defer cancel()
	replies, err := c.Pipeline(ctx, args)
	if err != nil {
		c.f.t.Errorf("sidecar %d: %.100q: %v", c.s, args, err)
		return r, false
	}
	return replies[0], true
}

// write commits a new version of a random key and invalidates it, half of the
// time in the way that tells the position.
func (c *fleetClient) write() (key int, version uint64, at bus.Position, ok bool) {
	c.f.writing.RLock()
	defer c.f.writing.RUnlock()
	key = c.random.IntN(fleetKeys)
	k := &c.f.keys[key]
	version = k.version.Add(1)
	args := []string{"NEAR.INVALIDATE", "KEYS", "1", keyName(key), "0"}
	if c.random.IntN(2) == 0 {
		args = []string{"DEL", keyName(key)}
	}
	r, ok := c.do(args...)
	if !ok {
		return key, version, at, false
	}
	c.f.writes.Add(1)
	switch r.Kind {
	case resp.KindBulk:
		var err error
		if at, err = bus.ParseToken(r.Str); err != nil {
			c.f.t.Errorf("token %q: %v", r.Str, err)
		}
	case resp.KindError:
		c.f.failed.Add(1)
		if !strings.HasPrefix(r.Str, "NOACK ") && !strings.HasPrefix(r.Str, "NOTAPPLIED ") {
			c.f.t.Errorf("sidecar %d: %q", c.s, r.Str)
		}
	}
	k.note(c.s, version, at, r.Kind != resp.KindError)
	return key, version, at, true
}

// read is cache-aside: a GET, and after a miss a load that takes its time and a
// plain SET.
func (c *fleetClient) read(key int) bool {
	k, name, begun := &c.f.keys[key], keyName(key), time.Now()
	at := c.f.sidecars[c.s].Applied()
	bound := k.bound(c.s, at)
	r, ok := c.do("GET", name)
	if !ok {
		return false
	}
	if !r.IsNull() {
		c.f.hits.Add(1)
		if v, err := strconv.ParseUint(r.Str, 10, 64); err != nil || v < bound {
			c.f.t.Errorf("sidecar %d served version %q of %s; %d was invalidated at or below %v, which it had applied", c.s, r.Str, name, bound, at)
			return false
		}
		return true
	}
	c.f.misses.Add(1)
	loaded := k.version.Load()
	time.Sleep(time.Duration(c.random.Int64N(int64(longestLoad))))
	if time.Since(begun) > fleetWindow/3 {
		return true // the machine is too busy: the assumption of C3 may not hold
	}
	_, ok = c.do("SET", name, strconv.FormatUint(loaded, 10))
	return ok
}

// run lets readers and writers work until done is closed.
func (f *fleet) run(seed uint64, done <-chan struct{}, pause time.Duration) {
	var workers sync.WaitGroup
	work := func(s int, seed uint64, step func(*fleetClient) bool) {
		c := f.client(s, seed)
		workers.Go(func() {
			for step(c) && !f.t.Failed() {
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for s := range f.sidecars {
		for i := range uint64(6) {
			work(s, seed+i, func(c *fleetClient) bool { return c.read(c.random.IntN(fleetKeys)) })
		}
		work(s, seed+100, func(c *fleetClient) bool {
			time.Sleep(time.Duration(c.random.Int64N(int64(2*pause) + 1)))
			_, _, _, ok := c.write()
			return ok
		})
	}
	workers.Wait()
}

// settle publishes until every sidecar has applied everything up to at: a fault
// may have taken the last event, which only a later one reveals.
func (f *fleet) settle(c *fleetClient, at bus.Position) {
	require.Eventually(f.t, func() bool {
		for _, s := range f.sidecars {
			if !s.Applied().Covers(at) {
				c.do("DEL", "settle:1")
				return false
			}
		}
		return true
	}, sidecartest.Wait, 10*time.Millisecond)
}

// converges checks that with all faults healed and every failed DEL repeated, each
// sidecar's entries equal the source (I3).
func (f *fleet) converges() {
	c := f.client(0, 0)
	var last bus.Position
	require.Eventually(f.t, func() bool {
		for i := range f.keys {
			if k := &f.keys[i]; k.owed || i == 0 {
				r, ok := c.do("NEAR.INVALIDATE", "KEYS", "1", keyName(i), "0")
				if !ok || r.Kind != resp.KindBulk {
					return false
				}
				at, err := bus.ParseToken(r.Str)
				require.NoError(f.t, err)
				k.note(0, k.version.Load(), at, true)
				last = at
			}
		}
		return true
	}, sidecartest.Wait, 10*time.Millisecond)
	f.settle(c, last)
	for s, sc := range f.sidecars {
		held, c := 0, f.client(s, 0)
		for i := range f.keys {
			if r, _ := c.do("GET", keyName(i)); !r.IsNull() {
				held++
				require.Equal(f.t, strconv.FormatUint(f.keys[i].version.Load(), 10), r.Str, "sidecar %d, %s", s, keyName(i))
			}
		}
		f.t.Logf("sidecar %d: %d of %d keys held, %+v", s, held, fleetKeys, sc.Bus.Status())
	}
	f.t.Logf("%d writes (%d not acknowledged or applied in time), %d hits, %d misses", f.writes.Load(), f.failed.Load(), f.hits.Load(), f.misses.Load())
	require.Positive(f.t, f.hits.Load())
	require.Positive(f.t, f.misses.Load())
}
