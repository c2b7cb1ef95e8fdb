package coherence

import (
	"slices"
	"time"
)

// OwnWrite is told of a key that this sidecar is about to publish an
// invalidation for (C8). The entry goes and every lease of the key given so far
// is void at once, also when the publish fails later: the caller knows of a
// write that a load begun before now may not have seen. The write's version is of no
// help: after a restore that is still to be told, an older value may have it, too. It
// returns what OwnWritten is told, and whether an entry was alive.
func (c *Core) OwnWrite(key string, now time.Duration) (w Write, alive bool) {
	c.step(now)
	s, held := c.entries.Stamp(key)
	f := c.remember(key, s)
	f.voided, f.written = c.tick, 0
	// What was made of it goes too, and is not stored again before the next event.
	c.purgeDependents(key, c.applied.Seq+1)
	c.purgeAnything()
	if held {
		c.entries.Drop(key)
	}
	return Write{key: key, tick: c.tick, incarnation: c.horizon.incarnation}, held && c.horizon.Alive(key, s)
}

// Write is an own write of a key, under way.
type Write struct {
	key               string
	tick, incarnation uint64
}

// OwnWritten is told that the event of w is applied here, at seq, and that it was
// published after w began: not that it repeats an earlier one. Another sidecar that
// had applied it before it loaded has loaded after w (LeaseAt).
func (c *Core) OwnWritten(w Write, seq uint64) {
	if w.incarnation != c.horizon.incarnation {
		return // seq may be one of another log
	}
	if f := c.fences.find(c.cfg.Hash(w.key)); f != nil && f.voided == w.tick && f.era == c.horizon.era {
		f.written = seq
	}
}

// writtenBy reports whether whoever had applied seq had applied the event of the
// newest own write.
func (f *fence) writtenBy(seq uint64, era uint32) bool {
	return f.written != 0 && f.era == era && f.written <= seq
}

// OwnFlush is OwnWrite for a namespace, or for the whole domain when namespace is
// empty: every entry and every lease given so far is void at once. purge is for
// Settled.
func (c *Core) OwnFlush(namespace string, now time.Duration) (purge uint64) {
	c.step(now)
	c.purgeAnything()
	if namespace != "" {
		c.flush(namespace, c.applied.Seq+1, false)
		return c.own.begin(c.tick)
	}
	c.floor = c.tick
	c.newIncarnation(c.applied.Epoch)
	return 0
}

// OwnPurge is OwnWrite for tags and a prefix, where there are any. What is loaded
// now is kept again only after the next event. purge is for Settled.
func (c *Core) OwnPurge(tags []string, prefix string, now time.Duration) (purge uint64) {
	c.step(now)
	c.purgeAnything()
	c.purgeTags(tags, c.applied.Seq+1)
	if prefix != "" {
		c.flushPrefix(prefix, c.applied.Seq+1)
	}
	return c.own.begin(c.tick)
}

// Settled is told that the event of an own purge is applied here.
func (c *Core) Settled(purge uint64) { c.own.settle(purge) }

// ownPurges are the ticks of own wide purges whose events are not applied here yet, or
// never will be. Their generations are no higher than the next seq, and so say nothing
// of what a sidecar that is ahead has loaded before them.
type ownPurges struct {
	open       []uint64 // rising
	overflowed uint64   // the newest of those that became too many
}

const maxOwnPurges = 64

func (o *ownPurges) begin(tick uint64) uint64 {
	o.open = append(o.open, tick)
	if len(o.open) > maxOwnPurges {
		o.overflowed, o.open = o.open[0], o.open[1:]
	}
	return tick
}

func (o *ownPurges) settle(tick uint64) {
	o.open = slices.DeleteFunc(o.open, func(t uint64) bool { return t == tick })
}

// newest is the tick before which a load cannot be judged by generations.
func (o *ownPurges) newest() uint64 {
	if n := len(o.open); n > 0 {
		return o.open[n-1]
	}
	return o.overflowed
}

// purgeAnything purges the entries that hang on more than they could keep, and so
// on every event, for an own write whose event is to come.
func (c *Core) purgeAnything() { c.horizon.gens.newest.Store(c.applied.Seq + 1) }
