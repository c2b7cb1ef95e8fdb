package coherence

import "time"

// OwnWrite is told of a key that this sidecar is about to publish an
// invalidation for (C8). The entry goes and every lease of the key given so far
// is void at once, also when the publish fails later: the caller knows of a
// write that a load begun before now may not have seen. It reports whether an
// entry was alive.
func (c *Core) OwnWrite(key string, now time.Duration) bool {
	c.step(now)
	s, held := c.entries.Stamp(key)
	f := c.remember(key, s)
	f.voided = c.tick
	// What was made of it goes too, and is not stored again before the next event.
	c.purgeDependents(key, c.applied.Seq+1)
	c.purgeAnything()
	if held {
		c.entries.Drop(key)
	}
	return held && c.horizon.Alive(key, s)
}

// OwnFlush is OwnWrite for a namespace, or for the whole domain when namespace is
// empty: every entry and every lease given so far is void at once.
func (c *Core) OwnFlush(namespace string, now time.Duration) {
	c.step(now)
	c.purgeAnything()
	if namespace != "" {
		c.flush(namespace, c.applied.Seq+1, false)
		return
	}
	c.floor = c.tick
	c.newIncarnation(c.applied.Epoch)
}

// OwnPurge is OwnWrite for tags and a prefix, where there are any. What is loaded
// now is kept again only after the next event.
func (c *Core) OwnPurge(tags []string, prefix string, now time.Duration) {
	c.step(now)
	c.purgeAnything()
	c.purgeTags(tags, c.applied.Seq+1)
	if prefix != "" {
		c.flushPrefix(prefix, c.applied.Seq+1)
	}
}

// purgeAnything purges the entries that hang on more than they could keep, and so
// on every event, for an own write whose event is to come.
func (c *Core) purgeAnything() { c.horizon.gens.newest.Store(c.applied.Seq + 1) }
