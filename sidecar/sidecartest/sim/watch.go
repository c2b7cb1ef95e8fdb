package sim

import (
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// watch stands between a process's follower and its cache, passes everything on,
// and knows what the world knows: what the process must have taken into account.
type watch struct {
	p *process

	started          bool
	life             int    // of the stream followed
	applied, flushed uint64 // everything up to flushed is covered by a flush
	has              map[*event]bool
	known            map[place]int // newest commit among the events applied
	served           map[string]int
	settled          int // of checker.acks, so many are applied here or exempt

	owes    bool   // it trusts a message that the broker has lost
	from    uint64 // at this seq, or above
	claims  int    // role pulses with which it said that it is fresh all the same
	telling bool   // in doubt for it
}

type place struct {
	key  string
	mark mark
}

func newWatch(p *process) *watch {
	return &watch{p: p, has: map[*event]bool{}, known: map[place]int{}, served: map[string]int{}}
}

// trusts says that what was applied at seq is in the log no more.
func (h *watch) trusts(seq uint64) {
	if h.started && !h.owes {
		h.p.w.trace("%v: trusts what is lost, from seq %d", h.p, seq)
		h.owes, h.from, h.claims = true, seq, 0
	}
}

// learn raises what entries here must be of.
func (h *watch) learn(e *event) {
	for _, x := range e.writes {
		at := place{x.key, x.mark}
		h.known[at] = max(h.known[at], x.n)
	}
}

// covers reports whether an event was applied here or is covered by a flush.
func (h *watch) covers(e *event) bool {
	return h.has[e] || e.stored && (e.life < h.life || e.life == h.life && e.seq <= h.flushed)
}

// excused reports whether h cannot know of e: the broker has lost it, or stored it
// where h still trusts what was lost.
func (h *watch) excused(e *event) bool {
	return !h.has[e] && (e.lost || h.owes && e.life == h.life && e.seq <= h.applied)
}

// Apply implements bus.Handler.
func (h *watch) Apply(d bus.Delivery) {
	w, seq := h.p.w, d.Position.Seq
	if !h.started || seq != h.applied+1 {
		w.check.fail("I7", "%v applied seq %d after %d, started %t", h.p, seq, h.applied, h.started)
	}
	h.applied = seq
	e := h.identify(d)
	if e != nil {
		w.trace("%v: applies seq %d, %s", h.p, seq, e.what)
		h.has[e] = true
		h.learn(e)
	}
	if d.Event.Op == bus.OpFork {
		h.flushed, h.owes = seq, false
	}
	h.p.cache.Apply(d)
	if d.Event.Op != bus.OpPulse {
		w.check.audit(h.p)
		return
	}
	if x := d.Event.Pulse; x.Role {
		w.trace("%v: applies seq %d, role pulse of %s, window %d to %d, fresh as of %v", h.p, seq, x.Process, x.Window.From, x.Window.To, h.p.slot.true(d.Fresh))
	}
	h.claim(d)
	w.check.fresh(h, d.Fresh)
}

// identify finds the event that d is of, and notes when it is not, or no more,
// what the log holds.
func (h *watch) identify(d bus.Delivery) *event {
	w, seq, id := h.p.w, d.Position.Seq, d.Event.ID
	if d.Err != nil { // it does not say what it is
		for _, e := range w.events {
			if e.garbled && e.seq == seq && e.life == h.life {
				id = e.id
			}
		}
	}
	if h.life == w.stream.life {
		if at, ok := w.stream.ids[id]; !ok || at != seq { // ids outlive a trim
			h.trusts(seq)
		}
	}
	return w.byID[id]
}

// claim counts the role pulses by which h, though it trusts what is lost, says
// that it is fresh.
func (h *watch) claim(d bus.Delivery) {
	p := d.Event.Pulse
	if !h.owes || !p.Role || d.Fresh == 0 || p.Window == (bus.Window{}) || p.Process == h.p.id {
		return
	}
	if m, ok := h.p.w.stream.at(d.Position.Seq); !ok || m.MsgID != d.Event.ID {
		return // lost too
	}
	if h.claims++; h.claims > 1 {
		h.p.w.check.fail("I9", "%v applied %d role pulses and trusts still what was lost at seq %d", h.p, h.claims, h.from)
	}
}

// Doubt implements bus.Handler.
func (h *watch) Doubt(r bus.Reason) {
	h.p.w.trace("%v: doubt, %v", h.p, r)
	h.p.w.check.counts.Doubts++
	h.started = false
	h.telling = h.owes && (r == bus.ReasonForked || r == bus.ReasonRolledBack)
	h.owes = false
	h.p.cache.Doubt(r)
	h.p.w.check.audit(h.p)
}

// Resume implements bus.Handler.
func (h *watch) Resume(r bus.Resume) {
	w, seq := h.p.w, r.Position.Seq
	w.trace("%v: resumes at seq %d, blind %v", h.p, seq, r.Blind)
	life := w.check.lives[r.Position.Epoch.Created]
	if h.telling && life == h.life {
		for _, e := range w.events {
			e.told = e.told || e.lost && h.has[e]
		}
	}
	h.telling, h.started, h.life = false, true, life
	h.applied, h.flushed = seq, seq
	if life == w.stream.life && seq > w.stream.last {
		h.trusts(seq)
	}
	for _, e := range w.events {
		if h.covers(e) {
			h.learn(e)
		}
	}
	h.p.cache.Resume(r)
	w.check.fresh(h, r.Fresh)
	w.check.audit(h.p)
}

// ends is how far two clocks may disagree on a span, and a rounding.
func ends(d time.Duration) time.Duration { return d/2000 + 10*time.Microsecond }
