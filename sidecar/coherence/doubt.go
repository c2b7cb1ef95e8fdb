package coherence

import (
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// Doubt flushes everything in O(1), because the events so far no longer prove
// anything (C7): entries and leases of the former incarnation are dead. Fences
// stay, and outstanding misses stay on record, so that their readers' SETs are
// not taken for somebody else's.
func (c *Core) Doubt(now time.Duration) {
	c.step(now)
	c.ready = false
	c.newIncarnation(c.applied.Epoch)
}

// Resume continues at r.Position, which the flush of the start or of the doubt
// covers (C9). The events of the last window are read back into the fences, so
// that a plain SET is judged from the first moment (C3).
func (c *Core) Resume(r bus.Resume, now time.Duration) {
	c.step(now)
	c.newIncarnation(r.Position.Epoch)
	h := *c.horizon
	h.era++
	h.gens = newGenerations(c.cfg.GenerationSlots) // seqs of another epoch are not compared
	c.horizon = &h
	c.past.rebase(r.HistoryFrom)
	c.trail = trail{max: c.trail.max}
	for _, d := range r.History {
		c.Apply(d, now)
	}
	c.applied = r.Position
	c.past.rebase(r.HistoryFrom)
	c.knownFrom = -never
	if r.Blind > 0 {
		c.knownFrom = now + r.Blind - c.cfg.Window
	}
	if c.first { // no reader is older than this moment, but what it reads may lag behind
		c.birth, c.knownFrom = now, min(c.knownFrom, now-1)
	}
	c.first = false
	c.heard = heard{}
	c.marks.resume(r, now)
	if c.phantomUntil == never {
		c.phantomUntil = now + c.cfg.Window
	}
	c.ready = true
}

// newIncarnation voids all entries and leases. An epoch never changes without
// it.
func (c *Core) newIncarnation(e bus.Epoch) {
	h := *c.horizon
	h.incarnation++
	c.horizon = &h
	c.applied.Epoch = e
}
