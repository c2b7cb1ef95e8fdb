package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
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
	sources          map[string]int   // restores of a namespace that it knows of
	resets           map[string]int   // those whose RESET it was given
	terms            map[int]term     // of values that may be held
	absences         map[string][]int // of a key: the words of its absence that may be held
	settled          int              // of checker.acks, so many are applied here or exempt

	owes    bool   // it trusts a message that the broker has lost
	from    uint64 // at this seq, or above
	claims  int    // role pulses with which it said that it is fresh all the same
	telling bool   // in doubt for it
	untold  bool   // nobody can tell it any more: see stream.trim

	pulser string // that of the last role pulse traced
}

type place struct {
	key  string
	mark mark
}

func newWatch(p *process) *watch {
	return &watch{
		p: p, has: map[*event]bool{}, known: map[place]int{}, served: map[string]int{},
		sources: map[string]int{}, resets: map[string]int{},
		terms: map[int]term{}, absences: map[string][]int{},
	}
}

// trusts says that what was applied at seq is in the log no more.
func (h *watch) trusts(seq uint64) {
	if h.started && !h.owes {
		h.p.w.trace("%v: trusts what is lost, from seq %d", h.p, seq)
		h.owes, h.untold, h.from, h.claims = true, false, seq, 0
	}
}

// learn raises what entries here must be of.
func (h *watch) learn(e *event, writes []write) {
	if e.restored > 0 {
		h.sources[e.source] = max(h.sources[e.source], e.restored)
	}
	for _, x := range writes {
		if h.understands(x) {
			at := place{x.key, x.mark}
			h.known[at] = max(h.known[at], x.n)
		}
	}
}

// given notes that the cache is given e: of a RESET that a flush covers it may not
// hear, and keeps its fences.
func (h *watch) given(e *event) {
	if e.restored > 0 {
		h.resets[e.source] = max(h.resets[e.source], e.restored)
	}
}

// understands reports whether h knows of the restores that x's version counts
// from. Before the RESET is applied, and for ever if the broker loses it, a lower
// version means an older value.
func (h *watch) understands(x write) bool {
	return !x.versioned || x.life <= h.sources[bus.NamespaceOf(x.key)]
}

// term is until when a value may be held, and until when it is as good as new; each at
// the latest, by the slot's clock.
type term struct{ until, soft time.Duration }

// stored notes that a value may be put here now.
func (h *watch) stored(key string, id int, ttl cache.TTL) {
	h.keeps(key, id, h.term(key, id, ttl, 0))
}

func (h *watch) keeps(key string, id int, l term) {
	if h.p.w.contents[id].absent && !slices.Contains(h.absences[key], id) {
		h.absences[key] = append(h.absences[key], id)
	}
	l.until, l.soft = max(l.until, h.terms[id].until), max(l.soft, h.terms[id].soft)
	h.terms[id] = l
}

// extended notes that the entry of key, whichever it is, has another TTL now.
func (h *watch) extended(key string, ttl cache.TTL) {
	for id, l := range h.terms {
		if c := h.p.w.contents[id]; c.key == key && !c.absent {
			l.until = h.until(key, ttl)
			h.terms[id] = l
		}
	}
}

// term is that of a value stored now, or a longer one.
func (h *watch) term(key string, id int, ttl cache.TTL, soft time.Duration) term {
	n, now := policies.OfKey(key), h.p.cache.Now()
	if h.p.w.contents[id].absent {
		return term{now + n.NegativeTTL, never}
	}
	l := term{h.until(key, ttl), never}
	if soft == 0 {
		soft = n.SoftTTL
	}
	if soft > 0 && now+soft < l.until {
		l.soft = now + soft
	}
	if ttl.Keep {
		for other, x := range h.terms {
			if h.p.w.contents[other].key == key {
				l.soft = max(l.soft, x.soft)
			}
		}
	}
	return l
}

