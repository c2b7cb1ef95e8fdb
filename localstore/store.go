package localstore

import (
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
)

// Errors that callers act on. They are wrapped with the sizes concerned; compare
// with errors.Is.
var (
	// ErrBudget says that the budget cannot hold the largest value.
	ErrBudget = errors.New("localstore: budget too small")
	// ErrBadKey says that a key is empty or longer than MaxKey.
	ErrBadKey = errors.New("localstore: bad key")
	// ErrTooLarge says that a value is longer than Config.MaxValue.
	ErrTooLarge = errors.New("localstore: value too large")
	// ErrClosed says that the Store was closed.
	ErrClosed = errors.New("localstore: closed")
)

// Config says how much a Store holds.
type Config struct {
	// Budget is the most memory, in bytes, that the Store keeps in use; see the
	// package's documentation for what is in it. It must hold a few values of
	// MaxValue: 8 MiB do for the default.
	Budget int64
	// MaxValue is the length of the largest value in bytes; 0 means
	// DefaultMaxValue. Raising it makes fewer, larger shards, and takes memory
	// for buffers of this size from the entries.
	MaxValue int
	// Hash maps a key to its place, by its lowest bits and, mixed, by its highest;
	// it must be safe for concurrent use. Keys of one hash make each other slow. Nil
	// means a hash with a random seed, which clients cannot make collide.
	Hash func(string) uint64
}

// Evicted tells of an entry that was lost to make room for another.
type Evicted struct {
	Key  string // the caller's to keep
	Meta Meta
	// Unknown says that the entry could not be read: Key and Meta are zero, and
	// any key may have been lost. It means corrupted memory.
	Unknown bool
}

// Stats is a snapshot for people and metrics.
type Stats struct {
	Entries  int    // entries held, expired ones included
	Bytes    int64  // of their keys and values
	Capacity int64  // bytes for entries, each with headers of 26 to 60
	Budget   int64  // bytes, as configured
	Shards   int    // that the entries are spread over
	Evicted  uint64 // entries lost to make room, ever
}

// Store holds values and their stamps in bounded memory. The package's
// documentation says who may call what at the same time.
type Store struct {
	budget   int64
	maxValue int
	layout   layout

	writer sync.Mutex            // held by Put, Delete, Reset and Close
	shelf  atomic.Pointer[shelf] // nil once closed
	resets atomic.Uint64         // a scan ends when it changes
	scans  scans

	entries atomic.Int64
	bytes   atomic.Int64
	evicted atomic.Uint64
}

// Open makes an empty Store. It fails with ErrBudget when an entry of the
// largest key and value would not fit a shard.
func Open(c Config) (*Store, error) {
	if c.MaxValue == 0 {
		c.MaxValue = DefaultMaxValue
	}
	if c.Hash == nil {
		seed := maphash.MakeSeed()
		c.Hash = func(key string) uint64 { return maphash.String(seed, key) }
	}
	l, err := plan(c.Budget, c.MaxValue)
	if err != nil {
		return nil, err
	}
	s := &Store{budget: c.Budget, maxValue: c.MaxValue, layout: l}
	s.shelf.Store(newShelf(l, c.Hash))
	return s, nil
}

// AppendTo appends the value of a key to dst and returns the result, which is the
// caller's, with the stamps; also when the entry has expired. Without an entry it
// returns dst as it is and false. It allocates nothing where dst has room for the
// value and for Meta.Hangs, and leaves out Extra.ETag.
//
// Meta.Hangs is put behind the value, in the capacity of the result: it is good until
// something is appended there.
func (s *Store) AppendTo(dst []byte, key string) (val []byte, m Meta, ok bool) {
	sh := s.shelf.Load()
	if sh == nil {
		return dst, Meta{}, false
	}
	sd, mixed := sh.shard(key)
	sd.mu.RLock()
	slot, w, rec := sd.find(key, mixed)
	var r record
	if rec == nil || r.parse(rec) != nil {
		sd.mu.RUnlock()
		return dst, Meta{}, false
	}
	sd.index.Load().read(slot, w)
	dst = slices.Grow(dst, len(r.value)+len(r.meta.Hangs)) // once
	val = append(append(dst, r.value...), r.meta.Hangs...)
	sd.mu.RUnlock()
	if n := len(r.meta.Hangs); n > 0 {
		end := len(val) - n
		val, r.meta.Hangs = val[:end], val[end:]
	}
	return val, r.meta, true
}

