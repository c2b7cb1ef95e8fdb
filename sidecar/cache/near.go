package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/localstore"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// Mode is how fresh a read must be.
type Mode struct {
	Kind     ModeKind
	MaxStale time.Duration // for MaxStale
	AtLeast  Token         // for AtLeast
}

// ModeKind names a mode of reading.
type ModeKind uint8

// Modes of reading.
const (
	Class    ModeKind = iota // as the class of the key's namespace says
	Any                      // anything within its TTL
	MaxStale                 // no staler than a duration
	AtLeast                  // at least as new as a token
	Strong                   // reflects every write acknowledged before the read began
)

// Outcome says what a read found. Its text is the answer's first field.
type Outcome string

// Outcomes of reads.
const (
	Hit      Outcome = "HIT"
	Stale    Outcome = "STALE"    // past its soft TTL; no event has made it stale
	Negative Outcome = "NEGATIVE" // the source had no value
	Regular  Outcome = "REGULAR"  // a STRONG hit without a version: sees all acknowledged writes, no more (C12)
	Miss     Outcome = "MISS"
	Behind   Outcome = "BEHIND" // the token's position is not applied here yet
	Bypassed Outcome = "BYPASS" // freshness cannot be proven
)

// Answer is what a read rests on.
type Answer struct {
	Status  Outcome
	Version uint64        // the source's, 0 = none
	Token   Token         // makes any sidecar answer no older value of this key
	Age     time.Duration // since the moment up to which everything is applied here, or Never
	Lease   Lease         // with a MISS only
	// AsOf is Age as a moment of Now.
	AsOf time.Duration
	Keep Keep // whether and for how long a reader may keep the answer for itself
}

// Keep says what a reader that keeps an answer (L0) must know of it, besides what
// observers are told.
type Keep struct {
	Allowed bool
	Until   time.Duration // from this moment of Now on it must ask again; 0 = never
	Bound   time.Duration // how stale a plain read may be; 0: it is STRONG
	Linked  bool          // the answer hangs on tags or on other keys
}

// Near reads under a mode without waiting: what the mode asks for must hold, or
// the status says that it does not, and Catch makes it hold. caught says that it
// was called for this read. The value is appended to dst.
//
// Everything that the mode rests on is read before the entry (I4, I5, I6): the
// entry then reflects it.
//
// failed says that a load of the key has just failed for this reader.
func (c *Cache) Near(key string, m Mode, caught, failed bool, dst []byte) ([]byte, Answer) {
	return c.NearAt(key, m, c.now(), caught, failed, dst)
}

// NearAt is Near for a caller that has read Now after its client asked.
func (c *Cache) NearAt(key string, m Mode, now time.Duration, caught, failed bool, dst []byte) ([]byte, Answer) {
	m = c.mode(key, m)
	p := c.Policies().OfKey(key)
	if !p.Enforces() {
		return dst, c.withheld(key, p, m)
	}
	fresh, applied := c.Fresh(), c.Applied()
	a := Answer{Age: ageOf(fresh, now), AsOf: fresh, Token: Token{Position: applied}}
	switch {
	case m.Kind == MaxStale && now-fresh > m.MaxStale, m.Kind == Strong && !caught:
		a.Status = Bypassed
		return dst, a
	case m.Kind == AtLeast && !c.reached(applied, m.AtLeast.Position):
		a.Status = Behind
		return dst, a
	}
	val, meta, ok := c.store.AppendTo(dst, key) // meta.Hangs is good until val is written to
	found, keep := Nothing, Keep{}
	if ok {
		found, keep = c.find(key, meta, p, now, m.patience(p), failed), keepOf(meta, p)
	}
	if found != Nothing {
		if val, ok = c.unpack(val, len(dst), meta); !ok {
			found = Nothing
		}
	}
	// A versioned token is kept by the version (C13).
	if found == Nothing || m.Kind == AtLeast && meta.Version < m.AtLeast.Version {
		a.Status = Miss
		a.Lease = c.Lease(key, m.Kind == Strong)
		return dst, a
	}
	if m.Kind == Strong && meta.Version != 0 && !c.published(key, meta.Version) {
		a.Status = Bypassed // filled since it was caught: its version may not be known elsewhere
		return dst, a
	}
	c.noteRead(key, p, now)
	a.Status, a.Version, a.Token.Version, a.Keep = Hit, meta.Version, meta.Version, keep
	switch {
	case found == Absence:
		c.metrics.NegativeHits.Inc()
		a.Status = Negative
		return dst, a
	case found == Old:
		c.metrics.StaleHits.Inc()
		a.Status, a.Keep.Allowed = Stale, false
	case m.Kind == Strong && meta.Version == 0:
		a.Status = Regular
	}
	c.metrics.Hits.Inc()
	return val, a
}