// until is when an entry stored now expires, or later.
func (h *watch) until(key string, ttl cache.TTL) time.Duration {
	n := policies.OfKey(key)
	d := n.TTL
	if n.AdaptiveTTL.Max > 0 {
		d = max(d, n.AdaptiveTTL.Max)
	}
	if ttl.Asked {
		d = ttl.For
	}
	if n.MaxTTL > 0 && (d == 0 || d > n.MaxTTL) {
		d = n.MaxTTL
	}
	at := never
	if d > 0 {
		at = h.p.cache.Now() + d
	}
	if ttl.Keep {
		for id, l := range h.terms {
			if h.p.w.contents[id].key == key {
				at = max(at, l.until)
			}
		}
	}
	return at
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
func (h *watch) Apply(d bus.Delivery) { h.ApplyAll([]bus.Delivery{d}) }

// ApplyAll implements bus.BatchHandler.
func (h *watch) ApplyAll(ds []bus.Delivery) {
	for _, d := range ds {
		h.applies(d)
	}
	h.p.cache.ApplyAll(ds)
	for _, d := range ds {
		h.took(d)
	}
}

// applies is told what the cache is about to apply.
func (h *watch) applies(d bus.Delivery) {
	w, seq := h.p.w, d.Position.Seq
	if !h.started || seq != h.applied+1 {
		w.check.fail("I7", "%v applied seq %d after %d, started %t", h.p, seq, h.applied, h.started)
	}
	h.applied = seq
	e := h.identify(d)
	if e != nil {
		w.trace("%v: applies seq %d, %s", h.p, seq, e.what)
		h.has[e] = true
		h.learn(e, e.writes)
		h.given(e)
		if e.update != 0 {
			h.stored(w.contents[e.update].key, e.update, cache.TTL{For: d.Event.TTL, Asked: d.Event.TTL > 0})
		}
	}
	if d.Event.Op == bus.OpFork {
		h.flushed, h.owes = seq, false
	}
}

// took is told what the cache has applied.
func (h *watch) took(d bus.Delivery) {
	if d.Event.Op != bus.OpPulse {
		h.p.w.check.audit(h.p)
		return
	}
	h.tracePulse(d)
	h.claim(d)
	h.p.w.check.fresh(h, d.Fresh)
}

// tracePulse leaves out the pulses by which nothing changes.
func (h *watch) tracePulse(d bus.Delivery) {
	p := d.Event.Pulse
	quiet := d.Fresh != 0 && p.Process == h.pulser && !h.owes
	if !h.p.w.tracing || !p.Role || quiet {
		return
	}
	h.pulser = p.Process
	fresh := "says nothing of freshness"
	if d.Fresh != 0 {
		fresh = fmt.Sprintf("fresh as of %.4fs", h.p.slot.true(d.Fresh).Seconds())
	}
	h.p.w.trace("%v: applies seq %d, role pulse of %s, window %d to %d, %s",
		h.p, d.Position.Seq, p.Process, p.Window.From, p.Window.To, fresh)
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
	if w.stream.wrote[position{h.life, seq}] != id {
		h.trusts(seq)
		h.untold = h.untold || seq < w.stream.first()
	}
	return w.byID[id]
}

// claim counts the role pulses by which h, though it trusts what is lost, says
// that it is fresh.
func (h *watch) claim(d bus.Delivery) {
	p := d.Event.Pulse
	if !h.owes || h.untold || !p.Role || d.Fresh == 0 || p.Process == h.p.id {
		return
	}
	if p.Window.To < h.from {
		return // its publisher has read back no more: the replicas lagged (B3a)
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
	w.trace("%v: resumes at seq %d, fork %d, blind %v", h.p, seq, r.Position.Epoch.Fork, r.Blind)
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
			h.learn(e, byFlush(e.writes))
		}
	}
	for _, d := range r.History {
		if e := w.byID[d.Event.ID]; e != nil {
			h.given(e)
		}
	}
	h.p.cache.Resume(r)
	w.check.fresh(h, r.Fresh)
	w.check.audit(h.p)
}

// ends is how far two clocks may disagree on a span, and a rounding.
func ends(d time.Duration) time.Duration { return d/2000 + 10*time.Microsecond }
