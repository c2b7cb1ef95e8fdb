// Package cache joins the parts that make a sidecar's L1 coherent: the store
// that holds the values, the core that decides what may be kept, and the bus
// that says what changed.
//
// A hit takes no lock but the store's own: it reads the entry, then asks the
// current horizon whether the entry is alive. Everything that changes state
// goes through the core under one lock, so that a decision and its effect on
// the store are one step.
package cache

import (
	"context"
	"hash/maphash"
	"math/bits"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/localstore"
	"github.com/nearside-cache/nearside/sidecar/clock"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/rights"
)

// Config is what a Cache is made of.
type Config struct {
	// Memory is the hard budget in bytes for entries, fences and misses together.
	// More keeps more entries, and leases valid for longer.
	Memory int64
	// MaxValue is the largest value in bytes that is stored.
	MaxValue int
	Policies *policy.Set
	Bus      bus.Bus
	Clock    clock.Clock
	// PublishTimeout bounds how long an invalidation waits for the stream's
	// acknowledgement and for being applied here. A stream without a leader may
	// take 8 s to find one; clients rarely wait that long.
	PublishTimeout time.Duration
	// FirstLife says that no client can have missed on an earlier life of this
	// sidecar (ADR 0002).
	FirstLife bool
	// Earlier is what an earlier life knew that ended within the last window; zero
	// when nothing is known of one. Its moments are Clock's.
	Earlier coherence.Judging
	// Origins load what is missed in namespaces whose policy has a loader; nil:
	// nothing is loaded here. Tiers are the shared tiers; nil: there are none.
	Origins Origins
	Tiers   Tiers
	// Go runs what is done in the background: loads, and what follows from them. nil: a
	// goroutine each. A simulation decides itself who goes on when.
	Go func(run func())
	// Wait waits until done is closed, but no longer than so long, and reports whether
	// it was. nil: on the real clock.
	Wait func(ctx context.Context, done <-chan struct{}, atMost time.Duration) bool
	// Hash places keys in tables of bounded size. nil: one of this Cache's own, so that
	// nobody can choose keys that share a place. A simulation gives its own, for which
	// entries are evicted decides what happens next.
	Hash    func(key string) uint64
	Metrics *Metrics
	Logger  hclog.Logger
}

// Cache is one sidecar's L1. It is safe for concurrent use, and it is the
// Handler of its own bus.
type Cache struct {
	store    *localstore.Store
	bus      bus.Bus
	now      clock.Clock
	timeout  time.Duration
	maxValue int
	earlier  coherence.Judging
	origins  Origins
	tiers    Tiers
	loads    *loads
	wait     func(ctx context.Context, done <-chan struct{}, atMost time.Duration) bool
	heat     heat
	hash     func(key string) uint64
	metrics  *Metrics
	log      hclog.Logger
	policies atomic.Pointer[policy.Set]

	// horizon is the core's, published for hits. INVARIANT: it is replaced
	// before the position that it belongs to is reported as applied.
	horizon atomic.Pointer[coherence.Horizon]
	applied atomic.Pointer[bus.Position]
	// fresh is the moment of now up to which everything published is applied here
	// (B5). INVARIANT: it is raised after what it covers has been applied.
	fresh atomic.Int64
	ready chan struct{} // closed at the first Resume

	mu        sync.Mutex // guards core, its tables, and writes to the store
	core      *coherence.Core
	evictTime time.Duration // now of the Put under way
	evicted   func(localstore.Evicted)
	dropped   dropped
	observers []Observer

	rights  *rights.Table
	waiters waiters
	formers formers
	tail    tail
}

// Shares of the memory budget, in percent. What is left goes to the store.
const (
	fenceShare      = 8
	missShare       = 8
	generationShare = 2
	heatShare       = 3
	trailShare      = 1

	fenceBytes = 128 // a fence and its place in the index
	missBytes  = 320 // a key's misses, its place in the index and in the queue

	slotBytes = 2 * 2 * 8 // of two rows, twice while one set replaces the other

	digestBytes = 2 * 8 // a slice that grows leaves as much unused

	maxNamespaces = 1024 // whose flush RESETs are kept apart
)

