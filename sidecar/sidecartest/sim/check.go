package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/loader"
)

// Violation is a broken invariant of the design.
type Violation struct {
	Invariant string
	Message   string
}

// checker holds what happens against the invariants, as it happens.
type checker struct {
	w         *world
	violation *Violation
	lives     map[int64]int // the stream's, by its creation time
	acks      []*event      // by the moment of acknowledgement
	acksOf    map[string][]ack
	strong    []strongRead
	counts    Counts
}

// ack is a write that its publisher knows to be stored.
type ack struct {
	write
	event *event
	at    time.Duration
}

// Counts tells what runs did, so that a reader sees that they did it.
type Counts struct {
	Hits, Misses, Stored, Rejected, Strong, AtLeast, Acked, Doubts, Forks int

	Derived, Updated, Barriers, Restores int // values made of others stored; hits on values of updates

	Loads, Confirmed, Shared, Vouched int // answers of the origin, of which 304; reads of the shared tier
	Old, Absent                       int // answers past their soft TTL; that there is no value
}

// Add adds the counts of another run.
func (c *Counts) Add(o Counts) {
	c.Hits += o.Hits
	c.Misses += o.Misses
	c.Stored += o.Stored
	c.Rejected += o.Rejected
	c.Strong += o.Strong
	c.AtLeast += o.AtLeast
	c.Acked += o.Acked
	c.Doubts += o.Doubts
	c.Forks += o.Forks
	c.Derived += o.Derived
	c.Updated += o.Updated
	c.Barriers += o.Barriers
	c.Restores += o.Restores
	c.Loads += o.Loads
	c.Confirmed += o.Confirmed
	c.Shared += o.Shared
	c.Vouched += o.Vouched
	c.Old += o.Old
	c.Absent += o.Absent
}

// strongRead is what a STRONG read of a versioned key returned.
type strongRead struct {
	key  string
	n    int
	done time.Duration
}

func (c *checker) fail(invariant, format string, args ...any) {
	if c.violation == nil && !c.w.over {
		c.violation = &Violation{Invariant: invariant, Message: fmt.Sprintf(format, args...)}
		c.w.trace("VIOLATION of %s: %s", invariant, c.violation.Message)
	}
}

// acked takes note that the publisher of e knows that it is stored.
func (c *checker) acked(e *event) {
	e = c.w.byID[e.id] // lost, it may have been stored again
	if !e.acked {
		e.acked, e.ackedAt = true, c.w.now
		c.acks = append(c.acks, e)
		for _, x := range e.writes {
			c.acksOf[x.key] = append(c.acksOf[x.key], ack{x, e, c.w.now})
		}
		c.counts.Acked++
		c.w.trace("acknowledged: %s", e.what)
	}
}

// fresh holds a claim of being fresh against everything acknowledged before that
// moment (B5, I5, I7).
func (c *checker) fresh(h *watch, claim time.Duration) {
	if claim == 0 {
		return
	}
	t := h.p.slot.true(claim) - 10*time.Microsecond
	for ; h.settled < len(c.acks) && c.acks[h.settled].ackedAt <= t; h.settled++ {
		if e := c.acks[h.settled]; !h.covers(e) && !h.excused(e) {
			c.fail("I5", "%v claims to be fresh as of %v, but has not applied seq %d (%s), acknowledged at %v",
				h.p, t, e.seq, e.what, e.ackedAt)
			return
		}
	}
}

// reading is a read of a process's cache that was answered with a value or an absence.
type reading struct {
	at     time.Duration // of the call
	bound  time.Duration // negative: none
	strong bool
	token  *token

	looked time.Duration // when it last looked at the entry, or before
	failed bool          // a load has failed for it
	old    bool          // its answer said that the value is past its soft TTL
}

// hit holds a value that was answered against every invariant that is of reads, and
// returns its number.
func (c *checker) hit(p *process, key string, value []byte, r reading) (id int) {
	id, ok := c.w.contentOf(value)
	if !ok || c.w.contents[id].key != key {
		c.fail("I10", "%v answered %q for %s", p, value, key)
		return 0
	}
	c.answer(p, id, r)
	p.watch.served[key] = c.w.own(id).n
	return id
}

