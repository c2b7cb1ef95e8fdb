package coherence

import "time"

// SetMode is a namespace's policy for plain SETs.
type SetMode uint8

// Modes of plain SETs. The third policy, invalidate, publishes and stores
// nothing, so no SET reaches the core.
const (
	SetFill   SetMode = iota // judged by the reader's own miss
	SetWindow                // always judged by the lease of one window ago
)

// Miss is told whenever a client learned that key is absent, by whatever
// command: a plain SET may follow from it. lag is as in Lease.
func (c *Core) Miss(key string, now, lag time.Duration) {
	c.first = false
	ok := c.misses.add(c.cfg.Hash(key), miss{at: now, lease: c.Lease(now, lag)}, c.cfg.Window)
	if !ok {
		c.phantomUntil = max(c.phantomUntil, now+c.cfg.Window)
	}
}

// PlainSet judges a SET that presents no lease (C3): as a fill under the lease
// of the *oldest* outstanding miss of its key, because it cannot be told which
// reader the SET comes from; it then strikes out the *newest*, so that older
// readers are still judged by what they saw. Without a miss the lease of one
// window ago judges: no reader's own miss is older.
func (c *Core) PlainSet(key string, mode SetMode, now, lag time.Duration) (Stamp, Verdict) {
	oldestReader := now - c.cfg.Window - lag
	if lag == 0 {
		oldestReader = max(oldestReader, c.birth)
	}
	lease, hash := c.leaseAt(oldestReader), c.cfg.Hash(key)
	oldest, outstanding := c.misses.oldest(hash, now-c.cfg.Window)
	if outstanding && mode == SetFill && now > c.phantomUntil && oldest.Incarnation == c.horizon.incarnation {
		lease = oldest
	}
	if lease.Incarnation == 0 {
		c.verdicts.note(hash, Blind, now)
		return Stamp{}, Blind // strikes out nothing
	}
	c.misses.strike(hash, now-c.cfg.Window)
	return c.Fill(Fill{Key: key, Lease: lease}, now)
}
