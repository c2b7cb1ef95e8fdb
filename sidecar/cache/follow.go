package cache

import (
	"context"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// Follow attaches the cache to its bus until ctx ends. firstLife and earlier are
// as in bus.FollowConfig.
func (c *Cache) Follow(ctx context.Context, firstLife bool, earlier bus.Earlier) error {
	return c.bus.Follow(ctx, c, bus.FollowConfig{
		Window: c.Policies().Window, FirstLife: firstLife, Earlier: earlier, Clock: c.now,
	})
}

// Judging is what a later life of this sidecar must know to judge plain SETs
// from its first moment (ADR 0002).
type Judging struct {
	Created    int64         // creation time of the stream followed; 0 = none yet
	BlindUntil time.Duration // the moment of Now up to which SETs cannot be judged
}

// Judging tells how plain SETs are judged since the last Resume.
func (c *Cache) Judging() Judging { return *c.judging.Load() }

// Apply implements bus.Handler.
func (c *Cache) Apply(d bus.Delivery) {
	c.mu.Lock()
	c.core.Apply(d, c.now())
	c.advance()
	c.refresh(d.Fresh)
	c.mu.Unlock()
	c.waiters.wake(d.Position)
	if d.Err != nil {
		c.metrics.Malformed.Inc()
		c.log.Warn("event cannot be decoded: what it may have named is flushed",
			"position", d.Position.String(), "namespace", d.Namespace, "error", d.Err)
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
	c.mu.Unlock()
	c.metrics.doubt(r)
	c.log.Warn("continuity cannot be proven: everything is flushed", "reason", r)
}

// Resume implements bus.Handler.
func (c *Cache) Resume(r bus.Resume) {
	c.mu.Lock()
	now := c.now()
	c.core.Resume(r, now)
	c.advance()
	c.refresh(r.Fresh)
	c.mu.Unlock()
	c.judging.Store(&Judging{Created: r.Position.Epoch.Created, BlindUntil: now + r.Blind})
	c.waiters.wake(r.Position)
	c.log.Info("following the stream", "position", r.Position.String(), "history", len(r.History), "blind", r.Blind)
	select {
	case <-c.ready:
	default:
		close(c.ready)
	}
}

// advance publishes what the core has come to, under mu.
func (c *Cache) advance() {
	if h := c.core.Horizon(); h != c.horizon.Load() {
		c.horizon.Store(h)
	}
	p := c.core.Applied()
	c.applied.Store(&p)
}