// Get is AppendTo for a caller that keeps the stamps: they are its own.
func (s *Store) Get(key string, dst []byte) (val []byte, m Meta, ok bool) {
	sh := s.shelf.Load()
	if sh == nil {
		return dst, Meta{}, false
	}
	sd, mixed := sh.shard(key)
	sd.mu.RLock()
	defer sd.mu.RUnlock()
	slot, w, rec := sd.find(key, mixed)
	var r record
	if rec == nil || r.parse(rec) != nil {
		return dst, Meta{}, false
	}
	sd.index.Load().read(slot, w)
	return append(dst, r.value...), r.own(), true
}

// Head returns the stamps of a key and the size of its value; also when the
// entry has expired. It does not count as a read.
func (s *Store) Head(key string) (Meta, bool) {
	sh := s.shelf.Load()
	if sh == nil {
		return Meta{}, false
	}
	sd, mixed := sh.shard(key)
	sd.mu.RLock()
	defer sd.mu.RUnlock()
	_, _, rec := sd.find(key, mixed)
	var r record
	if rec == nil || r.parse(rec) != nil {
		return Meta{}, false
	}
	return r.own(), true
}

// Put stores a copy of value under key, in place of what the key had. It calls
// evicted, which may be nil, for every other key whose entry was lost for it,
// once and before it returns, whether it fails or not; never for key itself. No
// lock of the read side is held then: evicted may read the Store, but not write
// to it.
//
// ErrBadKey, ErrTooLarge and ErrClosed leave everything as it was.
func (s *Store) Put(key string, value []byte, m Meta, evicted func(Evicted)) error {
	if len(key) == 0 || len(key) > MaxKey {
		return fmt.Errorf("%w: %d bytes, must be 1 to %d", ErrBadKey, len(key), MaxKey)
	}
	if len(value) > s.maxValue {
		return fmt.Errorf("%w: %d bytes, must not be over %d", ErrTooLarge, len(value), s.maxValue)
	}
	if len(m.Hangs) > MaxHangs {
		return fmt.Errorf("%w: hangs of %d bytes, must not be over %d", ErrTooLarge, len(m.Hangs), MaxHangs)
	}
	s.writer.Lock()
	defer s.writer.Unlock()
	sh := s.shelf.Load()
	if sh == nil {
		return ErrClosed
	}
	old, replaced, err := sh.place(key, value, m)
	if replaced {
		s.count(-1, len(key)+old.Size)
	}
	if err == nil {
		s.count(1, len(key)+len(value))
	}
	s.report(sh, evicted)
	return err
}

// count adds n entries, 1 or -1, of so many bytes to what is held.
func (s *Store) count(n int64, size int) {
	s.entries.Add(n)
	s.bytes.Add(n * int64(size))
}

// report counts what was lost and tells of it.
func (s *Store) report(sh *shelf, evicted func(Evicted)) {
	defer sh.clearLost()
	for _, e := range sh.lost {
		s.count(-1, len(e.Key)+e.Meta.Size)
		s.evicted.Add(1)
		if evicted != nil {
			evicted(e)
		}
	}
}

// Delete drops the entry of a key and returns its stamps, or false when there
// was none. Its memory is used again when its turn to be evicted would have
// come.
func (s *Store) Delete(key string) (Meta, bool) {
	s.writer.Lock()
	defer s.writer.Unlock()
	sh := s.shelf.Load()
	if sh == nil {
		return Meta{}, false
	}
	m, ok := sh.remove(key)
	if ok {
		s.count(-1, len(key)+m.Size)
	}
	return m, ok
}

// Reset drops everything in a time that does not depend on the number of
// entries, and ends all scans. It does not report what it drops. The memory of
// the rings is kept.
func (s *Store) Reset() {
	s.writer.Lock()
	defer s.writer.Unlock()
	sh := s.shelf.Load()
	if sh == nil {
		return
	}
	s.resets.Add(1)
	sh.reset()
	s.entries.Store(0)
	s.bytes.Store(0)
}

// Len returns the number of entries, expired ones included.
func (s *Store) Len() int { return int(s.entries.Load()) }

// Stats returns what the Store holds now and has lost so far.
func (s *Store) Stats() Stats {
	return Stats{
		Entries:  s.Len(),
		Bytes:    s.bytes.Load(),
		Capacity: s.layout.rings(),
		Budget:   s.budget,
		Shards:   s.layout.shards,
		Evicted:  s.evicted.Load(),
	}
}

// Close gives the memory back. It may be called more than once. Afterwards
// reads miss, and what returns an error returns ErrClosed.
func (s *Store) Close() error {
	s.writer.Lock()
	defer s.writer.Unlock()
	if s.shelf.Swap(nil) == nil {
		return nil
	}
	s.scans.close()
	s.entries.Store(0)
	s.bytes.Store(0)
	return nil
}