// absence is hit for an answer that there is no value (I12). It does not say since
// when: it is taken for the newest of those that may be held here, of that version
// unless it is unknown.
func (c *checker) absence(p *process, key string, version uint64, known bool, r reading) (best int) {
	h := p.watch
	oldest := c.w.origin.newest(key)
	for _, id := range h.absences[key] {
		if x := c.w.contents[id]; known && x.version != version || p.slot.local(r.at) >= h.terms[id].until {
			continue
		}
		n := c.w.own(id).n
		if best == 0 || n >= c.w.own(best).n {
			best = id
		}
		if n >= h.served[key] {
			oldest = min(oldest, n)
		}
	}
	if best == 0 {
		c.fail("I12", "%v answered that there is no %s, which nobody said", p, key)
		return 0
	}
	c.answer(p, best, r)
	h.served[key] = oldest
	return best
}

// answer holds an answer against the invariants.
func (c *checker) answer(p *process, id int, r reading) {
	h, x := p.watch, c.w.contents[id]
	key := x.key
	for i, of := range x.parts {
		if !c.unsettled(h, of) {
			c.part(h, id, i, of, r)
		}
	}
	// Only of its own part: what else it was made of may have been read from the
	// cache once, and from the origin before.
	n := x.parts[0].n
	if before := h.served[key]; n < before && c.w.origin.life(key, before) <= h.sources[bus.NamespaceOf(key)] {
		c.fail("I2", "%v answered commit %d of %s after commit %d", p, n, key, before)
	}
	c.aged(h, id, r)
	if l, known := h.terms[id]; !known || p.slot.local(r.at) >= l.until {
		c.fail("TTL", "%v answered %s, stored here %t, which should have expired", p, c.w.describe(id), known)
	}
	if r.bound >= 0 && !r.strong && p.slot.local(r.at)-p.cache.Fresh() > r.bound {
		c.fail("I8", "%v answered %s with a bound of %v, being fresh as of %v", p, key, r.bound, p.slot.true(p.cache.Fresh()))
	}
	if t := r.token; t != nil && t.since == 0 && n < t.n && c.owes(h, t) && (!x.absent || t.mark != tagged) && !c.unsettled(h, x.parts[0]) {
		c.fail("I4", "%v answered commit %d of %s for a token of commit %d", p, n, key, t.n)
	}
	if r.strong && (x.version != 0 || !x.absent) {
		c.linear(key, n, r.at)
	}
}

// aged holds what is past its soft TTL against what the policy and the reader allow
// (C6): bounded means bounded.
func (c *checker) aged(h *watch, id int, r reading) {
	p := policies.OfKey(c.w.contents[id].key)
	past := h.p.slot.local(max(r.looked, r.at)) - h.terms[id].soft
	if past < 0 {
		return
	}
	limit := p.StaleWhileRevalidate
	if r.failed {
		limit = max(limit, p.StaleIfError)
	}
	if r.bound >= 0 {
		limit = min(limit, r.bound)
	} else if r.token != nil {
		limit = min(limit, p.Bound())
	}
	if !r.old || r.strong || past > limit {
		c.fail("C6", "%v answered %s, %v past its soft TTL, said so %t; allowed are %v", h.p, c.w.describe(id), past, r.old, limit)
	}
}

// unsettled reports whether a part may have come by an update over a value that is
// newer and has a lower version: until it hears of a restore, a sidecar cannot know.
func (c *checker) unsettled(h *watch, of part) bool {
	o := c.w.origin
	return of.update && o.life(of.key, o.newest(of.key)) > h.sources[bus.NamespaceOf(of.key)]
}

// owes reports whether h, having applied t's position, must know what t is of.
func (c *checker) owes(h *watch, t *token) bool {
	if t.event != nil && h.excused(t.event) {
		return false
	}
	return t.life <= h.sources[bus.NamespaceOf(t.key)]
}

