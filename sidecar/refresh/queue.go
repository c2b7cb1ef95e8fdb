// Package refresh reloads keys when it is time: those that a REFRESH event dropped,
// those that a sidecar in doubt wants back, and those that a policy names. It
// decides when, in which order and how many at once; loading is its caller's.
package refresh

import (
	"context"
	"math/bits"
	"strings"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/clock"
)

// Spread returns the key's part of a window: at least 0, less than window, and 0
// without one. It is always the same for a key and a seed, and spread evenly over
// keys and seeds. Sidecars with seeds of their own load a key at different moments.
func Spread(key string, seed uint64, window time.Duration) time.Duration {
	// The finalizer of SplitMix64: seeds next to one another scatter, too.
	h := xxhash.Sum64String(key) ^ seed*0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	h ^= h >> 31
	part, _ := bits.Mul64(h, uint64(max(0, window)))
	return time.Duration(part)
}

// Config says how a Queue works.
type Config struct {
	// Memory bounds what the queued keys take, in bytes: each counts for 512 and
	// twice its length. What does not fit is dropped, the coldest first.
	Memory int64
	// Workers is how many loads are under way at once, at least 2.
	Workers int
	// Limit returns how many of them a namespace may have. Less than 1 means 1, and
	// one worker is always left to the others: a slow namespace holds up no other
	// one. It is called often, must be quick, and must not call the Queue.
	Limit func(namespace string) int
	// Clock is that of the moments given to Add.
	Clock   clock.Clock
	Metrics *Metrics
}

// Queue holds keys until they are due and has them loaded then. It is safe for
// concurrent use.
//
// Of the keys that are due, namespaces take turns, and within one the key with the
// highest priority comes first. A key is loaded by one worker at a time.
type Queue struct {
	memory  int64
	workers int
	limit   func(namespace string) int
	now     clock.Clock
	metrics *Metrics
	wake    chan struct{} // has room for one: something has changed for Run

	mu      sync.Mutex
	items   map[string]*item // what is queued, by key
	used    int64            // bytes of items
	added   uint64           // items ever
	later   pile             // not due yet, the earliest first
	coldest pile             // everything queued, what is dropped first first
	lanes   map[string]*lane // namespaces that have something due or under way
	turns   []*lane          // those that have something due, the next one first
	busy    map[string]bool  // keys that are being loaded
}

// item is a queued key.
type item struct {
	key      string
	due      time.Duration
	priority float64
	number   uint64 // in the order of adding
	lane     *lane  // where it is due; nil before
	place    int    // in later or in lane.due; none while its key is being loaded
	rank     int    // in coldest
}

// lane is a namespace.
type lane struct {
	name  string
	due   pile // the hottest first
	loads int  // under way
}

// itemBytes is what an item may take besides its key: its places, and a lane that
// it may be alone in.
const itemBytes = 512

// sizeOf is what a queued key counts for. The lane has its namespace, too.
func sizeOf(key string) int64 { return itemBytes + 2*int64(len(key)) }

// New returns an empty Queue, which does nothing before Run.
func New(c Config) *Queue {
	return &Queue{
		memory: c.Memory, workers: max(2, c.Workers), limit: c.Limit, now: c.Clock, metrics: c.Metrics,
		wake:    make(chan struct{}, 1),
		items:   make(map[string]*item),
		later:   pile{before: earlier, place: placeOf},
		coldest: pile{before: colder, place: rankOf},
		lanes:   make(map[string]*lane),
		busy:    make(map[string]bool),
	}
}

// Add queues key to be loaded at due, a moment of the Queue's clock, or soon after:
// the higher its priority, such as its reads a second, the sooner. key is not kept.
// A key that is queued already keeps the earlier due and the higher priority. One
// that is just being loaded is loaded again afterwards.
//
// When there is no room, what has the lowest priority is dropped, of equals the one
// added last; false says that this is key.
func (q *Queue) Add(key string, due time.Duration, priority float64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if it := q.items[key]; it != nil {
		q.hasten(it, min(due, it.due), max(priority, it.priority))
		return true
	}
	it := &item{due: due, priority: priority, number: q.added, place: none, rank: none}
	q.added++
	if !q.makeRoom(it, sizeOf(key)) {
		return false
	}
	it.key = strings.Clone(key)
	q.items[it.key] = it
	q.used += sizeOf(key)
	q.coldest.add(it)
	if !q.busy[it.key] {
		q.later.add(it)
	}
	q.metrics.Queued.Inc()
	q.changed()
	return true
}

// hasten gives a queued item another due and priority.
func (q *Queue) hasten(it *item, due time.Duration, priority float64) {
	it.due, it.priority = due, priority
	q.coldest.mend(it)
	if p := q.pileOf(it); p != nil {
		p.mend(it)
	}
	q.changed()
}

// makeRoom drops what is colder than it, as far as needed. It reports whether
// there is room then; if not, it is what was dropped.
func (q *Queue) makeRoom(it *item, size int64) bool {
	for q.used+size > q.memory {
		q.metrics.Dropped.Inc()
		coldest := q.coldest.first()
		if size > q.memory || !colder(coldest, it) {
			return false
		}
		q.remove(coldest)
	}
	return true
}

// remove takes an item out of the queue.
func (q *Queue) remove(it *item) {
	delete(q.items, it.key)
	q.used -= sizeOf(it.key)
	q.coldest.remove(it)
	if p := q.pileOf(it); p != nil {
		p.remove(it)
	}
	if l := it.lane; l != nil {
		q.settle(l)
	}
}

// pileOf returns where an item waits, nil while its key is being loaded.
func (q *Queue) pileOf(it *item) *pile {
	switch {
	case it.place == none:
		return nil
	case it.lane != nil:
		return &it.lane.due
	}
	return &q.later
}

// changed lets Run look again.
func (q *Queue) changed() {
	q.metrics.Length.Set(float64(len(q.items)))
	select {
	case q.wake <- struct{}{}:
	default: // it has not looked since the last time
	}
}

// Len returns how many keys are queued, those under way aside.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

// namespaceOf is bus.NamespaceOf, owned by no key.
func namespaceOf(key string) string { return strings.Clone(bus.NamespaceOf(key)) }

// Load loads one key, and retries, where that is worth it. It tells of an error
// itself: the Queue counts it, no more.
type Load func(ctx context.Context, key string) error
