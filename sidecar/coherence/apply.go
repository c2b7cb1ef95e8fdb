package coherence

import (
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// Apply takes the next event of the stream (C1). The caller guarantees the
// order: every event once, by rising seq, or a Doubt in its place.
func (c *Core) Apply(d bus.Delivery, now time.Duration) {
	c.step(now)
	seq := d.Position.Seq
	if d.Event.Op != bus.OpPulse {
		c.horizon.gens.newest.Store(seq)
	}
	switch {
	case d.Err != nil:
		c.flush(d.Namespace, seq, false) // what it named is unknown
	case d.Event.Op == bus.OpFlush:
		c.flush(d.Namespace, seq, d.Event.Reset)
	case d.Event.Op == bus.OpFork:
		c.flush("", seq, false)
		c.newIncarnation(d.Position.Epoch)
		c.marks.epoch = d.Position.Epoch
	default:
		c.invalidate(&d.Event, seq)
	}
	c.applied = d.Position
	c.trail.put(seq, d.Digest)
	c.marks.note(now, seq)
	if d.Fresh > 0 {
		c.heard.note(seq, c.past.at(d.Fresh, c.moment()).tick, now)
	}
}

// invalidate drops what e made stale and raises the fences of all it names,
// resident or not.
func (c *Core) invalidate(e *bus.Event, seq uint64) {
	for _, kv := range e.Keys {
		f := c.raise(kv.Key)
		if s, ok := c.entries.Stamp(kv.Key); ok && stale(s, kv.Version, seq) {
			if c.replaces(e, kv, s) {
				c.entries.Replace(kv.Key, c.stamp(kv.Version, seq), *e)
			} else {
				c.entries.Drop(kv.Key)
			}
			f = c.remember(kv.Key, s)
		}
		f.event(seq, kv.Version)
		c.purgeDependents(kv.Key, seq)
	}
	c.purgeTags(e.Tags, seq)
	if e.Prefix != "" {
		c.flushPrefix(e.Prefix, seq)
	}
}

// stale is rule C1: two versions are compared with each other; in every other
// case the entry's position decides, because a value without a version is as
// old as its lease.
func stale(s Stamp, version, seq uint64) bool {
	if version != 0 && s.Version != 0 {
		return s.Version < version
	}
	return s.Seq < seq
}

// event raises f by an event of its key.
func (f *fence) event(seq, version uint64) {
	f.seq = max(f.seq, seq)
	f.version = max(f.version, version)
	f.published = max(f.published, version)
	if version == 0 {
		f.unversioned = max(f.unversioned, seq)
	}
}
