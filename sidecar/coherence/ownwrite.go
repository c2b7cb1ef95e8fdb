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
	if held {
		c.entries.Drop(key)
	}
	return held && c.horizon.Alive(key, s)
}

// OwnFlush is OwnWrite for the whole domain: every entry and every lease given
// so far is void at once.
func (c *Core) OwnFlush(now time.Duration) {
	c.step(now)
	c.floor = c.tick
	c.newIncarnation(c.applied.Epoch)
}
