package localstore

import (
	"sync"
	"sync/atomic"
	"unsafe"
)

// Rings of a shard.
const (
	probation = 0
	mainRing  = 1
)

// shard holds a part of the keys. What comes new goes to probation, a tenth of the
// memory; what becomes of it is in evict.go.
//
// Readers hold mu shared. The writer alone changes a shard, under mu; to look, it need
// not hold it.
type shard struct {
	mu      sync.RWMutex
	index   atomic.Pointer[index]
	rings   [2]ring
	entries int // words in the index
	limit   int // of entries
	slots   int // of an index, at most
	ghosts  ghosts
	hash    func(string) uint64
	lost    *[]Evicted // since the writer last looked
	_       [64]byte   // the next shard's lock is in another cache line
}

func (s *shard) init(l layout, hash func(string) uint64, lost *[]Evicted) {
	s.rings[probation], s.rings[mainRing] = newRing(l.probation), newRing(l.main)
	s.limit, s.slots = l.entries, l.slots
	s.ghosts.prints = make([]uint16, l.ghosts)
	s.hash, s.lost = hash, lost
	s.index.Store(newIndex(min(firstSlots, l.slots)))
}

// find returns the slot and the record of a key. The record is a ring's memory.
func (s *shard) find(key string, mixed uint64) (slot int, w word, rec []byte) {
	x := s.index.Load()
	tag := mixed >> tagShift
	for i := x.home(tag); ; i = x.next(i) {
		w := x.at(i)
		if w == 0 {
			return 0, 0, nil
		}
		if w.tag() != tag {
			continue
		}
		rec := s.rings[w.ring()].at(w.offset())
		if k, ok := keyOf(rec); ok && string(k) == key {
			return i, w, rec
		}
	}
}

// slotOf returns the slot that refers to a record, or false when it was dropped.
func (s *shard) slotOf(r int, rec []byte, mixed uint64) (slot int, w word, ok bool) {
	x := s.index.Load()
	tag := mixed >> tagShift
	for i := x.home(tag); ; i = x.next(i) {
		w := x.at(i)
		if w == 0 {
			return 0, 0, false
		}
		if w.tag() == tag && w.ring() == r && is(s.rings[r].at(w.offset()), rec) {
			return i, w, true
		}
	}
}

// mixedOf returns the mixed hash of a record's key.
func (s *shard) mixedOf(key []byte) uint64 {
	return mix(s.hash(unsafe.String(unsafe.SliceData(key), len(key))))
}

// drop takes a record out of the index. Its bytes are dead until its turn comes.
func (s *shard) drop(slot int, w word, rec []byte) {
	s.index.Load().remove(slot)
	s.rings[w.ring()].dead += len(rec)
	s.entries--
}

// add puts a record that was pushed into the index.
func (s *shard) add(w word) {
	x := s.index.Load()
	if n := len(x.slots); (s.entries+1)*fullDen > n*fullNum && n < s.slots {
		x = x.grown(s.slots)
		s.index.Store(x)
	}
	x.add(w)
	s.entries++
}

// reset drops everything and reports nothing.
func (s *shard) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.rings {
		s.rings[i].reset()
	}
	s.entries = 0
	s.index.Store(newIndex(min(firstSlots, s.slots)))
}
