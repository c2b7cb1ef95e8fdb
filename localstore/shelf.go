package localstore

import "fmt"

// shelf is the shards of a Store, and what the writer needs beside them.
type shelf struct {
	shards  []shard
	hash    func(string) uint64
	scratch []byte
	lost    []Evicted // since the writer last looked
}

func newShelf(l layout, hash func(string) uint64) *shelf {
	s := &shelf{shards: make([]shard, l.shards), hash: hash}
	for i := range s.shards {
		s.shards[i].init(l, hash, &s.lost)
	}
	return s
}

// shard returns the shard of a key, and the key's hash as shards know it.
func (s *shelf) shard(key string) (*shard, uint64) {
	h := s.hash(key)
	return &s.shards[h&uint64(len(s.shards)-1)], mix(h)
}

// place stores an entry that is known to fit, in place of the old one. Whatever else
// goes for it is added to s.lost.
func (s *shelf) place(key string, value []byte, m Meta) (old Meta, replaced bool, err error) {
	sh, mixed := s.shard(key)
	if most := maxHeader + len(key) + minRecord + maxPad + len(value); cap(s.scratch) < most {
		s.scratch = make([]byte, 0, most) // not more: it is in the budget
	}
	head := appendHead(s.scratch[:0], key, m)
	slot, w, rec := sh.find(key, mixed)
	if rec != nil {
		var r record
		if err := r.parse(rec); err == nil {
			old = r.meta
		}
		replaced = true
	}
	pad := max(minRecord-len(head)-len(value), 0)
	room := len(rec) - len(head) - len(value)
	if inPlace := replaced && room >= 0 && room <= maxPad; inPlace {
		pad = room
	}
	s.scratch = appendRest(head, pad, value)

	sh.mu.Lock()
	defer sh.mu.Unlock()
	if len(rec) == len(s.scratch) {
		copy(rec, s.scratch) // of the same size: where it is
		return old, replaced, nil
	}
	r, reads := probation, 0
	switch {
	case replaced:
		// Readers may have counted since; the record is where it was.
		r, reads = w.ring(), sh.index.Load().at(slot).reads()
		sh.drop(slot, w, rec)
	case sh.ghosts.take(mixed, sh.entries):
		r = mainRing
	}
	if len(s.scratch) > sh.rings[probation].size/probationFit {
		r = mainRing
	}
	if err := sh.insert(s.scratch, mixed, r, reads); err != nil {
		return old, replaced, fmt.Errorf("localstore: store %d bytes: %w", len(s.scratch), err)
	}
	return old, replaced, nil
}

// remove drops the entry of a key and returns its stamps.
func (s *shelf) remove(key string) (m Meta, ok bool) {
	sh, mixed := s.shard(key)
	slot, _, rec := sh.find(key, mixed)
	if rec == nil {
		return Meta{}, false
	}
	var r record
	if r.parse(rec) == nil {
		m = r.own()
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	w := sh.index.Load().at(slot) // now that no reader counts
	sh.drop(slot, w, rec)
	if w.ring() == mainRing || w.reads() >= promoteReads {
		sh.ghosts.add(mixed, sh.entries) // it is likely to come again: a near cache drops what changed
	}
	return m, true
}

// clearLost empties s.lost. A large one is given back: it is not in the budget.
func (s *shelf) clearLost() {
	const keep = 64
	if cap(s.lost) > keep {
		s.lost = nil
		return
	}
	clear(s.lost)
	s.lost = s.lost[:0]
}

// reset drops everything, and what large entries made the buffers grow to.
func (s *shelf) reset() {
	s.scratch = nil
	for i := range s.shards {
		s.shards[i].reset()
	}
}
