package coherence

import (
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// Elsewhere is what a load made by another sidecar is judged by.
type Elsewhere struct {
	// Good is the position up to which no event has made the value stale: that of
	// Loaded or a later one of its epoch, by the word of whoever could tell.
	Good bus.Position
	// Digest is that of the message at Good. It tells whether the events up to Good
	// are those that were applied here: the stream may have lost some since, and have
	// given their seqs to others.
	Digest uint64
	// Loaded is what that sidecar had applied when it began to load.
	Loaded uint64
}

// Digest returns the digest of the message applied at seq, if it is remembered.
func (c *Core) Digest(seq uint64) (digest uint64, known bool) { return c.trail.at(seq) }

// LeaseAt returns the lease of a load of key that another sidecar made, as if it had
// been given here (C2). There is none where the events since are not all known here,
// or are not those that l speaks of; and it is void where the load may have begun
// before an own purge whose event is not applied here. It has a tick that had come
// here before the load began, by either of two proofs:
//
// That sidecar had applied every pulse up to l.Loaded. A pulse that is fresh as of a
// moment of ours was published after it (B5), so everything that had happened here by
// that moment happened before the load. And an own write of the key happened before
// its event was published.
func (c *Core) LeaseAt(key string, l Elsewhere) (Lease, Verdict) {
	digest, known := c.trail.at(l.Good.Seq)
	switch {
	case !c.ready:
		return Lease{}, NotReady
	case l.Good.Epoch != c.applied.Epoch:
		return Lease{}, OtherIncarnation
	case l.Good.Seq > c.applied.Seq:
		return Lease{}, Ahead
	case !known:
		return Lease{}, Blind
	case digest != l.Digest:
		return Lease{}, OtherLog
	}
	tick := c.heard.tick(l.Loaded)
	if f := c.fences.get(c.cfg.Hash(key)); f.writtenBy(l.Loaded, c.horizon.era) {
		tick = max(tick, f.voided)
	}
	if tick < c.own.newest() { // C8
		return Lease{}, Voided
	}
	return Lease{Incarnation: c.horizon.incarnation, Position: l.Good, Tick: tick}, Stored
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
	if n := len(h.list); n > 0 { // it was published after the one before, too
		tick = max(tick, h.list[n-1].tick)
	}
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