// part holds one part of an answer against what is known here (I1, I11), and
// against what was acknowledged in time: to its bound (I5), before a STRONG read
// began (I6), before a barrier whose token it presents (I4).
func (c *checker) part(h *watch, id, i int, of part, r reading) {
	if of.n > c.w.origin.newest(of.key) {
		c.fail("I10", "%v answered commit %d of %s", h.p, of.n, of.key)
	}
	absent := c.w.contents[id].absent
	for m, invariant := range [...]string{plain: "I1", tagged: "I11"} {
		if absent && mark(m) == tagged {
			continue
		}
		if i > 0 {
			invariant = "I11"
		}
		if known := h.known[place{of.key, mark(m)}]; of.n < known {
			c.fail(invariant, "%v answered %s after applying an event of commit %d of %s", h.p, c.w.describe(id), known, of.key)
		}
	}
	switch {
	case r.strong:
		c.acknowledged(h, id, of, "I6", r.at)
	case r.bound >= 0:
		c.acknowledged(h, id, of, "I5", r.at-r.bound-ends(r.bound))
	case r.token != nil && r.token.since != 0:
		c.acknowledged(h, id, of, "I4", r.token.since)
	}
}

// acknowledged holds a part against every write acknowledged before limit.
func (c *checker) acknowledged(h *watch, id int, of part, invariant string, limit time.Duration) {
	for _, a := range c.acksOf[of.key] {
		if a.at >= limit {
			return
		}
		if a.n > of.n && h.understands(a.write) && !h.excused(a.event) && (!c.w.contents[id].absent || a.mark != tagged) {
			c.fail(invariant, "%v answered %s, but had to know of all acknowledged before %v: commit %d of %s was, at %v (seq %d)",
				h.p, c.w.describe(id), limit, a.n, of.key, a.at, a.event.seq)
		}
	}
}

// linear is I6 for versioned keys: no STRONG read goes back behind one that was
// over before it began. What only lost events tell of is excused.
func (c *checker) linear(key string, n int, began time.Duration) {
	if !versioned(key) {
		return
	}
	o := c.w.origin
	for _, s := range c.strong {
		// A restore that nobody was told of yet is no write (see restore).
		if s.key == key && s.done < began && s.n > n && o.life(key, s.n) == o.life(key, n) && c.stands(key, s.n) {
			c.fail("I6", "a STRONG read of %s that began at %v returned commit %d, one that was over at %v commit %d", key, began, n, s.done, s.n)
		}
	}
	c.strong = append(c.strong, strongRead{key, n, c.w.now})
}

// stands reports whether commit n has not been lost again: either nobody told of
// it, which a STRONG read should have done (C12), or the broker still knows.
func (c *checker) stands(key string, n int) bool {
	lost := false
	for _, e := range c.w.events {
		for _, x := range e.writes {
			if x.key == key && x.n >= n {
				if e.stored {
					return true
				}
				lost = lost || e.lost
			}
		}
	}
	return !lost
}

// audit reads all that p would answer now, and holds its claim to be fresh
// against what it has applied.
func (c *checker) audit(p *process) {
	c.fresh(p.watch, p.cache.Fresh())
	for _, key := range keys {
		read := reading{at: c.w.now, bound: policies.OfKey(key).Bound()}
		if policies.OfKey(key).SoftTTL > 0 { // see look
			read.bound = -1
		}
		value, found := p.look(key)
		switch found {
		case cache.Value:
			c.hit(p, key, value, read)
		case cache.Absence:
			c.absence(p, key, 0, false, read)
		}
	}
}

// look reads what p would answer, without making it load anything.
func (p *process) look(key string) ([]byte, cache.Found) {
	if policies.OfKey(key).SoftTTL == 0 {
		return p.cache.Read(key, nil, p.cache.Now())
	}
	value, a := p.cache.Near(key, cache.Mode{Kind: cache.Strong}, true, false, nil)
	switch a.Status {
	case cache.Hit, cache.Regular:
		return value, cache.Value
	case cache.Negative:
		return nil, cache.Absence
	}
	return nil, cache.Nothing
}

