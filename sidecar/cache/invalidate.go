package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// Receipt is what an acknowledged invalidation returns.
type Receipt struct {
	// Position is the newest one acknowledged; as a token it makes any sidecar
	// of the domain wait for this write.
	Position bus.Position
	// Alive is how many of the keys had an entry here that could be served.
	Alive int
}

// Write is what a client says has changed.
type Write struct {
	Keys    []bus.KeyVersion
	Tags    []string
	Prefix  string
	Refresh bool      // reload what is hot instead of only dropping it
	Time    time.Time // when it changed, by the writer's clock; zero: now
	ID      string    // for deduplication; empty: none
	// Update brings the value of the only key.
	Update bool
	Value  []byte
	TTL    time.Duration
}

// Invalidate publishes what changed (C8). The entries here go at once, also when
// publishing fails. It returns when the stream has acknowledged and this sidecar
// has applied the events, or a flush covers them; or with an error that wraps
// bus.ErrNotAcknowledged, after which the events may still appear. Nothing of w
// is kept.
func (c *Cache) Invalidate(ctx context.Context, w Write) (Receipt, error) {
	ctx, cancel := context.WithTimeout(ctx, c.patienceOf(w))
	defer cancel()
	own := c.ownWrites(w)
	r := Receipt{Alive: own.alive}
	events := w.events()
	positions := make([]bus.Position, len(events))
	var g errgroup.Group
	g.SetLimit(publishesAtOnce)
	for i, e := range events {
		g.Go(func() (err error) {
			positions[i], err = c.publish(ctx, namespaceOf(e), e)
			return err
		})
	}
	err := g.Wait()
	if err != nil { // no event voids the rights, or not yet
		c.voidWrite(w.Keys, w.Prefix)
	} else {
		c.settled(own.purge)
	}
	if w.ID == "" { // else its event may be one that was published before
		c.ownWritten(own.writes, events, positions)
		if err == nil && w.Update {
			c.endUpdate(events[0], own.update)
		}
	}
	c.refreshes(own.gone) // not sooner: its own event would void the load
	for _, p := range positions {
		if p.Covers(r.Position) {
			r.Position = p
		}
	}
	return r, err
}

// patienceOf is how long a write is published. A value that may be kept where none is
// must not come later than a window after its commit (ADR 0012).
func (c *Cache) patienceOf(w Write) time.Duration {
	p := c.Policies()
	if w.Update && p.OfKey(w.Keys[0].Key).Update.Store == policy.StoreAlways {
		return min(c.timeout, p.Window)
	}
	return c.timeout
}

// events splits w into events of one namespace each, no larger than they may be.
// What is not of keys goes with the first.
func (w Write) events() []bus.Event {
	var events []bus.Event
	for _, keys := range batch(w.Keys) {
		events = append(events, bus.Event{Keys: keys})
	}
	if len(events) == 0 {
		events = []bus.Event{{}}
	}
	events[0].Tags, events[0].Prefix = w.Tags, w.Prefix
	for i := range events {
		e := &events[i]
		e.Time = w.Time
		switch {
		case w.Update:
			e.Op, e.Value, e.TTL = bus.OpUpdate, w.Value, w.TTL
		case w.Refresh:
			e.Op = bus.OpRefresh
		}
		if w.ID != "" {
			e.ID = w.ID
			if i > 0 {
				e.ID = fmt.Sprintf("%s/%d", w.ID, i)
			}
		}
	}
	return events
}

// namespaceOf is where an event is published.
func namespaceOf(e bus.Event) string {
	switch {
	case len(e.Keys) > 0:
		return bus.NamespaceOf(e.Keys[0].Key)
	case e.Prefix != "":
		return bus.NamespaceOf(e.Prefix)
	}
	return bus.DefaultNamespace
}

// ownWrites is what an own invalidation has begun.
type ownWrites struct {
	gone   []string // what a REFRESH has dropped here
	alive  int      // of the keys' entries, how many could be served
	purge  uint64   // what settled is told of, 0 for nothing
	writes map[string]coherence.Write
	update update // where it brings a value
}

// ownWrites drops the keys' entries and voids their leases (C8).
func (c *Cache) ownWrites(w Write) ownWrites {
	own := ownWrites{writes: make(map[string]coherence.Write, len(w.Keys))}
	c.mu.Lock()
	own.gone = c.collect(w.Refresh, func() {
		now := c.now()
		for _, kv := range w.Keys {
			if _, ok := c.servableInfo(kv.Key, now, false); ok {
				own.alive++
			}
			if w.Update {
				own.update = c.beginUpdate(kv.Key, now)
			}
			own.update.write, _ = c.core.OwnWrite(kv.Key, now)
			own.writes[kv.Key] = own.update.write
		}
		if len(w.Tags) > 0 || w.Prefix != "" {
			own.purge = c.core.OwnPurge(w.Tags, w.Prefix, now)
		}
	})
	c.tellWrite(ByWrite, w.Keys, w.Tags, w.Prefix)
	c.mu.Unlock()
	return own
}

// ownWritten is told which events have been applied here, and where; zero: not.
func (c *Cache) ownWritten(writes map[string]coherence.Write, events []bus.Event, at []bus.Position) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, e := range events {
		for _, kv := range e.Keys {
			if !at[i].IsZero() {
				c.core.OwnWritten(writes[kv.Key], at[i].Seq)
			}
		}
	}
}

// settled is told that the events of an own purge are applied here.
func (c *Cache) settled(purge uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.core.Settled(purge)
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
	purge := c.core.OwnFlush(namespace, c.now())
	c.horizon.Store(c.core.Horizon())
	c.tell(Change{Cause: ByWrite, Namespace: namespace, All: namespace == ""})
	c.mu.Unlock()
	p, err := c.publish(ctx, namespace, bus.Event{Op: bus.OpFlush})
	if err != nil {
		c.voidRights(&bus.Delivery{Namespace: namespace, Event: bus.Event{Op: bus.OpFlush}})
	} else {
		c.settled(purge)
	}
	return Receipt{Position: p}, err
}

// publish returns when the event is acknowledged and applied here.
func (c *Cache) publish(ctx context.Context, namespace string, e bus.Event) (bus.Position, error) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
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
	reached := c.waiters.add(p, c.isReached)
	if reached == already {
		return nil // also when ctx has ended
	}
	select {
	case <-reached:
		return nil
	case <-ctx.Done():
		c.waiters.remove(reached)
		return fmt.Errorf("%w: applied up to %v: %w", ErrTimeout, c.Applied(), context.Cause(ctx))
	}
}
