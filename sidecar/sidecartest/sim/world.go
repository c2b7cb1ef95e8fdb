package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"
)

// world is one run: virtual time, who acts in it, and what it has come to. One
// actor runs at a time, so nothing in it needs a lock.
type world struct {
	now    time.Duration // true time; every process has its own view of it
	rng    *rand.Rand
	queue  queue
	actors []*actor
	acting *actor
	parked chan struct{} // the acting one has given way
	over   bool

	stream *stream
	origin *origin
	slots  []*slot
	events []*event // non-pulse messages ever handed to the stream, oldest first
	byID   map[string]*event
	check  *checker
	tokens []token
	bucket *bucket

	originDown, originSlow time.Duration // until then

	opens  int             // writes whose event has not been acknowledged yet
	open   map[string]int  // the same by the event's namespace
	frozen map[string]bool // namespaces that are being restored

	contents []content // of all values ever made, by number; the first is of none

	late    bool // many writes are told late
	calm    bool // the faults are over
	tracing bool
	history []string
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

// within returns a duration in [lo, hi).
func within(r *rand.Rand, lo, hi time.Duration) time.Duration {
	return lo + time.Duration(r.Int64N(int64(hi-lo)))
}

func (w *world) trace(format string, args ...any) {
	if w.tracing {
		w.history = append(w.history, fmt.Sprintf("%10.4fs  ", w.now.Seconds())+fmt.Sprintf(format, args...))
	}
}

// after runs f at a later moment; f must not block.
func (w *world) after(d time.Duration, f func()) {
	heap.Push(&w.queue, item{at: w.now + max(d, 0), tie: w.rng.Uint64(), run: f})
}

// actor is a thread of control in virtual time. It runs on a goroutine, or on
// several that wait for one another; the world lets one actor run at a time.
type actor struct {
	w      *world
	resume chan struct{}
	turn   uint64 // of its newest place in the queue; older ones are void
	idle   bool   // waits for wake too
	done   bool
	event  *event // what its next publish says
}

// spawn starts an actor now.
func (w *world) spawn(f func(*actor)) *actor {
	a := &actor{w: w, resume: make(chan struct{})}
	w.actors = append(w.actors, a)
	go func() {
		<-a.resume
		f(a)
		a.done = true
		w.parked <- struct{}{}
	}()
	a.enqueue(0)
	return a
}

func (a *actor) enqueue(d time.Duration) {
	a.turn++
	heap.Push(&a.w.queue, item{at: a.w.now + max(d, 0), tie: a.w.rng.Uint64(), actor: a, turn: a.turn})
}

// sleep gives way for d of virtual time. False says that the run is over: the
// caller must come to its end without sleeping again.
func (a *actor) sleep(d time.Duration) bool {
	if a.w.over {
		return false
	}
	a.enqueue(d)
	a.w.parked <- struct{}{}
	<-a.resume
	return !a.w.over
}

// wait is sleep, ended early by wake.
func (a *actor) wait(d time.Duration) bool {
	a.idle = true
	ok := a.sleep(d)
	a.idle = false
	return ok
}

func (a *actor) wake() {
	if a.idle && !a.done {
		a.idle = false
		a.enqueue(0)
	}
}

// run advances to the moment until, or to the first violation.
func (w *world) run(until time.Duration) {
	for len(w.queue) > 0 && w.queue[0].at <= until && w.check.violation == nil {
		next, _ := heap.Pop(&w.queue).(item)
		w.now = next.at
		switch {
		case next.actor == nil:
			next.run()
		case next.turn == next.actor.turn && !next.actor.done:
			w.let(next.actor)
		}
	}
	w.now = max(w.now, until)
}

func (w *world) let(a *actor) {
	w.acting = a
	a.resume <- struct{}{}
	<-w.parked
	w.acting = nil
}

// end lets every actor come to its end.
func (w *world) end() {
	w.over = true
	for len(w.actors) > 0 { // an ending actor may still start one
		a := w.actors[0]
		for !a.done {
			w.let(a)
		}
		w.actors = w.actors[1:]
	}
}

type item struct {
	at    time.Duration
	tie   uint64
	run   func()
	actor *actor
	turn  uint64
}

// queue is a heap ordered by time, and at one moment by the seed.
type queue []item

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if q[i].at != q[j].at {
		return q[i].at < q[j].at
	}
	return q[i].tie < q[j].tie
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any) {
	i, _ := x.(item)
	*q = append(*q, i)
}
func (q *queue) Pop() any {
	old := *q
	last := len(old) - 1
	x := old[last]
	old[last] = item{}
	*q = old[:last]
	return x
}
