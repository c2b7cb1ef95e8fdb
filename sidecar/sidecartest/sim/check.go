package sim

import (
	"fmt"
	"time"

	"github.com/nearside-cache/nearside/sidecar/cache"
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
	strong    []strongRead
	counts    Counts
}

// Counts tells what runs did, so that a reader sees that they did it.
type Counts struct {
	Hits, Misses, Stored, Rejected, Strong, AtLeast, Acked, Doubts, Forks int
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

// reading is a read of a process's cache that was answered with a value.
type reading struct {
	at     time.Duration // of the call
	bound  time.Duration // negative: none
	strong bool
	token  *token
}

// hit holds an answer against every invariant that is of reads.
func (c *checker) hit(p *process, key string, value []byte, r reading) (n int) {
	of, n, m, err := parse(value)
	if err != nil || of != key || n > c.w.origin.newest(key) {
		c.fail("I10", "%v answered %q for %s", p, value, key)
		return n
	}
	h := p.watch
	if known := h.known[place{key, plain}]; n < known {
		c.fail("I1", "%v answered commit %d of %s after applying an event of commit %d", p, n, key, known)
	}
	if known := h.known[place{key, m}]; m != plain && n < known {
		c.fail("I11", "%v answered commit %d of %s, which hangs on %q, after applying an event of commit %d", p, n, key, m, known)
	}
	if n < h.served[key] {
		c.fail("I2", "%v answered commit %d of %s after commit %d", p, n, key, h.served[key])
	}
	h.served[key] = n
	if r.bound >= 0 {
		c.bound(h, key, n, m, r)
	}
	if t := r.token; t != nil && n < t.n && (t.event == nil || !h.excused(t.event)) {
		c.fail("I4", "%v answered commit %d of %s for a token of commit %d", p, n, key, t.n)
	}
	if r.strong {
		c.linear(key, n, r.at)
	}
	return n
}

// bound is I5, and for a bound of 0 the part of I6 that is of acknowledged writes.
func (c *checker) bound(h *watch, key string, n int, m mark, r reading) {
	limit := r.at - r.bound
	if r.bound > 0 {
		limit -= ends(r.bound)
	}
	invariant := "I5"
	if r.strong {
		invariant = "I6"
	}
	for _, e := range c.acks {
		if e.ackedAt >= limit {
			return
		}
		for _, x := range e.writes {
			if x.key == key && x.n > n && (x.mark == plain || x.mark == m) && !h.excused(e) {
				c.fail(invariant, "%v answered commit %d of %s at %v with a bound of %v: commit %d was acknowledged at %v (seq %d)",
					h.p, n, key, r.at, r.bound, x.n, e.ackedAt, e.seq)
			}
		}
	}
}

// linear is I6 for versioned keys: no STRONG read goes back behind one that was
// over before it began. What only lost events tell of is excused.
func (c *checker) linear(key string, n int, began time.Duration) {
	if !versioned(key) {
		return
	}
	for _, s := range c.strong {
		if s.key == key && s.done < began && s.n > n && c.stands(key, s.n) {
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

// audit reads all that p would answer now.
func (c *checker) audit(p *process) {
	for _, key := range keys {
		if value, ok := p.cache.Read(key, nil, p.cache.Now()); ok {
			c.hit(p, key, value, reading{at: c.w.now, bound: policies.OfKey(key).Bound()})
		}
	}
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
		case h.owes:
			c.fail("I9", "%v has not noticed that seq %d was lost", p, h.from)
		case age > 2*time.Second:
			c.fail("I3", "%v is %v behind", p, age)
		}
		c.audit(p)
		c.sizes(p)
		for _, key := range keys {
			value, ok := p.cache.Read(key, nil, p.cache.Now())
			if !ok {
				continue
			}
			if _, n, m, err := parse(value); err == nil && n < c.owed(key, m) {
				c.fail("I3", "%v holds commit %d of %s, the source commit %d", p, n, key, c.w.origin.newest(key))
			}
		}
	}
}

// owed is the newest commit that a sidecar can know of: one whose event was lost
// before any live sidecar could tell, it cannot.
func (c *checker) owed(key string, m mark) (n int) {
	for _, e := range c.w.events {
		for _, x := range e.writes {
			if (e.stored || e.told) && x.key == key && (x.mark == plain || x.mark == m) {
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
	event *event // of a write; nil: of a read of a versioned key
}
