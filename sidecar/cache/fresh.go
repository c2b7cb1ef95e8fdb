package cache

import (
	"time"

	"github.com/nearside-cache/nearside/sidecar/policy"
)

// State is how far a namespace can be trusted (C6).
type State string

// States of a namespace.
const (
	Live    State = "live"    // fresh-as-of is within the bound, and pulses come
	Suspect State = "suspect" // the bound holds still, but there is no news
	Bypass  State = "bypass"  // the bound is broken: reads miss, fills are not kept
)

// suspectAfter is how long there may be no news: more than a pulser's step-in
// takes.
const suspectAfter = time.Second

// refresh raises fresh-as-of, after what it covers was applied, and reports whether it
// rose. It is safe for concurrent use.
func (c *Cache) refresh(t time.Duration) (rose bool) {
	for now := c.fresh.Load(); int64(t) > now; now = c.fresh.Load() {
		if c.fresh.CompareAndSwap(now, int64(t)) {
			return true
		}
	}
	return false
}

// Fresh is the moment of Now up to which this sidecar provably has applied
// everything that was published anywhere in the domain; 0 at first.
func (c *Cache) Fresh() time.Duration { return time.Duration(c.fresh.Load()) }

// Never is the age of a sidecar that has had no proof of freshness since it started:
// -1 where ages are told in milliseconds.
const Never = -time.Millisecond

// FreshAge is how long before now Fresh is, or Never.
func (c *Cache) FreshAge(now time.Duration) time.Duration { return ageOf(c.Fresh(), now) }

func ageOf(fresh, now time.Duration) time.Duration {
	if fresh == 0 {
		return Never // and not the time since the machine's start, where its clock began
	}
	return max(0, now-fresh)
}

// State tells how a namespace with policy p stands at now.
func (c *Cache) State(p *policy.Namespace, now time.Duration) State {
	switch age := now - c.Fresh(); {
	case age > p.Bound():
		return Bypass
	case age > suspectAfter:
		return Suspect
	}
	return Live
}
