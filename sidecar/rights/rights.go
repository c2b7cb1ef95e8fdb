// Package rights decides which of the readers that miss a key at the same time
// loads it, so that the others need not: the lease rights of memcache at Meta.
//
// A right is an optimisation and never part of correctness: C2 and C3 judge what
// is loaded, with a right or without one. Nobody is ever refused for want of a
// right; whoever has none and does not want to wait loads on its own. Whoever
// waited reads again and is never answered from another's load (C2).
//
// A right ends when a value is stored, when its holder gives it up or fails, when
// it has lasted for as long as it was granted for, and when the holder's lease is
// void, because its value would be refused anyway. Unless a value was stored, it
// passes on to who has waited longest, and that reader's load begins with a lease
// of its own.
package rights

import (
	"container/heap"
	"container/list"
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/clock"
)

// Outcome is what a reader that found nothing is told.
type Outcome uint8

// Outcomes of claims.
const (
	Alone   Outcome = iota // load without a right: there is nothing to wait for
	Granted                // the right is the reader's: load and store
	Busy                   // another has it: Wait, or load without
	Again                  // a value was stored: read again
)

// Claim is what a reader says of itself. Its Holder must not be nil.
type Claim struct {
	Holder *Holder
	// For is how long the right lasts. A longer one tolerates slower loads; an
	// origin that hangs holds up the other readers for as long.
	For time.Duration
	// Plain says that the value will come by a SET, which names no right.
	Plain bool
}

// Holder is who a right is given to, such as a connection. Its zero value is
// ready; it must not be copied, and Table.Leave ends it.
type Holder struct {
	rights map[*right]struct{} // guarded by the table's lock, as all of it
	gone   bool
}

// Config bounds a Table.
type Config struct {
	// Max is how many rights there are at once, Waiting how many readers wait.
	// Beyond either, readers load without a right, and nobody waits for them.
	Max, Waiting int
	Clock        clock.Clock
	Metrics      *Metrics
}

// Table holds the rights of one sidecar, by key. It is safe for concurrent use.
// It keeps hashes of keys: two keys of one hash share a right, which only makes
// readers wait more. No operation takes longer with more rights, but a wide purge
// and Doubt, which look at each, and the order of ends, which is a heap.
//
// INVARIANT: a right has at most one holder. Whoever waits for a right that has
// no holder any more has been woken.
type Table struct {
	cfg  Config
	seed maphash.Seed
	held atomic.Int64 // how many are in rights: most events find none

	mu      sync.Mutex
	rights  map[uint64]*right
	ends    ends
	waiting int
	last    uint64 // number given last
	closed  bool
}

// right is one key's. Without a holder it only remembers others.
type right struct {
	hash      uint64
	namespace uint64 // hash of the key's
	number    uint64 // of the present grant; 0 without a holder
	claim     Claim  // of the present or last holder
	held      bool
	brings    uint64        // the version that the holder says it stores next
	end       time.Duration // moment of the clock
	place     int           // in ends
	waiters   list.List     // of *waiter, who waits longest first

	// others counts the plain loads that are under way besides the holder's: of
	// holders whose right ended before their SET came, and of readers that waited
	// no longer. A refused SET is taken for one of theirs first. Were it taken for
	// the holder's, each would let another load begin beside that of the holder,
	// and where two loads overlap for good, C3 finds an older miss for good.
	others int
}

// New returns an empty Table.
func New(cfg Config) *Table {
	return &Table{cfg: cfg, seed: maphash.MakeSeed(), rights: make(map[uint64]*right), last: rand.Uint64()}
}

// Take asks for the right to fill key. When it is Granted, number names it to
// Release and Brings. A holder that asks again for what it has is granted the
// same: it never waits for itself.
func (t *Table) Take(key string, c Claim) (number uint64, o Outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, o := t.take(key, c)
	if o != Granted {
		return 0, o
	}
	return r.number, o
}

