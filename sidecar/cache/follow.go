package cache

import (
	"context"
	"time"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/coherence"
)

// Follow attaches the cache to its bus until ctx ends.
func (c *Cache) Follow(ctx context.Context) error {
	return c.bus.Follow(ctx, c, bus.FollowConfig{Window: c.Policies().Window, History: c.Policies().History(), Earlier: c.Earlier, Clock: c.now})
}

// Judging is what a later life of this sidecar must know to judge plain SETs. It
// is what the former life left until this one has found the stream.
func (c *Cache) Judging() coherence.Judging {
	c.mu.Lock()
	defer c.mu.Unlock()
	if j := c.core.Judging(c.Policies().ReplicaLag()); j.Epoch != (bus.Epoch{}) {
		return j
	}
	return c.earlier
}

// Earlier is what a start must know of what was before it.
func (c *Cache) Earlier() bus.Earlier {
	j := c.Judging()
	return bus.Earlier{Epoch: j.Epoch, Seq: j.Seq, Blind: max(0, j.BlindUntil-c.now())}
}

// Apply implements bus.Handler.
func (c *Cache) Apply(d bus.Delivery) { c.ApplyAll([]bus.Delivery{d}) }

// ApplyAll implements bus.BatchHandler: one lock, and one word to those who wait, for
// all of them. INVARIANT: what is reported as applied, and then as fresh, is so to all
// who read without the lock.
func (c *Cache) ApplyAll(ds []bus.Delivery) {
	gone := c.applyAll(ds)
	c.waiters.wake(c.isReached)
	c.refreshes(gone)
	at, events := time.Now(), 0
	for i := range ds {
		d := &ds[i]
		if d.Err != nil {
			c.malformed(d)
		}
		if d.Event.Op != bus.OpPulse {
			events++
			c.metrics.applied(d, at)
		}
	}
	if events > 0 {
		c.tail.send(ds, at)
	}
}

// applyAll returns the keys that a REFRESH dropped.
func (c *Cache) applyAll(ds []bus.Delivery) (gone []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Read once, after all of them were published; what else reads the clock reads it
	// under the lock, and later.
	now, fresh := c.now(), time.Duration(0)
	for i := range ds {
		d := &ds[i]
		linked := c.isLinked(d)
		gone = append(gone, c.collect(isRefresh(d), func() { c.core.Apply(*d, now) })...)
		if d.Event.Op == bus.OpUpdate {
			if !linked {
				c.storeAbsent(d)
			}
			now = c.now() // storing has told the core of a later moment
		}
		c.voidRights(d)
		fresh = max(fresh, d.Fresh)
	}
	c.advance(func() {
		for i := range ds {
			c.tellEvent(&ds[i])
		}
	})
	if c.refresh(fresh); fresh > 0 {
		c.tellFresh()
	}
	return gone
}

func (c *Cache) malformed(d *bus.Delivery) {
	c.metrics.Malformed.Inc()
	c.log.Warn("event cannot be decoded: what it may have named is flushed",
		"position", d.Position.String(), "namespace", d.Namespace, "error", c.Policies().ShownError(d.Namespace, d.Err))
}

// Doubt implements bus.Handler.
func (c *Cache) Doubt(r bus.Reason) {
	c.mu.Lock()
	c.core.Doubt(c.now())
	c.horizon.Store(c.core.Horizon())
	c.tell(Change{Cause: ByDoubt, All: true})
	c.rights.Doubt()
	c.mu.Unlock()
	c.metrics.doubt(r)
	c.log.Warn("continuity cannot be proven: everything is flushed", "reason", r)
}

// Resume implements bus.Handler.
func (c *Cache) Resume(r bus.Resume) {
	c.mu.Lock()
	now := c.now()
	c.core.Resume(r, now)
	blind := c.core.Blind(now)
	if former := c.Applied().Epoch.Created; former != 0 && former != r.Position.Epoch.Created {
		c.formers.add(former)
	}
	c.advance(func() { c.tell(Change{Cause: ByDoubt, All: true}) })
	c.refresh(r.Fresh)
	c.tellFresh()
	c.mu.Unlock()
	c.waiters.wake(c.isReached)
	c.log.Info("following the stream", "position", r.Position.String(), "history", len(r.History), "blind", blind)
	select {
	case <-c.ready:
		c.Rewarm(c.Hottest(recoverTop)) // after a doubt
	default:
		close(c.ready)
	}
}

// advance publishes what the core has come to, under mu. tell is called when it has
// taken effect and is not reported yet.
func (c *Cache) advance(tell func()) {
	if h := c.core.Horizon(); h != c.horizon.Load() {
		c.horizon.Store(h)
	}
	tell()
	p := c.core.Applied()
	c.applied.Store(&p)
}
