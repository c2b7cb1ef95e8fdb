package cache

import (
	"math/rand/v2"
	"time"

	"github.com/nearside-cache/nearside/localstore"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// TTL is how long an entry shall live. The zero value asks for the namespace's
// own.
type TTL struct {
	For   time.Duration // meaningful when Asked
	Asked bool          // the client named a TTL
	Keep  bool          // keep the resident entry's, if there is one
}

// Set judges and perhaps stores a plain SET (C3). The verdict says what became
// of it; a cache may refuse at any time. Slices are not kept.
//
// The clock is read here, under the lock, and not by the caller: a change that
// is dated before one that it follows would date leases too late.
func (c *Cache) Set(key string, value []byte, ttl TTL) coherence.Verdict {
	p := c.Policies().OfKey(key)
	mode := coherence.SetFill
	if p.Set == policy.SetWindow {
		mode = coherence.SetWindow
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	t := c.times(key, ttl, p, now)
	if v, refused := c.refuses(p, now); refused {
		c.metrics.fill(v)
		c.filled(key, 0, v)
		return v
	}
	stamp, v := c.core.PlainSet(key, mode, now, p.ReplicaLag)
	if v == coherence.Stored {
		t.expires = c.compare(key, value, p, t.expires, now)
	}
	if v == coherence.Stored && !c.put(key, value, metaWith(stamp, t), now) {
		v = coherence.TooLarge
	}
	c.metrics.fill(v)
	c.filled(key, 0, v)
	return v
}

// expiry is when an entry stored now expires on our clock; 0 is never.
func (c *Cache) expiry(key string, ttl TTL, p *policy.Namespace, now time.Duration) time.Duration {
	if ttl.Keep {
		if m, ok := c.keeps(key, now); ok {
			return m.Expires
		}
	}
	d, jitter := p.TTL, p.TTLJitter
	if ttl.Asked {
		d, jitter = ttl.For, 0
	}
	if most := p.TTLCap(); most > 0 && (d == 0 || d > most) {
		d = most
	}
	return localstore.Expiry(now, d, jitter, rand.Float64())
}

// keeps returns the stamps of the value whose TTL a new one keeps.
func (c *Cache) keeps(key string, now time.Duration) (localstore.Meta, bool) {
	m, ok := c.store.Head(key)
	return m, ok && !m.Extra.Negative && c.servable(key, m, now)
}

// put stores under mu and reports whether the value could be held, by policy and
// by the store.
func (c *Cache) put(key string, value []byte, m localstore.Meta, now time.Duration) bool {
	p := c.Policies().OfKey(key)
	if most := int64(p.MaxValue); len(value) > c.maxValue || most > 0 && int64(len(value)) > most {
		return false
	}
	c.evictTime = now
	value, m.Extra.Packed = c.pack(value, p)
	if c.store.Put(key, value, m, c.evicted) != nil {
		return false
	}
	c.tell(Change{Cause: Replaced, Key: key})
	return true
}

// Expire changes when the key's entry expires, here only, and reports whether
// there is one. A moment that has passed drops the entry. When the client knows
// afterwards that there is none, that is a miss (C3).
func (c *Cache) Expire(key string, ttl TTL) bool {
	p := c.Policies().OfKey(key)
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	value, m, ok := c.stored(key)
	if !ok || m.Extra.Negative || !c.servable(key, m, now) || !p.Enforces() {
		c.missed(key, now, p.ReplicaLag)
		return false
	}
	if m.Expires = c.expiry(key, ttl, p, now); m.Expires != 0 && m.Expires <= now {
		c.store.Delete(key)
		c.tell(Change{Cause: Replaced, Key: key})
		c.core.Evicted(key, stampOf(m), now)
		c.missed(key, now, p.ReplicaLag)
		return true
	}
	return c.put(key, value, m, now)
}
