package localstore

import "unsafe"

// PrefetchKeys is how many keys of a call of Prefetch are loaded; further ones are left
// alone.
const PrefetchKeys = 64

// Prefetch has the processor load what reads of keys will look at, all at the same time,
// while a read of one after the other would wait for memory twice each. It is a hint: it
// changes nothing, takes no lock and allocates nothing. Worth it for two keys or more that
// are read right after.
func (s *Store) Prefetch(keys []string) {
	sh := s.shelf.Load()
	if sh == nil {
		return
	}
	keys = keys[:min(len(keys), PrefetchKeys)]
	var shards [PrefetchKeys]*shard
	var slots [PrefetchKeys]int
	var tags [PrefetchKeys]uint64
	for i, key := range keys {
		sd, mixed := sh.shard(key)
		x := sd.index.Load()
		shards[i], tags[i] = sd, mixed>>tagShift
		slots[i] = x.home(tags[i])
		prefetch(unsafe.Pointer(&x.slots[slots[i]]))
	}
	for i := range keys {
		shards[i].prefetch(slots[i], tags[i])
	}
}

// prefetch loads the record that the words from slot i on say that a tag has. It looks no
// further than a cache line: most are there.
func (s *shard) prefetch(i int, tag uint64) {
	x := s.index.Load()
	for range 8 {
		if i >= len(x.slots) { // the index may have been replaced meanwhile
			return
		}
		w := x.at(i)
		if w == 0 {
			return
		}
		if w.tag() != tag {
			i = x.next(i)
			continue
		}
		p := s.rings[w.ring()].address(w.offset())
		prefetch(p)
		prefetch(unsafe.Add(p, line))
		return
	}
}

// line is the size of a cache line in bytes.
const line = 64
