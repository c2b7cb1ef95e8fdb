package coherence

// fence is what remains of a key's past when its entry is gone (C4).
type fence struct {
	hash        uint64
	version     uint64 // newest version known: applied, stored, served or evicted
	published   uint64 // newest version that an event has named (C12)
	seq         uint64 // newest event of the key, in era
	unversioned uint64 // newest event of the key without a version, in era
	tick        uint64 // of the last raise
	plain       uint64 // tick at which the newest lost value without a version had been stored
	voided      uint64 // leases with a smaller tick are void whatever their version (C8)
	written     uint64 // event of the own write at voided, in era; 0 = not applied yet
	era         uint32 // seqs of another era belong to another epoch and say nothing

	older, newer uint32 // neighbours in the order of last raises
}

// fenceTable holds a fixed number of fences in the order of their last raise.
// It never grows: what a full table evicts is told to the caller, who raises
// the floor.
type fenceTable struct {
	index map[uint64]uint32
	slots []fence // slots[0] is the ring's anchor: newer = oldest fence, older = newest
	max   int
}

func newFenceTable(maxFences int) fenceTable {
	return fenceTable{
		index: make(map[uint64]uint32),
		slots: make([]fence, 1, 1024),
		max:   max(1, maxFences),
	}
}

// get returns the key's fence for reading, or the zero fence.
func (t *fenceTable) get(hash uint64) fence {
	if i, ok := t.index[hash]; ok {
		return t.slots[i]
	}
	return fence{}
}

// find returns the key's fence, or nil. The pointer is valid until the next raise.
func (t *fenceTable) find(hash uint64) *fence {
	if i, ok := t.index[hash]; ok {
		return &t.slots[i]
	}
	return nil
}

// raise returns the key's fence for writing, now the newest in order; the caller
// sets its tick. When another had to give way, its tick is returned as evicted.
// The pointer is valid until the next raise.
func (t *fenceTable) raise(hash uint64, era uint32) (f *fence, evicted uint64) {
	i, ok := t.index[hash]
	if !ok {
		i, evicted = t.take()
		t.slots[i] = fence{hash: hash, era: era}
		t.index[hash] = i
	} else {
		t.unlink(i)
	}
	t.linkNewest(i)
	f = &t.slots[i]
	if f.era != era {
		f.era, f.seq, f.unversioned, f.written = era, 0, 0, 0
	}
	return f, evicted
}

// take finds a free slot: a new one, or that of the fence raised longest ago.
func (t *fenceTable) take() (slot uint32, evicted uint64) {
	if len(t.slots) <= t.max {
		t.slots = append(t.slots, fence{})
		return uint32(len(t.slots) - 1), 0
	}
	oldest := t.slots[0].newer
	f := t.slots[oldest]
	t.unlink(oldest)
	delete(t.index, f.hash)
	return oldest, f.tick
}

func (t *fenceTable) unlink(i uint32) {
	f := t.slots[i]
	t.slots[f.older].newer = f.newer
	t.slots[f.newer].older = f.older
}

func (t *fenceTable) linkNewest(i uint32) {
	last := t.slots[0].older
	t.slots[i].older, t.slots[i].newer = last, 0
	t.slots[last].newer = i
	t.slots[0].older = i
}

func (t *fenceTable) len() int { return len(t.index) }

// raise raises the key's fence to the current tick and, when another fence had
// to be evicted for it, the floor: without its fence a key can no longer be
// told from one whose lease is too old, so all leases that old are void (C4).
func (c *Core) raise(key string) *fence {
	f, evicted := c.fences.raise(c.cfg.Hash(key), c.horizon.era)
	c.floor = max(c.floor, evicted)
	if f.tick < c.horizon.reset(key) {
		f.version, f.published = 0, 0
	}
	f.tick = c.tick
	return f
}

// remember puts what the lost entry s stood for into the key's fence: a client
// may have been served it, so the key must not go back behind it.
func (c *Core) remember(key string, s Stamp) *fence {
	f := c.raise(key)
	if s.Tick >= c.horizon.reset(key) {
		f.version = max(f.version, s.Version)
	}
	if s.Version == 0 {
		f.plain = max(f.plain, s.Tick)
	}
	return f
}
