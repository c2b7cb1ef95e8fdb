package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
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
	byNamespace := make(map[string][]bus.KeyVersion)
	var r Receipt
	now := c.now()
	c.mu.Lock()
	for _, kv := range keys {
		if c.core.OwnWrite(kv.Key, now) {
			r.Alive++
		}
		ns := bus.NamespaceOf(kv.Key)
		byNamespace[ns] = append(byNamespace[ns], bus.KeyVersion{Key: strings.Clone(kv.Key), Version: kv.Version})
	}
	c.mu.Unlock()

	positions := make([]bus.Position, len(byNamespace))
	var g errgroup.Group
	i := 0
	for ns, kvs := range byNamespace {
		at := &positions[i]
		i++
		g.Go(func() (err error) {
			*at, err = c.publish(ctx, strings.Clone(ns), bus.Event{Keys: kvs})
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
