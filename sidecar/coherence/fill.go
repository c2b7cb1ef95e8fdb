package coherence

import "time"

// Fill is a loaded value that asks to be stored.
type Fill struct {
	Key     string
	Lease   Lease
	Version uint64 // the source's stamp of the value, 0 = none
	// Tags and Depends are what else makes the value stale: a purge of a tag, any
	// event of a key.
	Tags, Depends []string
	// Hangs is what the value was known to hang on before, where it was confirmed
	// and not loaded.
	Hangs Hangs
	// Own is the own write that the value came with; zero where it came otherwise.
	Own Write
}

// Fill judges f (C2). When the verdict is Stored the caller must put the value
// under the returned stamp before it calls the core again, and tell Evicted
// what had to give way.
func (c *Core) Fill(f Fill, now time.Duration) (Stamp, Verdict) {
	hangs, v := c.hangs(f)
	if judged := c.judge(f); judged != Stored {
		v = judged
	}
	c.verdicts.note(c.cfg.Hash(f.Key), v, now)
	if v != Stored {
		return Stamp{}, v
	}
	c.step(now)
	c.depended(f.Depends)
	stamp := c.stamp(f.Version, f.Lease.Position.Seq)
	stamp.Hangs = hangs
	return stamp, Stored
}

// stamp is that of an entry stored now with a value from position seq.
func (c *Core) stamp(version, seq uint64) Stamp {
	return Stamp{Version: version, Seq: seq, Tick: c.tick, Incarnation: c.horizon.incarnation}
}

// Published reports whether an event has named this version of the key, or a
// newer one: every sidecar that has applied as much drops what is older (C12).
func (c *Core) Published(key string, version uint64) bool {
	f := c.fences.get(c.cfg.Hash(key))
	return version != 0 && f.published >= version && f.tick >= c.horizon.reset(key)
}

// judge is rule C2: all of (a), (b) and (c).
func (c *Core) judge(f Fill) Verdict {
	fence := c.fences.get(c.cfg.Hash(f.Key))
	resident, held := c.entries.Stamp(f.Key)
	if v := c.leaseHolds(f, fence); v != Stored { // (a)
		return v
	}
	seq := f.Lease.Position.Seq
	inEra := fence.era == c.horizon.era
	if c.horizon.generation(f.Key, nil) > seq { // (b), tags and dependencies aside: see hangs
		return Flushed
	}
	if inEra && fence.unversioned > seq { // (b)
		return Invalidated
	}
	if f.Version != 0 { // (c) with a version
		if c.older(f, fence.version, fence.tick) || held && c.older(f, resident.Version, resident.Tick) {
			return OlderVersion
		}
		// A version cannot be compared with a value that had none (ADR 0003).
		if fence.plain > f.Lease.Tick || held && resident.Version == 0 && resident.Tick > f.Lease.Tick {
			return Superseded
		}
		return Stored
	}
	if inEra && fence.seq > seq { // (c) without
		return Invalidated
	}
	if fence.tick > f.Lease.Tick || held && resident.Tick > f.Lease.Tick {
		return Superseded
	}
	return Stored
}

// leaseHolds is C2 (a), and the voiding of C8.
func (c *Core) leaseHolds(f Fill, fence fence) Verdict {
	switch l := f.Lease; {
	case !c.ready:
		return NotReady
	case l.Incarnation == 0:
		return Blind
	case l.Incarnation != c.horizon.incarnation || l.Position.Epoch != c.applied.Epoch:
		return OtherIncarnation
	case l.Tick < c.floor:
		return BelowFloor
	case l.Tick < fence.voided && f.Own.tick != fence.voided:
		return Voided
	}
	return Stored
}

// older reports whether f is older than a version that was known at tick.
func (c *Core) older(f Fill, version, tick uint64) bool {
	return f.Version < version && tick >= c.horizon.reset(f.Key)
}

// Evicted is told of every entry that the store gave up to make room (C4).
func (c *Core) Evicted(key string, s Stamp, now time.Duration) {
	c.step(now)
	c.remember(key, s)
}

// EvictedUnknown is told when the store lost an entry and cannot say whose:
// no lease given so far can be judged any more.
func (c *Core) EvictedUnknown(now time.Duration) {
	c.step(now)
	c.floor = c.tick
}