// New makes an empty Cache, which answers nothing from memory until it has been
// told where the stream is: hand it to its bus with Bus.Follow.
func New(c Config) (*Cache, error) {
	if c.Hash == nil {
		seed := maphash.MakeSeed()
		c.Hash = func(key string) uint64 { return maphash.String(seed, key) }
	}
	store, err := localstore.Open(localstore.Config{
		Budget:   c.Memory * (100 - fenceShare - missShare - generationShare - heatShare - trailShare) / 100,
		MaxValue: c.MaxValue,
		Hash:     c.Hash,
	})
	if err != nil {
		return nil, err
	}
	ca := &Cache{
		store: store, bus: c.Bus, now: c.Clock, timeout: c.PublishTimeout, maxValue: c.MaxValue, earlier: c.Earlier, origins: c.Origins, tiers: c.Tiers, loads: newLoads(c.Go), wait: c.Wait, hash: c.Hash,
		metrics: c.Metrics, log: c.Logger,
		ready:  make(chan struct{}),
		rights: rights.New(rights.Config{Max: maxRights, Waiting: maxWaiting, Clock: c.Clock, Metrics: c.Metrics.Rights}),
	}
	if ca.wait == nil {
		ca.wait = waitFor
	}
	ca.heat = newHeat(c, ca.Policies)
	ca.core = coherence.New(coherence.Config{
		Window:        c.Policies.Window,
		MaxFences:     int(c.Memory * fenceShare / 100 / fenceBytes),
		MaxMisses:     int(c.Memory * missShare / 100 / missBytes),
		MaxTrail:      int(c.Memory * trailShare / 100 / digestBytes),
		MaxNamespaces: maxNamespaces,
		// Rounded down to a power of two, for the core would round up.
		GenerationSlots: 1 << (bits.Len64(uint64(c.Memory*generationShare/100/slotBytes)) - 1),
		Hash:            c.Hash,
		Incarnation:     uint64(rand.Uint32()) << 24,
		FirstLife:       c.FirstLife,
	}, residents{ca})
	ca.evicted = ca.onEvicted
	ca.policies.Store(c.Policies.Indexed())
	ca.horizon.Store(ca.core.Horizon())
	ca.applied.Store(&bus.Position{})
	return ca, nil
}

// Close ends all loads and gives the memory back. Following must have ended.
func (c *Cache) Close() error {
	c.loads.close()
	return c.store.Close()
}

// Ready is closed once the cache follows the stream (C9). Losing the broker
// later does not make it unready.
func (c *Cache) Ready() <-chan struct{} { return c.ready }

// Applied returns the position up to which every event was applied here or
// covered by a flush.
func (c *Cache) Applied() bus.Position { return *c.applied.Load() }

// Incarnation identifies the state: that of another process, and that after a doubt,
// has another.
func (c *Cache) Incarnation() uint64 { return c.horizon.Load().Incarnation() }

// Policies returns the policies in force.
func (c *Cache) Policies() *policy.Set { return c.policies.Load() }

// SetPolicies replaces the policies. The fill window stays what it was when the
// Cache was made.
func (c *Cache) SetPolicies(p *policy.Set) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.policies.Store(p.Indexed())
	c.tell(Change{Cause: ByPolicy, All: true})
}

// MaxValue is the largest value in bytes that is stored.
func (c *Cache) MaxValue() int { return c.maxValue }

// Now is the clock that expiries are judged by. A caller that serves several
// operations at once reads it once.
func (c *Cache) Now() time.Duration { return c.now() }

// residents is the core's view of the store.
type residents struct{ *Cache }

func (r residents) Stamp(key string) (coherence.Stamp, bool) {
	m, ok := r.store.Head(key)
	return stampOf(m), ok
}

func (r residents) Drop(key string) {
	r.store.Delete(key)
	if r.dropped.wanted {
		r.dropped.keys = append(r.dropped.keys, strings.Clone(key)) // key may be a part of a large message
	}
}

func stampOf(m localstore.Meta) coherence.Stamp {
	return coherence.Stamp{Version: m.Version, Seq: m.Seq, Tick: m.Tick, Incarnation: m.Incarnation, Hangs: m.Hangs}
}

func metaOf(s coherence.Stamp, expires time.Duration) localstore.Meta {
	return localstore.Meta{
		Version: s.Version, Seq: s.Seq, Tick: s.Tick, Incarnation: s.Incarnation, Expires: expires, Hangs: s.Hangs,
	}
}

// onEvicted tells the core what a Put, which runs under mu, pushed out.
func (c *Cache) onEvicted(e localstore.Evicted) {
	c.metrics.Evictions.Inc()
	if e.Unknown {
		c.core.EvictedUnknown(c.evictTime)
		return
	}
	c.core.Evicted(e.Key, stampOf(e.Meta), c.evictTime)
}
