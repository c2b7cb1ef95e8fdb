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
func (c *Cache) Apply(d bus.Delivery) {
	c.mu.Lock()
	linked := c.isLinked(d.Event)
	gone := c.collect(isRefresh(d), func() { c.core.Apply(d, c.now()) })
	if !linked {
		c.storeAbsent(d)
	}
	c.advance(func() { c.tellEvent(d) })
	c.voidRights(d)
	if c.refresh(d.Fresh); d.Fresh > 0 {
		c.tellFresh()
	}
	c.mu.Unlock()
	c.waiters.wake(c.isReached)
	c.refreshes(gone)
	if d.Err != nil {
		c.metrics.Malformed.Inc()
		c.log.Warn("event cannot be decoded: what it may have named is flushed",
			"position", d.Position.String(), "namespace", d.Namespace, "error", c.Policies().ShownError(d.Namespace, d.Err))
	}
	if d.Event.Op == bus.OpPulse {
		return
	}
	at := time.Now()
	c.metrics.applied(d, at)
	c.tail.send(Applied{Delivery: d, At: at})
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
