package coherence

import (
	"math"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// Stamp is what an entry carries to be judged by.
type Stamp struct {
	Version     uint64 // the source's, 0 = none
	Seq         uint64 // the entry's position: its lease's seq, never later
	Tick        uint64 // of the store
	Incarnation uint64 // it was stored under
	Hangs       Hangs  // what it hangs on besides its namespace and prefixes
}

// Lease is handed out with a miss, before the load begins, and presented with
// the fill: what was known when the reader found nothing.
type Lease struct {
	Incarnation uint64 // 0: void from the start
	Position    bus.Position
	Tick        uint64
}

// Lease returns a lease for a load that begins now. lag is how far the source
// that will be read may lag behind its primary; the lease is back-dated by it,
// because the load may see what an event applied since then replaced.
func (c *Core) Lease(now, lag time.Duration) Lease {
	if lag <= 0 {
		return c.lease(c.moment())
	}
	return c.leaseAt(now - lag)
}

// leaseAt returns the lease that would have been given at the moment t, or an
// older one; one that is void when nobody knows what happened since t.
func (c *Core) leaseAt(t time.Duration) Lease {
	if t <= c.knownFrom {
		return Lease{}
	}
	return c.lease(c.past.at(t, c.moment()))
}

// Futile says why no value loaded under l, which was just given, would be stored
// whatever its version; Stored if that cannot be known before.
func (c *Core) Futile(key string, l Lease) Verdict {
	return c.judge(Fill{Key: key, Lease: l, Version: math.MaxUint64})
}

func (c *Core) moment() moment { return moment{seq: c.applied.Seq, tick: c.tick} }

func (c *Core) lease(m moment) Lease {
	return Lease{
		Incarnation: c.horizon.incarnation,
		Position:    bus.Position{Epoch: c.applied.Epoch, Seq: m.seq},
		Tick:        m.tick,
	}
}
