package cache

import (
	"context"
	"time"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/coherence"
)

// FillOptions say what a loaded value rests on and how long it lives.
type FillOptions struct {
	Lease         Lease
	Version       uint64 // the source's stamp of the value, 0 = none
	TTL           TTL
	Soft          time.Duration // from now on, until the value is past its soft TTL; 0 = as the policy says
	Negative      bool          // the source has no value: the value is empty
	Tags, Depends []string
}

// Lease returns a lease for a load of key that begins now.
func (c *Cache) Lease(key string, strong bool) Lease {
	lag := c.Policies().OfKey(key).ReplicaLag
	c.mu.Lock()
	defer c.mu.Unlock()
	c.metrics.Misses.Inc()
	return Lease{Lease: c.core.Lease(c.now(), lag), Strong: strong}
}

// Fill judges and perhaps stores a value that was loaded under a lease (C2). The
// verdict says what became of it. Slices are not kept.
func (c *Cache) Fill(key string, value []byte, o FillOptions) coherence.Verdict {
	p := c.Policies().OfKey(key)
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	v, refused := c.refuses(p, now)
	if !refused {
		v = c.fill(key, value, o)
	}
	c.metrics.fill(v)
	c.filled(key, o.Lease.Right, v)
	return v
}

// fill is Fill under mu, in a namespace that keeps fills.
func (c *Cache) fill(key string, value []byte, o FillOptions) coherence.Verdict {
	now := c.now()
	p := c.Policies().OfKey(key)
	if o.Negative && p.NegativeTTL == 0 {
		return coherence.Absent
	}
	t := c.times(key, o.TTL, p, now)
	if o.Soft > 0 {
		t.extra.Soft = now + o.Soft
	}
	if o.Negative {
		t = negativeTimes(p, o.TTL, now)
	}
	stamp, v := c.core.Fill(coherence.Fill{
		Key: key, Lease: o.Lease.Lease, Version: o.Version, Tags: o.Tags, Depends: o.Depends,
	}, now)
	if v == coherence.Stored {
		t.expires = c.compare(key, value, p, t.expires, now)
	}
	if v == coherence.Stored && !c.put(key, value, metaWith(stamp, t), now) {
		return coherence.TooLarge
	}
	return v
}

// published reports whether every sidecar that is up to date drops what is older
// than this version of the key.
func (c *Cache) published(key string, version uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.core.Published(key, version)
}

// Confirm makes version known to the whole domain before a STRONG reader returns
// it (C12): it may be of a commit whose writer has not published yet, and then a
// later STRONG reader elsewhere could still find the value before it. It returns
// when the event is acknowledged and applied here, at once when one was before.
func (c *Cache) Confirm(ctx context.Context, key string, version uint64) error {
	if version == 0 || c.published(key, version) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	_, err := c.publish(ctx, bus.NamespaceOf(key), bus.Event{Keys: []bus.KeyVersion{{Key: key, Version: version}}})
	return err
}
