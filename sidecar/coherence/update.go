package coherence

import (
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// replaces reports whether an update brings the value for the stale entry s
// (C10): only where both have versions, which say which value is newer, and where
// the entry hangs on nothing, for the new value may hang on something else.
func (c *Core) replaces(e *bus.Event, kv bus.KeyVersion, s Stamp) bool {
	return e.Op == bus.OpUpdate && kv.Version != 0 && c.replaceable(kv.Key, s)
}

func (c *Core) replaceable(key string, s Stamp) bool {
	return s.Version != 0 && len(s.Hangs) == 0 && c.horizon.Alive(key, s)
}

// UpdateLease is the lease by which the value of an update is judged whose key has no
// entry that it could replace, where the policy keeps such values (C10, ADR 0012): that
// of a window before the moment from, before which the update was not acknowledged.
// No value is acknowledged later than a window after it was committed, so whatever is
// known from before that lease is older.
func (c *Core) UpdateLease(from time.Duration) Lease { return c.leaseAt(from - c.cfg.Window) }

// OwnUpdate is asked before OwnWrite for the lease of the value that the own write
// brings, and tells whether it replaces an entry: then the value is judged as that
// entry was, and by what has come since. It is void where an earlier own write may be
// newer: OwnWrite makes one of the two.
func (c *Core) OwnUpdate(key string, now time.Duration) (l Lease, replaces bool) {
	if s, held := c.entries.Stamp(key); held && c.replaceable(key, s) {
		return c.lease(moment{seq: s.Seq, tick: c.tick}), true
	}
	l = c.UpdateLease(now)
	if l.Tick < c.fences.get(c.cfg.Hash(key)).voided {
		return Lease{}, false
	}
	return l, false
}