// take is Take under mu. The right is that of a Granted or a Busy.
func (t *Table) take(key string, c Claim) (*right, Outcome) {
	now := t.cfg.Clock()
	t.sweep(now)
	hash := maphash.String(t.seed, key)
	r := t.rights[hash]
	if r != nil && r.end <= now {
		t.expire(r)
		r = t.rights[hash]
	}
	switch {
	case t.closed || c.Holder.gone:
		return nil, Alone
	case r == nil && len(t.rights) >= t.cfg.Max:
		return nil, Alone
	case r == nil:
		r = &right{hash: hash, namespace: maphash.String(t.seed, bus.NamespaceOf(key))}
		t.rights[hash] = r
		t.held.Add(1)
		heap.Push(&t.ends, r)
		t.grant(r, c)
	case !r.held:
		t.grant(r, c)
	case r.claim.Holder != c.Holder:
		return r, Busy
	}
	return r, Granted
}

// grant makes c's holder that of r.
func (t *Table) grant(r *right, c Claim) {
	if t.last++; t.last == 0 {
		t.last++ // 0 is no right
	}
	r.number, r.claim, r.held, r.brings = t.last, c, true, 0
	t.until(r, c.For)
	if c.Holder.rights == nil {
		c.Holder.rights = make(map[*right]struct{})
	}
	c.Holder.rights[r] = struct{}{}
	t.cfg.Metrics.Granted.Inc()
	t.cfg.Metrics.Held.Inc()
}

// until makes r end d from now.
func (t *Table) until(r *right, d time.Duration) {
	r.end = t.cfg.Clock() + d
	heap.Fix(&t.ends, r.place)
}

// let takes the right from its holder.
func (t *Table) let(r *right) {
	if !r.held {
		return
	}
	h := r.claim.Holder
	if delete(h.rights, r); len(h.rights) == 0 {
		h.rights = nil // a map keeps the room of all it ever held
	}
	r.held, r.number = false, 0
	t.cfg.Metrics.Held.Dec()
}

// passOn takes r from its holder and gives it to who waits longest. loading says
// that the holder goes on loading all the same.
func (t *Table) passOn(r *right, loading bool) {
	if loading && r.held && r.claim.Plain {
		r.others++
	}
	t.let(r)
	for e := r.waiters.Front(); e != nil; e = r.waiters.Front() {
		w := e.Value.(*waiter)
		if w.claim.Holder.gone {
			t.wake(w, Alone, 0)
			continue
		}
		t.grant(r, w.claim)
		t.cfg.Metrics.PassedOn.Inc()
		t.wake(w, Granted, r.number)
		return
	}
	if r.others == 0 {
		t.remove(r)
		return
	}
	t.until(r, r.claim.For)
}

// end lets r and everybody who waits for it go.
func (t *Table) end(r *right, o Outcome) {
	t.let(r)
	for e := r.waiters.Front(); e != nil; e = r.waiters.Front() {
		t.wake(e.Value.(*waiter), o, 0)
	}
	t.remove(r)
}

func (t *Table) remove(r *right) {
	delete(t.rights, r.hash)
	heap.Remove(&t.ends, r.place)
	t.held.Add(-1)
}

// expire ends a right whose time is over.
func (t *Table) expire(r *right) {
	if !r.held {
		t.remove(r)
		return
	}
	t.cfg.Metrics.Expired.Inc()
	t.passOn(r, true)
}

// sweepAtOnce bounds what one Take does for rights of other keys. It is more than
// one Take can add.
const sweepAtOnce = 4

// sweep ends some of the rights whose time is over. Those that somebody waits for
// do not depend on it: see Wait.
func (t *Table) sweep(now time.Duration) {
	for range sweepAtOnce {
		if len(t.ends) == 0 || t.ends[0].end > now {
			return
		}
		t.expire(t.ends[0])
	}
}

// ends is a heap of rights, by their ends.
type ends []*right

func (e ends) Len() int           { return len(e) }
func (e ends) Less(i, j int) bool { return e[i].end < e[j].end }
func (e ends) Swap(i, j int) {
	e[i], e[j] = e[j], e[i]
	e[i].place, e[j].place = i, j
}

func (e *ends) Push(x any) {
	r := x.(*right)
	r.place = len(*e)
	*e = append(*e, r)
}

func (e *ends) Pop() any {
	last := len(*e) - 1
	r := (*e)[last]
	(*e)[last] = nil
	*e = (*e)[:last]
	return r
}