// keepOf says how an entry that was answered may be kept: past its soft TTL, or once it
// should be loaded anew, the reader asks again.
func keepOf(m localstore.Meta, p *policy.Namespace) Keep {
	k := Keep{Allowed: !coherence.Hangs(m.Hangs).OnEverything(), Linked: len(m.Hangs) > 0, Until: m.Expires}
	for _, t := range []time.Duration{m.Extra.Soft, m.Extra.Renew} {
		if t != 0 && (k.Until == 0 || t < k.Until) {
			k.Until = t
		}
	}
	if !p.Critical() {
		k.Bound = p.Bound()
	}
	return k
}

// patience is how far past its soft TTL a value may be for the mode.
func (m Mode) patience(p *policy.Namespace) time.Duration {
	switch m.Kind {
	case Strong:
		return none
	case MaxStale:
		return m.MaxStale
	case Any:
		return unbounded
	}
	return p.Bound()
}

// mode resolves what the class of the key's namespace asks for.
func (c *Cache) mode(key string, m Mode) Mode {
	if m.Kind != Class {
		return m
	}
	p := c.Policies().OfKey(key)
	if p.Critical() {
		return Mode{Kind: Strong}
	}
	return Mode{Kind: MaxStale, MaxStale: p.Bound()}
}

// Catch waits until what the mode asks for holds here, or ctx ends. For a STRONG
// read of keys, which must call it after it began, it also makes the versions that
// will be found known everywhere (C12).
func (c *Cache) Catch(ctx context.Context, m Mode, keys ...string) error {
	if len(keys) > 0 {
		m = c.mode(keys[0], m)
	}
	began := c.now()
	switch m.Kind {
	case AtLeast:
		return c.awaitToken(ctx, m.AtLeast.Position, began)
	case MaxStale, Strong:
		if _, err := c.barrier(ctx, began); err != nil {
			return err
		}
	}
	if m.Kind != Strong {
		return nil
	}
	for _, key := range keys {
		meta, ok := c.store.Head(key)
		if !ok || !c.servable(key, meta, began) { // the reading that follows looks again
			continue
		}
		if err := c.Confirm(ctx, key, meta.Version); err != nil {
			return err
		}
	}
	return nil
}

// awaitToken waits until what holds at a token's position holds here. Of a token of
// another stream, a pulse that is acknowledged in ours after the token was given out
// proves that the other one is over: one of a stream made since would have been
// acknowledged there.
func (c *Cache) awaitToken(ctx context.Context, token bus.Position, began time.Duration) error {
	if created := token.Epoch.Created; c.Applied().Epoch.Created != created && !c.reached(c.Applied(), token) {
		p, err := c.barrier(ctx, began)
		if err != nil {
			return err
		}
		if p.Epoch.Created != created {
			c.formers.add(created)
		}
	}
	return c.Await(ctx, token)
}

// Barrier returns when everything published anywhere in the domain before the
// call is applied here (B6).
func (c *Cache) Barrier(ctx context.Context) (bus.Position, error) { return c.barrier(ctx, c.now()) }

// barrier is Barrier for a call that began at a moment of Now.
func (c *Cache) barrier(ctx context.Context, began time.Duration) (bus.Position, error) {
	p, err := c.bus.Barrier(ctx)
	if err != nil {
		return bus.Position{}, fmt.Errorf("barrier: %w", err)
	}
	if err := c.Await(ctx, p); err != nil {
		return p, err
	}
	if c.refresh(began) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.tellFresh()
	}
	return p, nil
}
