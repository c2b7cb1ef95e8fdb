package coherence

import (
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// LeaseAt returns the lease of a load that another sidecar began when it had applied
// the seq loaded, as if it had been given here (C2). good is the position up to which
// no event has made the value stale: that of loaded or a later one of its epoch, by
// the word of whoever could tell. The lease is void where the events since are not
// all known here, or where the load may have begun before an own purge whose event is
// not applied here; it has a tick that had come here before the load began.
//
// That sidecar had applied every pulse up to loaded. A pulse that is fresh as of a
// moment of ours was published after it (B5), so everything that had happened here by
// that moment happened before the load.
func (c *Core) LeaseAt(good bus.Position, loaded uint64) Lease {
	if !c.ready || good.Epoch != c.applied.Epoch || good.Seq < c.since {
		return Lease{}
	}
	tick := c.heard.tick(loaded)
	if tick < c.own.newest() { // C8
		return Lease{}
	}
	return Lease{Incarnation: c.horizon.incarnation, Position: good, Tick: tick}
}

// heard remembers which ticks certainly came before which pulses were published.
type heard struct {
	list []heardPulse // oldest first; seqs and ticks rise
	at   time.Duration
}

type heardPulse struct{ seq, tick uint64 }

const (
	// heardEvery spares memory: a load that began less than so long after the last
	// change of its key here may be refused for it.
	heardEvery = time.Second
	// heardMax times heardEvery is how long ago a load may have begun; one that began
	// earlier gets tick 0.
	heardMax = 1024
)

// note keeps that the pulse at seq was published after tick, at now.
func (h *heard) note(seq, tick uint64, now time.Duration) {
	if len(h.list) > 0 && now-h.at < heardEvery {
		return
	}
	h.at = now
	if len(h.list) == 2*heardMax {
		h.list = append(h.list[:0], h.list[heardMax:]...)
	}
	h.list = append(h.list, heardPulse{seq, tick})
}

// tick returns a tick that came before the pulses up to seq were published.
func (h *heard) tick(seq uint64) uint64 {
	lo, hi := 0, len(h.list)
	for lo < hi {
		if mid := (lo + hi) / 2; h.list[mid].seq <= seq {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return 0
	}
	return h.list[lo-1].tick
}

// Newest returns the newest version of the key that is known here, 0 for none: a
// load should not bring less.
func (c *Core) Newest(key string) uint64 {
	if f := c.fences.get(c.cfg.Hash(key)); f.tick >= c.horizon.reset(key) {
		return f.version
	}
	return 0
}
