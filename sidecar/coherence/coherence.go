// Package coherence decides what a sidecar may keep: the rules C1 to C5 and C7
// to C10 of the design, as a pure state machine. It reads no clock, does no I/O
// and starts no goroutine: events, misses, fills, evictions and the caller's
// monotonic time come in, decisions come out.
//
// One file holds one rule:
//
//	C1  apply.go       an event drops what it made stale and raises fences
//	C2  fill.go        which loaded values may be stored
//	C3  plainset.go    the same for SETs that present no lease
//	C4  fence.go       stamps that outlive entries, in fixed memory
//	C5  generation.go  wide purges: tags, prefixes, namespaces, the domain
//	    depend.go      entries that are made of others
//	C7  doubt.go       flush when continuity cannot be proven
//	C8  ownwrite.go    the publishing sidecar applies first
//	C9  doubt.go       where events go on from, and what history says
//	C10 update.go      values that come with events
//
// elsewhere.go judges what another sidecar has loaded, by C2.
//
// Order comes from three stamps and from nothing else: seq, the stream's order;
// version, the source of truth's own order of one key's values; and tick, this
// sidecar's count of everything that happened to it. Wall clocks order nothing;
// the monotonic time that callers pass in only ages misses and leases.
package coherence

import (
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// Entries is what the core sees of the store that holds the values. Calls are
// made only from within calls to Core.
type Entries interface {
	// Stamp returns the stamp of the key's resident entry, dead or expired ones
	// included, and false when there is none.
	Stamp(key string) (Stamp, bool)
	// Drop removes the key's entry; an absent one is no error.
	Drop(key string)
	// Replace puts the value of the update e in the place of the key's entry,
	// under s; where it cannot be kept, the entry goes.
	Replace(key string, s Stamp, e bus.Event)
}

// Config fixes a Core's bounds.
type Config struct {
	// Window is the fill window (C3): how long after its own miss a plain SET
	// may come. A longer one tolerates slower loads, and makes a SET without a
	// miss wait longer after an invalidation.
	Window time.Duration
	// MaxFences and MaxMisses bound the two tables; fewer fences raise the floor
	// sooner, fewer misses make plain SETs be judged more strictly.
	MaxFences, MaxMisses int
	// MaxNamespaces bounds the flush RESETs kept apart; above it one of a
	// namespace voids the versions of the domain.
	MaxNamespaces int
	// GenerationSlots is the size of each of the two rows that wide purges are kept
	// in, at 8 bytes a slot, rounded up to a power of two. With fewer, purges of
	// other tags make entries die too early.
	GenerationSlots int
	// MaxTrail bounds the digests of applied messages that are kept, 8 bytes each, by
	// which positions of other sidecars are checked.
	MaxTrail int
	// Hash spreads keys. Two keys of one hash share a fence and a miss record,
	// which only rejects more.
	Hash func(string) uint64
	// Incarnation is where the count of incarnations starts, not 0: random, so that a
	// lease of an earlier process is never taken for one of this.
	Incarnation uint64
	// FirstLife says that no client can have missed on an earlier life of this
	// sidecar (ADR 0002).
	FirstLife bool
}

// Core is the state of one sidecar. It is not safe for concurrent use; the
// Horizon it hands out is.
//
// INVARIANT (I1): every entry that Horizon.Alive accepts is at least as new as
// the newest version of its key among the events applied.
// INVARIANT (I2): for one key, accepted fills never go back.
type Core struct {
	cfg     Config
	entries Entries

	ready   bool // between a Resume and the next Doubt
	horizon *Horizon
	applied bus.Position
	tick    uint64 // moves on every event, store, local drop and eviction
	floor   uint64 // a lease whose tick is below it is void: fences were evicted (C4)

	fences fenceTable
	misses missTable
	past   past

	// knownFrom: no lease can be dated back behind it, because what happened
	// before is unknown (C3).
	knownFrom time.Duration
	// phantomUntil: misses may be outstanding that the table does not hold, of an
	// earlier life or over its bound; plain SETs are judged by a window's lease.
	phantomUntil time.Duration

	// first says that no client can have missed so far: neither on an earlier life
	// nor on this one. birth is the first Resume if that was so then.
	first bool
	birth time.Duration

	// trail: what was published before it and is not in fences, nobody knows here.
	trail trail
	heard heard
	own   ownPurges

	marks    marks
	verdicts verdictLog
}

// New returns a Core that has applied nothing: until the first Resume it gives
// no valid lease.
func New(cfg Config, entries Entries) *Core {
	c := &Core{
		cfg:     cfg,
		entries: entries,
		horizon: &Horizon{incarnation: cfg.Incarnation, hash: cfg.Hash, gens: newGenerations(cfg.GenerationSlots)},
		fences:  newFenceTable(cfg.MaxFences),
		misses:  newMissTable(cfg.MaxMisses),
		past:    newPast(cfg.Window),
		trail:   trail{max: max(1, cfg.MaxTrail)},

		knownFrom:    -never,
		phantomUntil: -never,
	}
	c.first, c.birth, c.marks.span = cfg.FirstLife, -never, 2*cfg.Window
	if !cfg.FirstLife {
		c.phantomUntil = never
	}
	return c
}

// never is a moment that no clock reaches.
const never = time.Duration(1 << 62) // sums with it do not overflow

// Ready reports whether the core follows the stream: false before the first
// Resume and between a Doubt and its Resume.
func (c *Core) Ready() bool { return c.ready }

// Applied returns the position up to which everything was applied or covered by
// a flush.
func (c *Core) Applied() bus.Position { return c.applied }

// Horizon returns what decides whether an entry is alive. A doubt, a change of
// epoch or a RESET makes a new one; the old one then says that all are dead, or
// what it said before.
func (c *Core) Horizon() *Horizon { return c.horizon }

// step opens a change of state at now: the state so far goes to the past, and
// the tick moves.
func (c *Core) step(now time.Duration) {
	c.past.change(now, c.moment())
	c.tick++
}
