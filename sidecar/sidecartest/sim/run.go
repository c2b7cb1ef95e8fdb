package sim

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Result is what one run came to.
type Result struct {
	Seed      uint64
	Violation *Violation // nil: none
	Actions   int
	Counts    Counts
	History   []string // of a run that was traced

	plan plan
}

// Run does the whole run of a seed.
func Run(seed uint64) Result { return run(planOf(seed), false) }

// Trace does it again and keeps its history.
func (r Result) Trace() Result { return run(r.plan, true) }

// run does what is planned, lets the faults end, and looks at what is left.
func run(p plan, tracing bool) Result {
	w := newWorld(p, tracing)
	for _, x := range p.actions {
		w.after(x.at, func() {
			r := rand.New(rand.NewPCG(p.seed, x.salt))
			w.spawn(func(a *actor) { kinds[x.kind].do(w, a, w.slots[x.slot], x, r) })
		})
	}
	w.run(p.span() + time.Second)
	w.heal()
	// Writers go on until all is published, readers until what they hold is filled.
	w.run(w.now + 9*time.Second)
	for range 40 {
		if w.opens == 0 {
			break
		}
		w.run(w.now + time.Second)
	}
	w.run(w.now + 3*time.Second)
	w.check.loadable()
	w.run(w.now + 2*time.Second)
	if w.check.violation == nil {
		if w.opens > 0 {
			w.check.fail("I3", "%d writes are not published long after the faults", w.opens)
		}
		w.check.converged()
	}
	w.end()
	return Result{
		Seed: p.seed, Violation: w.check.violation, Actions: len(p.actions), Counts: w.check.counts,
		History: w.history, plan: p,
	}
}

func newWorld(p plan, tracing bool) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(p.seed, 2)), parked: make(chan struct{}), tracing: tracing, late: p.late,
		byID: map[string]*event{}, open: map[string]int{}, frozen: map[string]bool{}, contents: []content{{parts: []part{{}}}},
	}
	w.check = &checker{w: w, lives: map[int64]int{}, acksOf: map[string][]ack{}}
	w.origin = &origin{
		w: w, commits: map[string][]time.Duration{}, restores: map[string][]int{}, late: map[string]bool{},
		gone: map[string]map[int]bool{"n:a": {0: true}, "s:b": {0: true}},
	}
	w.bucket = newBucket(w)
	w.stream = newStream(w)
	w.check.lives[w.stream.created.UnixNano()] = w.stream.life
	for i := range p.slots {
		s := &slot{number: i}
		w.place(s)
		w.slots = append(w.slots, s)
		w.start(s)
	}
	return w
}

// Report says what a failing run did, for people.
func (r Result) Report() string {
	text := fmt.Sprintf("seed %d breaks %s: %s\n\nwith %d sidecars and %d actions:\n",
		r.Seed, r.Violation.Invariant, r.Violation.Message, r.plan.slots, r.Actions)
	for _, x := range r.plan.actions {
		text += x.String() + "\n"
	}
	text += "\nwhat happened (role pulses by which nothing changes are left out):\n"
	for _, line := range r.Trace().History {
		text += line + "\n"
	}
	return text + fmt.Sprintf("\nreplay: go test ./sidecar/sidecartest/sim -run TestSim$ -sim.seed=%d\n", r.Seed)
}
