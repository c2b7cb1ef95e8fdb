package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nearside-cache/nearside/bus"
)

// Receipt is what an acknowledged invalidation returns.
type Receipt struct {
	// Position is the newest one acknowledged; as a token it makes any sidecar
	// of the domain wait for this write.
	Position bus.Position
	// Alive is how many of the keys had an entry here that could be served.
	Alive int
}

// Invalidate publishes that the keys changed (C8). The entries here go at once,
// also when publishing fails. It returns when the stream has acknowledged and
// this sidecar has applied the events, or a flush covers them; or with an error
// that wraps bus.ErrNotAcknowledged, after which the event may still appear. keys
// are not kept.
func (c *Cache) Invalidate(ctx context.Context, keys []bus.KeyVersion) (Receipt, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	r := Receipt{Alive: c.ownWrites(keys)}
	batches := batch(keys)
	positions := make([]bus.Position, len(batches))
	var g errgroup.Group
	g.SetLimit(publishesAtOnce)
	for i, b := range batches {
		g.Go(func() (err error) {
			positions[i], err = c.publish(ctx, bus.NamespaceOf(b[0].Key), bus.Event{Keys: b})
			return err
		})
	}
	err := g.Wait()
	for _, p := range positions {
		if p.Covers(r.Position) {
			r.Position = p
		}
	}
	return r, err
}

// ownWrites drops the keys' entries and voids their leases (C8). It returns how
// many of the entries could be served.
func (c *Cache) ownWrites(keys []bus.KeyVersion) (alive int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	for _, kv := range keys {
		if _, ok := c.Peek(kv.Key, now); ok {
			alive++
		}
		c.core.OwnWrite(kv.Key, now)
	}
	return alive
}

// Bounds of one invalidation's events, well below those of bus.Event.
const (
	batchKeys       = 4096
	batchBytes      = 256 << 10
	publishesAtOnce = 16
)

// batch splits keys into those of one event each: of one namespace, and no more
// than an event may hold.
func batch(keys []bus.KeyVersion) [][]bus.KeyVersion {
	type open struct{ index, bytes int }
	var batches [][]bus.KeyVersion
	last := make(map[string]open) // the batch of a namespace that has room
	for _, kv := range keys {
		ns := bus.NamespaceOf(kv.Key)
		o, ok := last[ns]
		if !ok || o.bytes+len(kv.Key) > batchBytes || len(batches[o.index]) == batchKeys {
			o = open{index: len(batches)}
			batches = append(batches, nil)
		}
		o.bytes += len(kv.Key)
		last[ns] = o
		batches[o.index] = append(batches[o.index], kv)
	}
	return batches
}

// Flush publishes that everything in the namespace changed, or in the domain
// when namespace is empty. It returns as Invalidate does.
func (c *Cache) Flush(ctx context.Context, namespace string) (Receipt, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	c.mu.Lock()
	c.core.OwnFlush(c.now())
	c.horizon.Store(c.core.Horizon())
	c.mu.Unlock()
	p, err := c.publish(ctx, namespace, bus.Event{Op: bus.OpFlush})
	return Receipt{Position: p}, err
}

// publish returns when the event is acknowledged and applied here.
func (c *Cache) publish(ctx context.Context, namespace string, e bus.Event) (bus.Position, error) {
	e.Time = time.Now()
	c.metrics.Publishes.Inc()
	p, err := c.bus.Publish(ctx, namespace, e)
	if err != nil {
		c.metrics.PublishErrors.Inc()
		return bus.Position{}, err
	}
	if err := c.Await(ctx, p); err != nil {
		return p, fmt.Errorf("acknowledged at %v but not applied here: %w", p, err)
	}
	// A fork or a re-creation may have come between the acknowledgement and here:
	// a token of too old an epoch would be satisfied too early.
	p.Epoch = c.Applied().Epoch
	return p, nil
}

// ErrTimeout says that a position was not reached in time.
var ErrTimeout = errors.New("cache: position not reached in time")

// Await returns when everything up to p is applied here or covered by a flush.
func (c *Cache) Await(ctx context.Context, p bus.Position) error {
	reached := c.waiters.add(p, c.Applied)
	select {
	case <-reached:
		return nil
	case <-ctx.Done():
		c.waiters.remove(reached)
		return fmt.Errorf("%w: applied up to %v: %w", ErrTimeout, c.Applied(), context.Cause(ctx))
	}
}
