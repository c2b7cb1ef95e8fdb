package demo

import (
	"context"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// tap stands between a sidecar and its bus and tells the oracle and the flights
// what passes: the ordinary DEL of a Redis client answers no position, and a
// sidecar is not asked when it has applied an event, it is watched.
type tap struct {
	bus.Bus
	origin  *origin
	oracle  *oracle
	flights *flights
}

// Publish implements bus.Bus. It is the only way into the stream: the embedded
// server has no port.
func (t tap) Publish(ctx context.Context, namespace string, e bus.Event) (bus.Position, error) {
	versions := make([]uint64, len(e.Keys))
	var committed time.Time
	for i, kv := range e.Keys {
		t.oracle.publishing(kv.Key)
		if r := t.origin.byKey[kv.Key]; r != nil {
			var at time.Time
			if versions[i], at = r.tell(); !at.IsZero() {
				committed = at
			}
		}
	}
	p, err := t.Bus.Publish(ctx, namespace, e)
	if err != nil {
		p = bus.Position{} // it may appear or not: nothing is required of it
	}
	for i, kv := range e.Keys {
		t.oracle.published(kv.Key, versions[i], p)
	}
	if err == nil && len(e.Keys) > 0 {
		t.flights.published(p.Seq, committed)
	}
	return p, err
}

// Follow implements bus.Bus.
func (t tap) Follow(ctx context.Context, h bus.Handler, c bus.FollowConfig) error {
	return t.Bus.Follow(ctx, watched{h, t.flights}, c)
}

// watched is a Handler whose applying is noted.
type watched struct {
	bus.Handler
	flights *flights
}

// Apply implements bus.Handler.
func (w watched) Apply(d bus.Delivery) {
	w.Handler.Apply(d)
	if len(d.Event.Keys) > 0 {
		w.flights.applied(d.Position.Seq, time.Now())
	}
}
