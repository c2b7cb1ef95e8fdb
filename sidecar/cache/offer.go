package cache

import (
	"time"

	"github.com/nearside-cache/nearside/localstore"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/loader"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// Offer judges and perhaps keeps what an origin answered under a lease (C2), age ago.
func (c *Cache) Offer(key string, l Lease, held known, r loader.Result, age time.Duration) coherence.Verdict {
	p := c.Policies().OfKey(key)
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if v, refused := c.refuses(p, now); refused {
		return v
	}
	f := coherence.Fill{Key: key, Lease: l.Lease, Version: r.Version, Tags: r.Tags, Depends: r.Depends}
	last, resident, before := c.stored(key)
	if r.NotModified {
		// Only of the very entry that was asked about: another one may have come.
		if !before || resident.Tick != held.tick {
			return coherence.Superseded
		}
		r.Value, r.ETag = last, held.etag
		if f.Hangs = held.hangs; r.Version == 0 {
			f.Version = held.version
		}
	}
	ttl := TTL{For: r.TTL, Asked: r.TTL > 0}
	t := times{expires: c.expiry(key, ttl, p, now)}.with(p, now-age)
	switch {
	case r.Negative:
		t = negativeTimes(p, ttl, now)
	case p.AdaptiveTTL.Max > 0 && r.TTL == 0:
		before = before && c.horizon.Load().Alive(key, stampOf(resident))
		t = adaptedTimes(p, now, resident, before, unchanged(resident, last, r))
	}
	if !r.Negative && len(r.ETag) <= localstore.MaxETag { // half of one would confirm nothing, or another value
		t.extra.ETag = r.ETag
	}
	stamp, v := c.core.Fill(f, now)
	switch {
	case v != coherence.Stored:
	case r.Negative && p.NegativeTTL == 0:
		v = coherence.Absent
		c.gone(key, now)
	default:
		t.expires = c.compare(key, r.Value, p, t.expires, now)
		if !c.put(key, r.Value, metaWith(stamp, t), now) {
			v = coherence.TooLarge
		}
	}
	c.filled(key, 0, v)
	return v
}

// gone drops what is resident of a key of which the source has no value any more.
func (c *Cache) gone(key string, now time.Duration) {
	if m, ok := c.store.Delete(key); ok {
		c.tell(Change{Cause: Replaced, Key: key})
		c.core.Evicted(key, stampOf(m), now)
	}
}

// times are the moments of an entry's life.
type times struct {
	expires time.Duration
	extra   localstore.Extra
}

func metaWith(s coherence.Stamp, t times) localstore.Meta {
	m := metaOf(s, t.expires)
	m.Extra = t.extra
	return m
}

// times works out when an entry that is stored now is past its soft TTL, is to be
// loaded anew, and expires (C10).
func (c *Cache) times(key string, ttl TTL, p *policy.Namespace, now time.Duration) times {
	t := times{expires: c.expiry(key, ttl, p, now)}
	if ttl.Keep {
		if m, ok := c.keeps(key, now); ok {
			// The rest of Extra is of the other value, its ETag above all.
			t.extra.Soft, t.extra.Renew, t.extra.Span = m.Extra.Soft, m.Extra.Renew, m.Extra.Span
			return t
		}
	}
	return t.with(p, now)
}

// with derives the soft moments of a value loaded at from from its expiry.
func (t times) with(p *policy.Namespace, from time.Duration) times {
	end := t.expires
	if p.SoftTTL > 0 && (end == 0 || from+p.SoftTTL < end) {
		end = from + p.SoftTTL
		t.extra.Soft = end
	}
	if p.RefreshAhead > 0 && end > 0 {
		t.extra.Renew = end - time.Duration(float64(end-from)*p.RefreshAhead)
	}
	return t
}

// negativeTimes are those of an absence: whoever loaded may ask for less than the
// policy's negative TTL, never for more.
func negativeTimes(p *policy.Namespace, asked TTL, now time.Duration) times {
	ttl := p.NegativeTTL
	if asked.For > 0 {
		ttl = min(ttl, asked.For)
	}
	t := times{expires: now + ttl}
	t.extra.Negative = true
	return t
}
