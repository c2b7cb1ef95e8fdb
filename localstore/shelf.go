package localstore

import (
	"context"
	"fmt"
	"math"

	"github.com/allegro/bigcache/v3"
)

// shelf decides where an entry goes and what has to go for it: here, first in,
// first out, in one bigcache. All of bigcache is used in this file and in
// scan.go. find is safe at any time; the rest is the writer's.
type shelf struct {
	cache   *bigcache.BigCache
	scratch []byte
	lost    []Evicted // since the writer last looked
}

// hasher gives bigcache the hash of a key, never 0: bigcache marks deleted
// entries with it.
type hasher func(string) uint64

// Sum64 implements bigcache.Hasher.
func (h hasher) Sum64(key string) uint64 { return max(h(key), 1) }

func newShelf(l layout, hash func(string) uint64) (*shelf, error) {
	s := &shelf{}
	// bigcache multiplies the entries of a shard by their size for the ring's
	// first size, and limits it to the last: rounding up gives the last at once.
	perShard := (l.shard + entryHint - 1) / entryHint
	cache, err := bigcache.New(context.Background(), bigcache.Config{
		Shards:             l.shards,
		LifeWindow:         math.MaxInt64,
		CleanWindow:        0, // no goroutine
		MaxEntriesInWindow: int(perShard) * l.shards,
		MaxEntrySize:       entryHint,
		HardMaxCacheSize:   int(l.ring() / mib),
		Hasher:             hasher(hash),
		OnRemoveWithReason: s.removed,
	})
	if err != nil {
		return nil, fmt.Errorf("localstore: open bigcache with %d shards of %d bytes: %w", l.shards, l.shard, err)
	}
	s.cache = cache
	return s, nil
}

// halve splits a key into what bigcache holds and the tail that our entry
// holds. Keys that differ in the tail only collide.
func halve(key string) (head, tail string) {
	if len(key) > maxHead {
		return key[:maxHead], key[maxHead:]
	}
	return key, ""
}

// find returns the entry of a key. value belongs to the caller.
func (s *shelf) find(key string) (m Meta, value []byte, ok bool) {
	head, tail := halve(key)
	b, err := s.cache.Get(head)
	if err != nil { // the only errors say that it is not there
		return Meta{}, nil, false
	}
	m, t, value, err := parseEntry(b)
	if err != nil || string(t) != tail {
		return Meta{}, nil, false
	}
	return m, value, true
}

// place stores an entry that is known to fit, in place of the old one. Whatever
// else goes for it, a key of the same hash included, is added to s.lost.
func (s *shelf) place(key string, value []byte, m Meta) (old Meta, replaced bool, err error) {
	if old, _, replaced = s.find(key); !replaced {
		// Under this hash there is nothing or another key, which bigcache would
		// drop without a word. Delete does not look at the key, and tells.
		s.remove(key)
	}
	head, tail := halve(key)
	s.scratch = appendEntry(s.scratch[:0], len(head), tail, m, value)
	if err := s.cache.Set(head, s.scratch); err != nil {
		return old, replaced, fmt.Errorf("localstore: store %d bytes: %w", len(s.scratch), err)
	}
	return old, replaced, nil
}

// remove drops what is stored under the hash of a key, and adds it to s.lost.
func (s *shelf) remove(key string) {
	head, _ := halve(key)
	_ = s.cache.Delete(head) // the only errors say that there is nothing
}

// removed is called by bigcache under a shard's lock, from place and remove
// only: nothing else removes.
func (s *shelf) removed(head string, b []byte, reason bigcache.RemoveReason) {
	m, tail, _, err := parseEntry(b)
	if err != nil {
		s.lost = append(s.lost, Evicted{Unknown: true})
		return
	}
	m.Hangs = nil // bigcache's memory
	if len(tail) > 0 {
		head += string(tail)
	}
	s.lost = append(s.lost, Evicted{Key: head, Meta: m, Collided: reason == bigcache.Deleted})
}

// forget empties s.lost. A large one is given back: it is not in the budget.
func (s *shelf) forget() {
	const keep = 64
	if cap(s.lost) > keep {
		s.lost = nil
		return
	}
	clear(s.lost)
	s.lost = s.lost[:0]
}

// reset drops everything, and what large entries made the buffers grow to. It
// reports nothing.
func (s *shelf) reset() {
	s.scratch = nil
	_ = s.cache.Reset() // never fails
}

// close ends bigcache; it may be called once.
func (s *shelf) close() error {
	if err := s.cache.Close(); err != nil {
		return fmt.Errorf("localstore: close: %w", err)
	}
	return nil
}
