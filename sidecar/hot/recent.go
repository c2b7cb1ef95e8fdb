// Package hot knows what is read: which keys were read lately, and which are read
// most. It is fed on the path of a hit, so noting costs nanoseconds, blocks nobody
// and allocates nothing; its memory is fixed when it is made. It has no clock: the
// moment is an argument, of the caller's own monotonic clock.
package hot

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Recent tells which keys were read within a duration. It errs to one side: a key
// that was read within it is always told, one that was not may be told, too. It is
// safe for concurrent use.
//
// It is a Bloom filter in several generations. A mark goes to the newest one and
// lives until that is the oldest and is emptied.
type Recent struct {
	generations [generations][]atomic.Uint64
	newest      atomic.Uint32
	period      time.Duration
	rotated     time.Duration // moment of the last rotation; of who calls Rotate
}

const (
	generations = 4
	bitsPerKey  = 16      // in each generation, which then is wrong of some 2 % of keys
	minWords    = 64      // in each generation
	maxKeys     = 1 << 26 // more count as so many, which take 512 MiB
)

// NewRecent returns a Recent that remembers reads for within, and for two thirds more
// at most when Rotate is called in time. keys is how many keys are read in that time;
// each takes 8 bytes, rounded up to a power of two. More keys than that, and more are
// told that were not read. now is a moment of the clock of Rotate.
func NewRecent(keys int, within, now time.Duration) *Recent {
	words := min(max(keys, 0), maxKeys) * bitsPerKey / 64
	words = 1 << bits.Len(uint(max(words, minWords)-1))
	r := &Recent{period: max(1, (within+generations-2)/(generations-1)), rotated: now}
	for i := range r.generations {
		r.generations[i] = make([]atomic.Uint64, words)
	}
	return r
}

// Bytes is the memory that r takes, whatever is marked.
func (r *Recent) Bytes() int { return generations * len(r.generations[0]) * 8 }

// Every is how often Rotate is to be called at least.
func (r *Recent) Every() time.Duration { return max(1, r.period/4) }

// Mark notes a read of the key with this hash, all bits of which must be well
// mixed. Of the reads of a key in one generation, only the first one writes.
func (r *Recent) Mark(hash uint64) {
	words := r.generations[r.newest.Load()%generations]
	word, mask := &words[place(hash)&(len(words)-1)], marks(hash)
	if word.Load()&mask != mask {
		word.Or(mask)
	}
}

// Within reports whether the key with this hash may have been read in the last d;
// a d longer than what r remembers means all of that.
func (r *Recent) Within(hash uint64, d time.Duration) bool {
	// A key read just before a rotation is in the generation before.
	back := generations - 1
	if n := d / r.period; n < generations-2 {
		back = int(max(0, n)) + 1
	}
	newest, mask := r.newest.Load(), marks(hash)
	for i := range back + 1 {
		// Unsigned, so that what is before 0 wraps: generations divides 2^32.
		words := r.generations[(newest-uint32(i))%generations]
		if words[place(hash)&(len(words)-1)].Load()&mask == mask {
			return true
		}
	}
	return false
}

// Rotate begins a new generation when it is time. It is to be called at least every
// Every, by one goroutine at a time; called late, it makes r remember longer, never
// less.
//
// INVARIANT: a generation is emptied no earlier than generations-1 periods after it
// was the newest. A Mark that was held up for so long since it chose its generation
// is older than what r remembers, wherever it goes.
func (r *Recent) Rotate(now time.Duration) {
	if now-r.rotated < r.period {
		return
	}
	next := (r.newest.Load() + 1) % generations
	for i := range r.generations[next] {
		r.generations[next][i].Store(0)
	}
	r.newest.Store(next)
	r.rotated = now
}

// marks are the bits of a key, all in one word, so that one load finds them.
func marks(hash uint64) uint64 { return 1<<(hash&63) | 1<<(hash>>6&63) }

// place is the rest of the hash.
func place(hash uint64) int { return int(hash >> 12) }
