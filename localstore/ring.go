package localstore

import (
	"fmt"
	"unsafe"

	"github.com/allegro/bigcache/v3/queue"
)

// ring is a bigcache queue of records of a fixed size in bytes: first in, first out,
// and readable by offset. A record that is dropped keeps its bytes until its turn
// comes. All of bigcache is used in this file.
type ring struct {
	records *queue.BytesQueue
	size    int
	dead    int // bytes of records that were dropped before their turn
	// base is where offset 0 is, for prefetches only.
	base unsafe.Pointer
}

func newRing(size int) ring {
	// Initial and largest size are the same: it never grows, so its memory never moves.
	r := ring{records: queue.NewBytesQueue(size, size, false), size: size}
	// A queue does not tell where its memory is, but a record in it does: the first one
	// stands at offset 1, behind the byte of its length.
	if _, err := r.records.Push([]byte{0}); err == nil {
		r.base = unsafe.Add(unsafe.Pointer(unsafe.SliceData(r.oldest())), -2)
	}
	r.records.Reset()
	return r
}

// address is where the record at an offset begins, or somewhere in the ring for an offset
// that no index has.
func (r *ring) address(offset uint32) unsafe.Pointer {
	return unsafe.Add(r.base, min(int(offset), r.size-2*line))
}

// at returns the record at an offset, or nil. It is the ring's memory.
func (r *ring) at(offset uint32) []byte {
	b, err := r.records.Get(int(offset))
	if err != nil { // an offset that no index has
		return nil
	}
	return b
}

// push copies a record to the end and returns its offset, or false when that needs
// more to be popped first.
func (r *ring) push(b []byte) (offset uint32, ok bool) {
	n, err := r.records.Push(b)
	if err != nil { // the only error
		return 0, false
	}
	return uint32(n), true
}

// oldest returns the record that pop would take; nil when there is none.
func (r *ring) oldest() []byte {
	b, err := r.records.Peek()
	if err != nil {
		return nil
	}
	return b
}

// pop takes the oldest record out. Its bytes stay as they are until the next push.
func (r *ring) pop() error {
	if _, err := r.records.Pop(); err != nil {
		return fmt.Errorf("localstore: pop: %w", err)
	}
	return nil
}

// wasteful reports whether so much is dead that it pays to move what is not: eight
// records at most, on average, for one that is dead.
func (r *ring) wasteful() bool { return r.dead > r.size/8 }

func (r *ring) reset() {
	r.records.Reset()
	r.dead = 0
}

// count is how many records the ring holds, dead ones included.
func (r *ring) count() int { return r.records.Len() }

// is reports whether two records are the same bytes in the same place.
func is(a, b []byte) bool { return len(a) > 0 && len(b) > 0 && &a[0] == &b[0] }
