package cache

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// Observer is told what makes wrong what readers were answered and keep themselves
// (L0), and how far it has been told. Its methods are called under the cache's lock,
// one at a time: they must not block and must not call the Cache.
//
// INVARIANT: Changed is called after the change: who reads then finds it. And it is
// called before the change is reported to anybody: before the position of its event is
// applied, before what it covers is fresh, before its write is answered.
type Observer interface {
	Changed(c Change)
	// Fresh says that Changed was told all that was published anywhere before asOf, a
	// moment of Now, and all events up to applied.
	Fresh(asOf time.Duration, applied bus.Position)
}

// Change is what may be other than it was. It may name several things. Slices are not
// the observer's to keep.
type Change struct {
	Cause     Cause
	Key       string           // one, and
	Keys      []bus.KeyVersion // more
	Prefix    string           // up to a ':'
	Namespace string
	Linked    bool // all that hangs on tags or on other keys; a Prefix and a Namespace imply it
	All       bool
}

// Cause is why something changed, for people.
type Cause uint8

// Causes of changes.
const (
	ByEvent  Cause = iota + 1
	ByWrite        // of a client, whose event is to come (C8)
	Replaced       // another value, or another TTL, was stored
	ByDoubt
	ByPolicy
)

// maxObservers bounds what an event costs: each of them is asked of each key.
const maxObservers = 256

// ErrTooManyObservers says that as many observe as may.
var ErrTooManyObservers = errors.New("cache: too many observers")

// Observe has o told of every change from now on, until Unobserve. It fails with
// ErrTooManyObservers.
func (c *Cache) Observe(o Observer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.observers) >= maxObservers {
		return fmt.Errorf("%w: %d", ErrTooManyObservers, maxObservers)
	}
	c.observers = append(c.observers, o)
	return nil
}

// Unobserve ends it: once it has returned, o is not called any more.
func (c *Cache) Unobserve(o Observer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.observers = slices.DeleteFunc(c.observers, func(x Observer) bool { return x == o })
}

// tell is called under mu, after a change.
//
// INVARIANT (O2, C5): an entry hangs on the namespace and on the prefixes of every key
// that it depends on, wherever it is itself: a purge of either may have made it stale.
func (c *Cache) tell(ch Change) {
	ch.Linked = ch.Linked || ch.Prefix != "" || ch.Namespace != ""
	for _, o := range c.observers {
		o.Changed(ch)
	}
}

// tellFresh is called under mu, after fresh was raised.
func (c *Cache) tellFresh() {
	fresh, applied := c.Fresh(), c.Applied()
	for _, o := range c.observers {
		o.Fresh(fresh, applied)
	}
}

// tellEvent is called under mu when d has taken effect. Of those that were applied
// together each is told after all of them.
func (c *Cache) tellEvent(d *bus.Delivery) {
	switch {
	case len(c.observers) == 0:
	case d.Event.Op == bus.OpFork, (d.Err != nil || d.Event.Op == bus.OpFlush) && d.Namespace == "":
		c.tell(Change{Cause: ByEvent, All: true})
	case d.Err != nil, d.Event.Op == bus.OpFlush:
		c.tell(Change{Cause: ByEvent, Namespace: d.Namespace})
	case d.Event.Op != bus.OpPulse:
		c.tellWrite(ByEvent, d.Event.Keys, d.Event.Tags, d.Event.Prefix)
	}
}

// tellWrite is called under mu when an event or an own write of keys, tags and a
// prefix has taken effect.
func (c *Cache) tellWrite(cause Cause, keys []bus.KeyVersion, tags []string, prefix string) {
	if len(c.observers) == 0 {
		return
	}
	ch := Change{Cause: cause, Keys: keys, Linked: len(tags) > 0}
	if prefix != "" { // as the core purges it (C5)
		ch.Prefix = prefix[:strings.LastIndexByte(prefix, ':')+1]
		ch.All = ch.Prefix == ""
	}
	horizon := c.horizon.Load()
	for _, kv := range keys {
		ch.Linked = ch.Linked || horizon.DependedOn(kv.Key)
	}
	c.tell(ch)
}
