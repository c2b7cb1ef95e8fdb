package demo

import (
	"fmt"
	"sync"

	"github.com/nearside-cache/nearside/bus"
)

// oracle decides, exactly, which reads were stale: those for which a sidecar
// served a value older than the newest version whose invalidation it had applied
// when the GET was sent.
//
// It is exact because of three orders. A publisher's version is taken from the
// origin before the event is handed to the stream, so an event's position stands
// for a version that was committed before. The position is the one that the
// stream acknowledged for that very event: not an answer to DEL, which says only
// that the sidecar has come at least so far. And a reader asks a sidecar what it
// has applied before it sends the GET, so whatever that position covers was
// published before the read began. What such a read must not miss may still
// await its acknowledgement here, though the sidecar has applied it: reads of a
// key are judged when none of its events is on its way.
//
// It is safe for concurrent use.
type oracle struct {
	keys map[string]*history // fixed

	mu    sync.Mutex
	stale uint64
	first *verdict // the first stale read
}

// history is what was published about one key.
type history struct {
	mu       sync.Mutex
	onTheWay int    // events handed to the stream, not yet acknowledged
	events   []mark // by position
	waiting  []read // to be judged when nothing is on its way
}

// mark is an acknowledged invalidation. INVARIANT: version is the newest of all
// events up to this one, so that the last mark that is covered decides.
type mark struct {
	position bus.Position
	version  uint64
}

// read is one value that a sidecar served.
type read struct {
	pod     string
	key     string
	version uint64
	applied bus.Position // by the sidecar, before the GET was sent
}

// verdict is a stale read with the version that it should have had at least.
type verdict struct {
	read
	required uint64
}

// String says what was served and what had to be.
func (v verdict) String() string {
	return fmt.Sprintf("%s served version %d of %s though it had applied the invalidation of version %d (applied %v)",
		v.pod, v.version, v.key, v.required, v.applied)
}

func newOracle(o *origin) *oracle {
	or := &oracle{keys: make(map[string]*history, len(o.rows))}
	for _, r := range o.rows {
		or.keys[r.key] = &history{}
	}
	return or
}

// publishing is told before an event that names key is handed to the stream.
func (o *oracle) publishing(key string) {
	if h := o.keys[key]; h != nil {
		h.mu.Lock()
		h.onTheWay++
		h.mu.Unlock()
	}
}

// published is told when the stream has acknowledged it at p; a zero p says that
// it has not. version is what was committed before it was handed over.
func (o *oracle) published(key string, version uint64, p bus.Position) {
	h := o.keys[key]
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !p.IsZero() {
		h.insert(mark{p, version})
	}
	if h.onTheWay--; h.onTheWay > 0 {
		return
	}
	for _, r := range h.waiting {
		o.judge(h, r)
	}
	h.waiting = nil
}

// insert keeps the marks in order, whatever the order of acknowledgements.
func (h *history) insert(m mark) {
	h.events = append(h.events, m)
	i := len(h.events) - 1
	for ; i > 0 && h.events[i-1].position.Covers(m.position); i-- {
		h.events[i], h.events[i-1] = h.events[i-1], h.events[i]
	}
	for i = max(i, 1); i < len(h.events); i++ {
		h.events[i].version = max(h.events[i].version, h.events[i-1].version)
	}
}

// required returns the newest version that an invalidation at or below p made
// known; 0 when there is none.
func (h *history) required(p bus.Position) uint64 {
	for i := len(h.events) - 1; i >= 0; i-- {
		if p.Covers(h.events[i].position) {
			return h.events[i].version
		}
	}
	return 0
}

// served is told of every value that a sidecar served.
func (o *oracle) served(r read) {
	h := o.keys[r.key]
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.onTheWay > 0 {
		h.waiting = append(h.waiting, r)
		return
	}
	o.judge(h, r)
}

// judge is called under h's lock.
func (o *oracle) judge(h *history, r read) {
	required := h.required(r.applied)
	if r.version >= required {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stale++
	if o.first == nil {
		o.first = &verdict{r, required}
	}
}

// outdated reports whether a value of the key was committed over by something
// that a sidecar at p has applied the invalidation of. Events that await their
// acknowledgement are not known yet, so it may say no too often, never yes.
func (o *oracle) outdated(key string, version uint64, p bus.Position) bool {
	h := o.keys[key]
	h.mu.Lock()
	defer h.mu.Unlock()
	return version < h.required(p)
}

// staleReads returns how many there were, and the first of them.
func (o *oracle) staleReads() (uint64, *verdict) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stale, o.first
}
