package localstore

import "sync/atomic"

// A word is a slot of an index: where a record is, and what of its key's hash is
// kept. 0 is an empty slot.
//
//	bits  0-31  offset in its ring, never 0
//	bit     32  its ring: probation or main
//	bits 33-34  reads since it was stored or got its last second chance, up to 3
//	bits 35-63  tag: the highest bits of the hash, mixed
type word uint64

const (
	mainBit   = 1 << 32
	readsUnit = 1 << 33
	maxReads  = 3
	tagShift  = 35
	tagBits   = 64 - tagShift

	// The index is at most so full, and grows by a quarter: short runs, and little
	// that is unused.
	fullNum, fullDen = 3, 4
	growNum, growDen = 5, 4
	firstSlots       = 16
)

// mix spreads a hash over the bits that a tag is made of.
func mix(hash uint64) uint64 { return hash * 0x9e3779b97f4a7c15 }

// newWord makes the word of a record that has been read so often.
func newWord(mixed uint64, ring int, offset uint32, reads int) word {
	return word(mixed>>tagShift<<tagShift | uint64(reads)*readsUnit | uint64(ring)*mainBit | uint64(offset))
}

func (w word) offset() uint32 { return uint32(w) }
func (w word) ring() int      { return int(w >> 32 & 1) }
func (w word) reads() int     { return int(w >> 33 & maxReads) }
func (w word) tag() uint64    { return uint64(w) >> tagShift }

// index is an open table of words with linear probing. Its words are replaced by the
// writer, who holds the shard's lock, and counted up by readers, who share it;
// prefetches load them without.
type index struct {
	slots []atomic.Uint64
}

func newIndex(slots int) *index { return &index{make([]atomic.Uint64, slots)} }

func (x *index) at(i int) word { return word(x.slots[i].Load()) }

func (x *index) set(i int, w word) { x.slots[i].Store(uint64(w)) }

// home is where the search for a tag begins.
func (x *index) home(tag uint64) int { return int(tag * uint64(len(x.slots)) >> tagBits) }

func (x *index) next(i int) int {
	if i++; i == len(x.slots) {
		return 0
	}
	return i
}

// add puts a word into the first free slot from its home.
func (x *index) add(w word) {
	i := x.home(w.tag())
	for x.at(i) != 0 {
		i = x.next(i)
	}
	x.set(i, w)
}

// remove empties slot i and moves up what was pushed back by it.
//
// INVARIANT: there is no empty slot between the home of a word and its slot.
func (x *index) remove(i int) {
	n := len(x.slots)
	for j := x.next(i); ; j = x.next(j) {
		w := x.at(j)
		if w == 0 {
			break
		}
		if (j-x.home(w.tag())+n)%n >= (j-i+n)%n {
			x.set(i, w)
			i = j
		}
	}
	x.set(i, 0)
}

// read counts a read of slot i, that holds w. That one is lost when another reader
// counts at the same time does not matter.
func (x *index) read(i int, w word) {
	if w.reads() < maxReads {
		x.slots[i].CompareAndSwap(uint64(w), uint64(w+readsUnit))
	}
}

// grown returns a larger index with the same words.
func (x *index) grown(limit int) *index {
	g := newIndex(min(len(x.slots)*growNum/growDen, limit))
	for i := range x.slots {
		if w := x.at(i); w != 0 {
			g.add(w)
		}
	}
	return g
}
