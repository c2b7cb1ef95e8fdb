package cache

import (
	"time"

	"github.com/nearside-cache/nearside/localstore"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// Get appends the key's value to dst and returns the result, which is the
// caller's. When there is none that may be served it returns dst as it was and
// false, and takes note of the miss (C3). key is not kept; now is the caller's
// reading of Now.
func (c *Cache) Get(key string, dst []byte, now time.Duration) ([]byte, bool) {
	dst, found := c.Read(key, dst, now)
	if ok := found == Value || found == Old; ok {
		return dst, true
	}
	c.Missed(key, now)
	return dst, false
}

// Read is Get for a caller that does not let its client know of an absence, or
// calls Missed when it does.
//
// The bound of the key's policy is kept (I5): fresh is read before the entry, so
// the entry reflects all that fresh covers, and now is a moment after the client
// called.
func (c *Cache) Read(key string, dst []byte, now time.Duration) ([]byte, Found) {
	return c.read(key, dst, now, false)
}

func (c *Cache) read(key string, dst []byte, now time.Duration, failed bool) ([]byte, Found) {
	fresh := c.Fresh()
	p := c.Policies().OfKey(key)
	if !p.Enforces() {
		c.shadow(key, p, now)
		return dst, Nothing
	}
	val, m, ok := c.store.AppendTo(dst, key) // m.Hangs is good until val is written to
	if !ok {
		return dst, Nothing
	}
	found := c.find(key, m, p, now, boundOf(p), failed)
	switch {
	case found == Nothing:
		return dst, Nothing
	case now-fresh > p.Bound():
		c.metrics.Bypassed.Inc()
		return dst, Nothing
	case c.untold(key, m.Version, p):
		return dst, Nothing
	case found == Absence:
		c.noteRead(key, p, now)
		c.metrics.NegativeHits.Inc()
		return dst, Absence
	case found == Old:
		c.metrics.StaleHits.Inc()
	}
	val, ok = c.unpack(val, len(dst), m)
	if !ok {
		return dst, Nothing
	}
	c.noteRead(key, p, now)
	c.metrics.Hits.Inc()
	return val, found
}

// Info is what is known of an entry that may be served.
type Info struct {
	Size    int           // of the value in bytes
	TTL     time.Duration // until it expires; meaningless unless Expires
	Expires bool
	Version uint64
	Seq     uint64 // the position the value rests on
}

// Head tells of the key's entry without its value. Learning that a key is absent
// is a miss, as with Get.
func (c *Cache) Head(key string, now time.Duration) (Info, bool) { return c.head(key, now, false) }

// HeadStale is Head for a reader whose load has failed, as ReadStale is Read.
func (c *Cache) HeadStale(key string, now time.Duration) (Info, bool) { return c.head(key, now, true) }

func (c *Cache) head(key string, now time.Duration, failed bool) (Info, bool) {
	i, ok := c.peek(key, now, failed)
	if !ok {
		c.Missed(key, now)
	}
	return i, ok
}

// Peek is Head for a caller that does not let its client know, or calls Missed
// when it does.
func (c *Cache) Peek(key string, now time.Duration) (Info, bool) { return c.peek(key, now, false) }

func (c *Cache) peek(key string, now time.Duration, failed bool) (Info, bool) {
	i, ok := c.servableInfo(key, now, failed)
	if ok && c.untold(key, i.Version, c.Policies().OfKey(key)) {
		return Info{}, false
	}
	return i, ok
}

// servableInfo tells of an entry that some read may be served, be its version known
// elsewhere or not. It takes no lock.
func (c *Cache) servableInfo(key string, now time.Duration, failed bool) (Info, bool) {
	fresh := c.Fresh()
	p := c.Policies().OfKey(key)
	m, ok := c.sized(key)
	if !ok || now-fresh > p.Bound() || !p.Enforces() {
		return Info{}, false
	}
	if found := c.judge(key, m, p, now, boundOf(p), failed); found != Value && found != Old {
		return Info{}, false
	}
	return Info{Size: m.Size, TTL: m.Expires - now, Expires: m.Expires != 0, Version: m.Version, Seq: m.Seq}, true
}

// untold reports whether an entry is not for plain reads of class critical: it was
// filled since its reader caught up, and its version may not be known elsewhere (C12).
func (c *Cache) untold(key string, version uint64, p *policy.Namespace) bool {
	return p.Critical() && version != 0 && !c.published(key, version)
}

// servable must be asked after the entry was read: a purge that was applied in
// between then counts.
func (c *Cache) servable(key string, m localstore.Meta, now time.Duration) bool {
	return (m.Expires == 0 || now < m.Expires) && c.horizon.Load().Alive(key, stampOf(m))
}

// Missed takes note that a client learned that key is absent (C3): a plain SET
// may follow from it.
func (c *Cache) Missed(key string, now time.Duration) {
	lag := c.Policies().OfKey(key).ReplicaLag
	c.mu.Lock()
	c.missed(key, now, lag)
	c.mu.Unlock()
}

// missed is Missed under mu.
func (c *Cache) missed(key string, now, lag time.Duration) {
	c.metrics.Misses.Inc()
	c.core.Miss(key, now, lag)
}

// Scan returns the keys of the next entries of a walk; see localstore.Scan. It
// lists only what may be served, and is no miss for what it does not list.
//
// A step ends early when its keys have scanBytes: keys may be long.
func (c *Cache) Scan(cursor uint64, count int, now time.Duration) (keys []string, next uint64, err error) {
	size := 0
	for next = cursor; count > 0 && size < scanBytes; count -= scanStep {
		var entries []localstore.Entry
		if entries, next, err = c.store.Scan(next, min(count, scanStep)); err != nil {
			return nil, 0, err
		}
		for _, e := range entries {
			p := c.Policies().OfKey(e.Key)
			found := c.judge(e.Key, e.Meta, p, now, boundOf(p), false)
			if p.Enforces() && (found == Value || found == Old) && !c.untold(e.Key, e.Meta.Version, p) {
				keys = append(keys, e.Key)
				size += len(e.Key)
			}
		}
		if next == 0 {
			break
		}
	}
	return keys, next, nil
}

const (
	scanStep  = 16       // entries of the store looked at in one go
	scanBytes = 64 << 10 // of keys, after which a step of a scan ends
)

// Len returns the number of entries held, those that expired or were purged
// included until their memory is used again.
func (c *Cache) Len() int { return c.store.Len() }
