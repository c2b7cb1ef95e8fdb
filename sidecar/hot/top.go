package hot

import (
	"cmp"
	"container/heap"
	"hash/maphash"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Key is a key that is read much.
type Key struct {
	Key string
	// Rate is how many reads a second there were lately, estimated from samples: of
	// a key that is read a thousand times within the half-life, it is mostly within
	// a fifth.
	Rate float64
}

const (
	// sampleEvery is how many reads one sample stands for.
	sampleEvery = 32
	// MaxKey is the longest key in bytes that a Top takes note of.
	MaxKey = 512
	// counterBytes are those of a counter, its place in the index, and its key.
	counterBytes = 160 + MaxKey
)

// Top knows the keys that are read most, in fixed memory. It is safe for concurrent
// use.
//
// One read in 32 is counted, by Space-Saving (Metwally, Agrawal, El Abbadi:
// Efficient Computation of Frequent and Top-k Elements in Data Streams, ICDT 2005):
// with n counters, a key with more than one n-th of all reads always has one. Reads
// count for less as they age, by a half-life: newer ones are weighed more instead,
// which leaves the order of all counters as it is (Cormode, Shkapenyuk, Srivastava,
// Xu: Forward Decay, ICDE 2009).
type Top struct {
	seed     maphash.Seed
	max      int
	halfLife time.Duration

	mu       sync.Mutex
	counters counters            // a heap, the least first
	index    map[uint64]*counter // by hash of the key
	start    time.Duration       // when counting began
	unit     time.Duration       // when a sample weighs 1
}

// counter counts the samples of one key.
type counter struct {
	key  []byte // its memory is used again for another key
	hash uint64
	// count is the weight of all samples that this key may have had, and inherited
	// what of it another key may have had.
	count, inherited float64
	at               int // place in the heap
}

// NewTop returns a Top with so many counters, at least 1, that forgets half of what
// it knows in every halfLife. It takes at most 672 bytes for each, see Bytes. Fewer
// counters find fewer of the keys that are only a little hotter than most; a longer
// half-life is more exact and notices later what becomes hot. now is the moment, of
// the same clock as those of Note and List.
func NewTop(counters int, halfLife, now time.Duration) *Top {
	n := max(1, counters)
	return &Top{
		seed: maphash.MakeSeed(), max: n, halfLife: max(1, halfLife),
		index: make(map[uint64]*counter, n), start: now, unit: now,
	}
}

// Bytes is the most memory that t takes, whatever is read.
func (t *Top) Bytes() int { return t.max * counterBytes }

// Note takes note of a read of key at now. key is not kept. Keys longer than MaxKey
// are passed over, and so is a read while another one is being counted: a reader
// never waits here.
func (t *Top) Note(key string, now time.Duration) {
	if rand.Uint32()%sampleEvery == 0 {
		t.sample(key, now)
	}
}

func (t *Top) sample(key string, now time.Duration) {
	if len(key) > MaxKey || !t.mu.TryLock() {
		return
	}
	defer t.mu.Unlock()
	c := t.counterOf(key)
	if c == nil {
		return
	}
	c.count += t.weight(now)
	heap.Fix(&t.counters, c.at)
}

// counterOf returns the key's counter. Without one it gets a new one, or the one
// that has counted least, with what is in it. It returns nil when another key has
// the same hash.
func (t *Top) counterOf(key string) *counter {
	hash := maphash.String(t.seed, key)
	if c := t.index[hash]; c != nil {
		if string(c.key) != key {
			return nil
		}
		return c
	}
	var c *counter
	if len(t.counters) < t.max {
		c = new(counter)
		heap.Push(&t.counters, c)
	} else {
		c = t.counters[0]
		delete(t.index, c.hash)
	}
	if cap(c.key) < len(key) {
		c.key = make([]byte, 0, len(key)) // append would take more than MaxKey
	}
	c.key, c.hash, c.inherited = append(c.key[:0], key...), hash, c.count
	t.index[hash] = c
	return c
}

// maxAge is after how many half-lives the counts are scaled, long before they are
// too large for a float64.
const maxAge = 256

// weight is what a sample counts at now.
func (t *Top) weight(now time.Duration) float64 {
	age := t.ageIn(now, t.unit)
	if age <= maxAge {
		return math.Exp2(age)
	}
	scale := math.Exp2(-age) // of all alike: the heap stays one
	for _, c := range t.counters {
		c.count *= scale
		c.inherited *= scale
	}
	t.unit = now
	return 1
}

// ageIn is how many half-lives lie between.
func (t *Top) ageIn(now, since time.Duration) float64 {
	return float64(now-since) / float64(t.halfLife)
}

// List returns the n keys that were read most lately, the hottest first, fewer when
// fewer are known. The slice is the caller's. What a key may have inherited from
// another one in its counter does not count for it.
func (t *Top) List(n int, now time.Duration) []Key {
	t.mu.Lock()
	// A steady rate r leaves r/λ of decayed weight in the long run, and less of it
	// since the start.
	perUnit := math.Ln2 / t.halfLife.Seconds() / -math.Expm1(-math.Ln2*max(t.ageIn(now, t.start), 1e-3))
	perUnit *= sampleEvery * math.Exp2(-t.ageIn(now, t.unit))
	keys := make([]Key, 0, len(t.counters))
	for _, c := range t.counters {
		keys = append(keys, Key{string(c.key), (c.count - c.inherited) * perUnit})
	}
	t.mu.Unlock()
	slices.SortFunc(keys, func(a, b Key) int {
		return cmp.Or(cmp.Compare(b.Rate, a.Rate), cmp.Compare(a.Key, b.Key))
	})
	return keys[:min(max(n, 0), len(keys))]
}

// counters is the heap.Interface of a Top.
type counters []*counter

// Len implements heap.Interface.
func (c counters) Len() int { return len(c) }

// Less implements heap.Interface.
func (c counters) Less(i, j int) bool { return c[i].count < c[j].count }

// Swap implements heap.Interface.
func (c counters) Swap(i, j int) {
	c[i], c[j] = c[j], c[i]
	c[i].at, c[j].at = i, j
}

// Push implements heap.Interface.
func (c *counters) Push(x any) {
	added := x.(*counter)
	added.at = len(*c)
	*c = append(*c, added)
}

// Pop implements heap.Interface. Counters are never given up.
func (c *counters) Pop() any { panic("hot: a counter was taken out of the heap") }
