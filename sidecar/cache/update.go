package cache

import (
	"time"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// Replace implements coherence.Entries for an update event. An absence hangs on
// nothing, and does not say what the value that follows it hangs on (C10).
func (r residents) Replace(key string, s coherence.Stamp, e bus.Event) {
	p := r.Policies().OfKey(key)
	if m, ok := r.store.Head(key); ok && m.Extra.Negative || p.Update.Store == policy.StoreNever {
		r.store.Delete(key)
		return
	}
	now := r.now()
	if !r.put(key, e.Value, metaWith(s, r.timesOf(e, p, now)), now) {
		r.store.Delete(key)
	}
}

// timesOf are those of the value that an update brings.
func (c *Cache) timesOf(e bus.Event, p *policy.Namespace, now time.Duration) times {
	return c.times(e.Keys[0].Key, TTL{For: e.TTL, Asked: e.TTL > 0}, p, now)
}

// isLinked reports, under mu, whether an update is of an entry that hangs on something:
// its new value may, too, and does not say so (C10).
func (c *Cache) isLinked(d *bus.Delivery) bool {
	if d.Event.Op != bus.OpUpdate {
		return false
	}
	m, held := c.store.Head(d.Event.Keys[0].Key)
	return held && len(m.Hangs) > 0
}

// storeAbsent keeps, under mu, the value of an update that was applied just now and
// whose key has no entry, where the policy says so. It was acknowledged after the moment
// as of which this sidecar is fresh, or it would have been applied before (B5).
func (c *Cache) storeAbsent(d *bus.Delivery) {
	if d.Event.Keys[0].Version == 0 {
		return
	}
	key := d.Event.Keys[0].Key
	if _, held := c.store.Head(key); held || c.Policies().OfKey(key).Update.Store != policy.StoreAlways {
		return
	}
	c.storeUpdate(d.Event, update{at: c.now(), lease: c.core.UpdateLease(time.Duration(c.fresh.Load()))})
}

// update is what the value of an update is judged by.
type update struct {
	at    time.Duration // since when it is known here
	lease coherence.Lease
	// Of an own one, the write, and whether it took away an entry that the value
	// replaces.
	write    coherence.Write
	replaces bool
	linked   bool // that entry hangs on something
}

// beginUpdate is called under mu before the own write.
func (c *Cache) beginUpdate(key string, now time.Duration) (u update) {
	m, held := c.store.Head(key)
	u.at = now
	u.linked = held && len(m.Hangs) > 0
	u.lease, u.replaces = c.core.OwnUpdate(key, now)
	u.replaces = u.replaces && (!held || !m.Extra.Negative)
	return u
}

// endUpdate keeps what an own update brought, whose event has been applied here, as the
// other sidecars do (C10): the own write took the entry that it replaces. What a reader
// has stored since knows more.
func (c *Cache) endUpdate(e bus.Event, u update) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, held := c.store.Head(e.Keys[0].Key)
	switch store := c.Policies().OfKey(e.Keys[0].Key).Update.Store; {
	case held || u.linked || e.Keys[0].Version == 0 || store == policy.StoreNever:
	case u.replaces || store == policy.StoreAlways:
		c.storeUpdate(e, u)
	}
}

func (c *Cache) storeUpdate(e bus.Event, u update) {
	kv, now := e.Keys[0], c.now()
	p := c.Policies().OfKey(kv.Key)
	if _, refused := c.refuses(p, now); refused {
		return
	}
	t := c.timesOf(e, p, u.at)
	stamp, v := c.core.Fill(coherence.Fill{Key: kv.Key, Lease: u.lease, Version: kv.Version, Own: u.write}, now)
	if v == coherence.Stored && c.put(kv.Key, e.Value, metaWith(stamp, t), now) {
		c.filled(kv.Key, 0, v)
	}
}