// converged is I3, once the faults are over and pulses have come: everybody is
// live, and what is held is what the source has.
func (c *checker) converged() {
	for _, s := range c.w.slots {
		p := s.process
		h := p.watch
		switch age := p.cache.Now() - p.cache.Fresh(); {
		case !h.started:
			c.fail("I3", "%v does not follow the stream", p)
		case h.owes && h.untold:
			continue
		case h.owes:
			c.fail("I9", "%v has not noticed that seq %d was lost", p, h.from)
		case age > 2*time.Second:
			c.fail("I3", "%v is %v behind", p, age)
		}
		c.audit(p)
		c.sizes(p)
		c.storable(p)
		for _, key := range keys {
			value, found := p.look(key)
			if found != cache.Value {
				continue // of an absence, audit has asked as much
			}
			id, _ := c.w.contentOf(value)
			for _, of := range c.w.contents[id].parts {
				if of.n < c.owed(h, of.key) {
					c.fail("I3", "%v holds %s, the source commit %d of %s", p, c.w.describe(id), c.w.origin.newest(of.key), of.key)
				}
			}
		}
	}
}

// storable holds that when all is well a sidecar is of use: what is loaded now is
// stored, whatever came before. Leases for lagging replicas are dated back, behind
// what was stored a moment ago.
func (c *checker) storable(p *process) {
	o := c.w.origin
	for _, key := range keys {
		if policies.OfKey(key).ReplicaLag > 0 {
			continue
		}
		f := cache.FillOptions{Lease: p.cache.Lease(key, false)}
		if n := o.newest(key); versioned(key) {
			if f.Version = o.version(key, n); c.late(p, key) {
				continue
			}
		}
		f.Negative = o.absent(key, o.newest(key))
		id := c.w.value(content{key: key, version: f.Version, parts: []part{{key: key, n: o.newest(key)}}, absent: f.Negative})
		p.watch.stored(key, id, f.TTL)
		if v := p.cache.Fill(key, c.w.contents[id].text, f); v != coherence.Stored {
			c.fail("C2", "%v refuses what was loaded now: %s: %v", p, c.w.describe(id), v)
		}
	}
}

// late reports whether what is loaded of key may be refused although all is well: a
// version from before a restore was told after it, or p has not heard of the RESET.
func (c *checker) late(p *process, key string) bool {
	o := c.w.origin
	return o.late[key] || o.life(key, o.newest(key)) > p.watch.resets[bus.NamespaceOf(key)]
}

// loadable has every sidecar load, when all is well, all that it loads.
func (c *checker) loadable() {
	for _, s := range c.w.slots {
		for _, key := range loaded {
			if policies.OfKey(key).ReplicaLag > 0 || c.late(s.process, key) || s.process.watch.owes {
				continue
			}
			c.w.spawn(func(a *actor) {
				if err := s.process.load(a, key); err != nil && !errors.Is(err, loader.ErrSlow) {
					c.fail("C10", "%v cannot load %s: %v", s.process, key, err)
				}
			})
		}
	}
}

// owed is the newest commit that a sidecar can know of: one whose event was lost
// before any live sidecar could tell, it cannot.
func (c *checker) owed(h *watch, key string) (n int) {
	for _, e := range c.w.events {
		for _, x := range e.writes {
			if (e.stored || e.told) && x.key == key && h.understands(x) {
				n = max(n, x.n)
			}
		}
	}
	return n
}

// sizes is I15, of the tables that events and misses fill.
func (c *checker) sizes(p *process) {
	s := p.cache.Status()
	if s.Fences > memory*8/100/112 || s.Misses > memory*8/100/320 {
		c.fail("I15", "%v keeps %d fences and %d misses", p, s.Fences, s.Misses)
	}
}

// token is what a client holds, to be answered no less elsewhere.
type token struct {
	text  cache.Token
	key   string
	n     int
	mark  mark
	life  int           // restores of the source that n counts from, where its version matters
	event *event        // of a write; nil: of a read of a versioned key
	since time.Duration // of a barrier: when it was called
}
