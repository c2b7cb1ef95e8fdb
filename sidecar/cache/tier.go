package cache

import (
	"context"
	"errors"
	"time"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/l2"
	"github.com/nearside-cache/nearside/sidecar/loader"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// Tiers are the shared tiers of namespaces; nil where one has none.
type Tiers interface {
	Of(namespace string) Tier
}

// Tier is a shared tier; see l2.Tier.
type Tier interface {
	Get(ctx context.Context, key string) (e l2.Entry, found bool, err error)
	Acquire(ctx context.Context, key string, seen l2.Entry) (r Right, held bool, err error)
	Put(key string, e l2.Entry) error
	Vouch(ctx context.Context, key string, e l2.Entry, p bus.Position, digest uint64) error
}

// Right is the right to load a key, or what to wait for; see l2.Right.
type Right interface {
	Wait(ctx context.Context) (e l2.Entry, found bool, err error)
	Release()
	sharer
}

// sharer takes what a load has brought; or takes note that it cannot be shared.
type sharer interface {
	Put(e l2.Entry) error
	Barren()
}

// TiersOf returns the tiers of a set, as a Cache takes them.
func TiersOf(s *l2.Set) Tiers { return tierSet{s} }

type tierSet struct{ set *l2.Set }

func (s tierSet) Of(namespace string) Tier {
	if t := s.set.Of(namespace); t != nil {
		return tier{t}
	}
	return nil
}

type tier struct{ *l2.Tier }

func (t tier) Get(ctx context.Context, key string) (l2.Entry, bool, error) {
	if e, known := t.Recall(key); known {
		return e, true, nil
	}
	return t.Tier.Get(ctx, key)
}

func (t tier) Acquire(ctx context.Context, key string, seen l2.Entry) (Right, bool, error) {
	return t.Tier.Acquire(ctx, key, seen)
}

// maxWaits is for how many others a load waits, for l2.wait together: one that is
// loading, or was quicker, and the next where that one fails.
const maxWaits = 3

// throughTier loads key from the shared tier, and else from the origin, as one of
// those sidecars that may: L1, L2, origin. A tier that gives no answer is passed by at
// once: it costs a reader its timeout once.
func (c *Cache) throughTier(
	ctx context.Context, t Tier, key string, atLeast uint64, wait time.Duration,
) (coherence.Verdict, error) {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	e, found, err := t.Get(ctx, key)
	for waits := 0; err == nil; waits++ {
		if found && e.Version >= atLeast {
			var taken bool
			if e, taken = c.takeShared(ctx, t, key, e); taken {
				return coherence.Stored, nil
			}
		}
		var right Right
		var held bool
		if right, held, err = t.Acquire(ctx, key, e); held {
			defer right.Release()
			return c.loadAndShare(ctx, key, atLeast, right)
		}
		if waits == maxWaits {
			break
		}
		if err == nil {
			e, found, err = right.Wait(waiting)
		}
	}
	return c.loadAndShare(ctx, key, atLeast, alone{t, key})
}

// alone is the right of one who has none.
type alone struct {
	tier Tier
	key  string
}

func (a alone) Put(e l2.Entry) error { return a.tier.Put(a.key, e) }
func (alone) Barren()                {}

// takeShared keeps what another sidecar has loaded, if it may be kept, and reports
// whether it will do. What is past its soft TTL is kept for when the origin fails. What
// is left of e is what whoever loads may leave in its place meanwhile.
func (c *Cache) takeShared(ctx context.Context, t Tier, key string, e l2.Entry) (left l2.Entry, taken bool) {
	p := c.Policies().OfKey(key)
	c.catchUp(ctx, e.Position, p)
	if e.Remaining(time.Now()) <= 0 || len(e.Depends) > 0 {
		return e, false // its life is over, or it is of a version that shares more than this one
	}
	soft := p.SoftTTL
	age := max(0, time.Since(e.Stored))
	old := soft > 0 && age >= soft
	if m, ok := c.store.Head(key); old && ok && c.servable(key, m, c.now()) {
		return e, false // which will do as well until the origin has answered
	}
	v := c.offerShared(t, key, e, age)
	if c.isPast(e, v) {
		e = e.Empty()
	}
	return e, v == coherence.Stored && !old
}

// isPast reports whether an entry is of the past for good: it is from before a flush, of
// a log that was lost, or of the stream before a fork. Its version may keep out those of
// after a RESET.
func (c *Cache) isPast(e l2.Entry, v coherence.Verdict) bool {
	now := c.Applied().Epoch
	return v == coherence.Flushed || v == coherence.OtherLog ||
		e.Position.Epoch.Created == now.Created && e.Position.Epoch.Fork < now.Fork
}

// loadAndShare loads from the origin, and gives what is kept to the shared tier. The
// lease is of now: events may have come while others were waited for. What depends on
// other keys is not shared: what those hang on is known here alone.
func (c *Cache) loadAndShare(ctx context.Context, key string, atLeast uint64, with sharer) (coherence.Verdict, error) {
	o := c.beginOffer(key, atLeast)
	r, v, err := c.fromOrigin(ctx, key, o)
	if r.NotModified {
		r = c.confirmed(key, r, o.held)
	}
	switch {
	case err != nil || v != coherence.Stored && v != coherence.Absent || !o.shareable():
		return v, err
	case r.Version == 0 || r.Negative || r.NotModified || len(r.Depends) > 0:
		with.Barren()
		return v, nil
	}
	err = with.Put(l2.Entry{
		Version: r.Version, Position: o.lease.Position, Digest: o.digest, Loaded: o.lease.Position.Seq, Value: r.Value, ETag: r.ETag, Tags: r.Tags, TTL: r.TTL,
	})
	if err != nil && !errors.Is(err, l2.ErrAway) && !errors.Is(err, l2.ErrClosed) {
		c.metrics.NotShared.Inc()
	}
	return v, nil
}

// confirmed is what was loaded anew where the origin has confirmed what was held. Of
// what hangs on tags their names are not known any more, by which others could judge it.
func (c *Cache) confirmed(key string, r loader.Result, held known) loader.Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	value, m, ok := c.stored(key)
	if ok && m.Version == held.version && m.Extra.ETag == held.etag && len(held.hangs) == 0 {
		r.NotModified, r.Value, r.Version, r.ETag = false, value, m.Version, m.Extra.ETag
	}
	return r
}

