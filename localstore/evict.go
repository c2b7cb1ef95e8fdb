package localstore

// S3-FIFO (docs/adr/0014): what comes new goes to probation, a tenth of the memory. At
// that ring's end it goes on to main if it was read meanwhile, or if main has room;
// otherwise it goes, and its ghost stays. What has a ghost, or is large, goes to main at
// once. At the end of main, what was read since it came there goes to the beginning
// again, up to three times; the rest goes. Whoever reads once, a scan, passes through
// probation and leaves main alone.

// chances is how much work one insertion may spend on second chances, and so how long
// readers of the shard wait for it: it falls with each record that is moved, and by its
// bytes. At 0 the oldest goes, read or not.
type chances int

const (
	allChances = 128 << 10
	moveCost   = 1 << 10
)

// insert stores a record of a key that the index does not have, in main or in
// probation, as one that was read so often.
func (s *shard) insert(rec []byte, mixed uint64, r, reads int) error {
	left := chances(allChances)
	for s.entries >= s.limit {
		if err := s.shrink(&left); err != nil {
			return err
		}
	}
	for {
		if s.push(r, taken{rec: rec, mixed: mixed}, reads) {
			return nil
		}
		if err := s.makeRoom(r, &left); err != nil {
			return err
		}
	}
}

// makeRoom takes the oldest record out of a ring, or more.
func (s *shard) makeRoom(r int, left *chances) error {
	if r == mainRing {
		return s.recycle(left)
	}
	return s.promote(left)
}

// shrink takes an entry away where the index is full before the rings are: probation is a
// tenth of the entries then.
func (s *shard) shrink(left *chances) error {
	inProbation := s.rings[probation].count()
	if inProbation*probationShare < s.entries || inProbation == 0 {
		return s.recycle(left)
	}
	t, err := s.next(probation)
	if err != nil || !t.alive {
		return err
	}
	if t.reads < promoteReads || *left <= 0 {
		s.lose(t.rec)
		s.ghosts.add(t.mixed, s.entries)
		return nil
	}
	*left -= chances(moveCost + len(t.rec))
	for !s.push(mainRing, t, 0) {
		if err := s.recycle(left); err != nil {
			return err
		}
	}
	return nil
}

// taken is a record that was taken out of its ring. Its bytes stay as they are until
// something is pushed there.
type taken struct {
	rec   []byte
	mixed uint64
	reads int
	alive bool // it had not been dropped before
}

// next takes the oldest record out of a ring and out of the index.
func (s *shard) next(r int) (t taken, err error) {
	t.rec = s.rings[r].oldest()
	if key, ok := keyOf(t.rec); ok {
		t.mixed = s.mixedOf(key)
		var slot int
		var w word
		if slot, w, t.alive = s.slotOf(r, t.rec, t.mixed); t.alive {
			s.drop(slot, w, t.rec)
			t.reads = w.reads()
		}
	} else if t.rec != nil {
		s.forget(r, t.rec)
	}
	s.rings[r].dead -= len(t.rec)
	return t, s.rings[r].pop()
}

// push puts what was taken out at the end of a ring, unless that lacks the room.
func (s *shard) push(r int, t taken, reads int) bool {
	offset, ok := s.rings[r].push(t.rec)
	if ok {
		s.add(newWord(t.mixed, r, offset, reads))
	}
	return ok
}

// forget takes a record out of the index whose key cannot be read.
func (s *shard) forget(r int, rec []byte) {
	x := s.index.Load()
	for i := range x.slots {
		if w := x.at(i); w != 0 && w.ring() == r && is(s.rings[r].at(w.offset()), rec) {
			s.drop(i, w, rec)
			break
		}
	}
	*s.lost = append(*s.lost, Evicted{Unknown: true})
}

// lose reports a record that was taken out.
func (s *shard) lose(rec []byte) {
	var r record
	if r.parse(rec) != nil {
		*s.lost = append(*s.lost, Evicted{Unknown: true})
		return
	}
	r.meta.Extra.ETag = string(r.etag)
	r.meta.Hangs = nil // the ring's memory
	*s.lost = append(*s.lost, Evicted{Key: string(r.key), Meta: r.meta})
}

// promote takes the oldest record out of probation, and on to main or away.
func (s *shard) promote(left *chances) error {
	t, err := s.next(probation)
	if err != nil || !t.alive {
		return err
	}
	for !s.push(mainRing, t, 0) {
		if t.reads < promoteReads && !s.rings[mainRing].wasteful() {
			s.lose(t.rec)
			s.ghosts.add(t.mixed, s.entries)
			return nil
		}
		if err := s.recycle(left); err != nil {
			return err
		}
	}
	return nil
}

// promoteReads is how often an entry must have been read in probation to stay.
const promoteReads = 1

// recycle takes the oldest record out of main that has no second chance, and moves
// those before it to the beginning. While much of main is dead, all have one: what is dead
// comes to its turn sooner, and nothing need go for it.
func (s *shard) recycle(left *chances) error {
	var kept taken
	for {
		t, err := s.next(mainRing)
		if kept.alive && !s.push(mainRing, kept, max(kept.reads-1, 0)) {
			s.lose(kept.rec) // never: with the one just taken out the gap is large enough
		}
		if err != nil || !t.alive {
			return err
		}
		if *left <= 0 || t.reads == 0 && !s.rings[mainRing].wasteful() {
			s.lose(t.rec)
			return nil
		}
		*left -= chances(moveCost + len(t.rec))
		if kept = t; s.push(mainRing, t, max(t.reads-1, 0)) {
			kept = taken{}
		}
	}
}
