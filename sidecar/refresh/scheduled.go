package refresh

import (
	"context"
	"math"
	"time"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/clock"
	"github.com/nearside-cache/nearside/sidecar/hot"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// Scheduled queues the keys that policies have loaded anew in every period: those
// that they name, and those that are read most.
//
// In the first period, which begins with Run, or when the policy's period changes,
// keys are due within the policy's jitter window: what is named is warm soon after a
// start. In later ones they are spread over the whole period, each at its own moment
// in it, so that the origin never sees them together. What is named has a higher
// priority than anything that is merely hot.
type Scheduled struct {
	Queue *Queue
	// Policies returns the policies in force.
	Policies func() *policy.Set
	// Hottest returns the keys that are read most, of all namespaces, the hottest
	// first.
	Hottest func() []hot.Key
	// Clock is the Queue's.
	Clock clock.Clock
	// Seed is the sidecar's own: pods that start together part by it.
	Seed uint64
}

// look is how often policies are looked at: a period is exact to it.
const look = time.Second

// period is where a policy is in its periods.
type period struct {
	every time.Duration
	next  time.Duration // moment when the next one begins
}

// Run queues what is due until ctx ends. It is called once at a time.
func (s Scheduled) Run(ctx context.Context) {
	periods := make(map[string]period)
	tick := time.NewTicker(look)
	defer tick.Stop()
	for ctx.Err() == nil {
		s.look(periods)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// look begins the periods that are due, and forgets those of policies without one.
func (s Scheduled) look(periods map[string]period) {
	set, now := s.Policies(), s.Clock()
	for name := range periods {
		if _, own := set.Namespaces[name]; !own && name != ofDefaults {
			delete(periods, name)
		}
	}
	s.begin(set, ofDefaults, set.Default.Refresh, periods, now)
	for name, n := range set.Namespaces {
		s.begin(set, name, n.Refresh, periods, now)
	}
}

// ofDefaults stands for all namespaces without a policy of their own.
const ofDefaults = ""

// begin queues the keys of one policy if one of its periods begins.
func (s Scheduled) begin(set *policy.Set, name string, r policy.Refresh, periods map[string]period, now time.Duration) {
	if r.Every <= 0 {
		delete(periods, name)
		return
	}
	p, spread := periods[name], r.Every
	switch {
	case p.every != r.Every:
		p, spread = period{every: r.Every, next: now}, min(r.WithDefaults().Window, r.Every)
	case now < p.next:
		return
	}
	p.next += r.Every
	if p.next <= now { // the machine was suspended
		p.next = now + r.Every
	}
	periods[name] = p
	for _, key := range r.Keys {
		s.Queue.Add(key, now+Spread(key, s.Seed, spread), math.Inf(1))
	}
	s.beginTop(set, name, r.Top, now, spread)
}

// beginTop queues the top keys of one policy.
func (s Scheduled) beginTop(set *policy.Set, name string, top int, now, spread time.Duration) {
	if top == 0 {
		return
	}
	for _, k := range s.Hottest() {
		if policyOf(set, k.Key) != name {
			continue
		}
		s.Queue.Add(k.Key, now+Spread(k.Key, s.Seed, spread), k.Rate)
		if top--; top == 0 {
			return
		}
	}
}

// policyOf returns the name of the policy of a key.
func policyOf(set *policy.Set, key string) string {
	name := bus.NamespaceOf(key)
	if _, own := set.Namespaces[name]; own {
		return name
	}
	return ofDefaults
}