// offerShared judges and perhaps keeps what another sidecar has loaded, by rule C2
// under the lease of that load. An entry that is good but old is vouched for, so
// that sidecars that start later may take it.
func (c *Cache) offerShared(t Tier, key string, e l2.Entry, age time.Duration) coherence.Verdict {
	p := c.Policies().OfKey(key)
	c.mu.Lock()
	l, v := c.core.LeaseAt(key, coherence.Elsewhere{Good: e.Position, Digest: e.Digest, Loaded: e.Loaded})
	applied, old := c.core.Applied(), c.core.Judging(0).Seq
	digest, _ := c.core.Digest(applied.Seq)
	c.mu.Unlock()
	if v == coherence.Stored {
		ttl := max(e.Remaining(time.Now()), time.Millisecond)
		if p.TTL > 0 {
			ttl = min(ttl, p.TTL)
		}
		v = c.Offer(key, Lease{Lease: l}, known{}, loader.Result{
			Value: e.Value, Version: e.Version, ETag: e.ETag, Tags: e.Tags, TTL: ttl,
		}, age)
	}
	c.metrics.shared(v)
	if v == coherence.Stored && e.Position.Seq < old { // as of two windows ago, or longer
		c.aside(func(ctx context.Context) error { return t.Vouch(ctx, key, e, applied, digest) })
	}
	return v
}

// catchUp waits for the events that another sidecar had applied when it loaded, for no
// longer than a read may wait for the shared tier.
func (c *Cache) catchUp(ctx context.Context, p bus.Position, n *policy.Namespace) {
	if p.Epoch != c.Applied().Epoch || n.L2 == nil {
		return
	}
	reached := c.waiters.add(p, c.isReached)
	if reached != already && !c.wait(ctx, reached, n.L2.WithDefaults().Timeout) {
		c.waiters.remove(reached)
	}
}

// waitFor is Config.Wait on the real clock.
func waitFor(ctx context.Context, done <-chan struct{}, atMost time.Duration) bool {
	bound := time.NewTimer(atMost)
	defer bound.Stop()
	select {
	case <-done:
		return true
	case <-bound.C:
	case <-ctx.Done():
	}
	return false
}

// aside does in the background what need not succeed. It is called by a load, for
// which close waits.
func (c *Cache) aside(do func(context.Context) error) {
	c.loads.start(func() {
		if err := do(c.loads.ctx); err != nil {
			c.log.Debug("an entry of the shared tier stays as it was", "error", err)
		}
	})
}

// tier is the shared tier of key's namespace, nil where it has none.
func (c *Cache) tier(key string) Tier {
	if c.tiers == nil {
		return nil
	}
	return c.tiers.Of(bus.NamespaceOf(key))
}
