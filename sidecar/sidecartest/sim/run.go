package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Result is what one run came to.
type Result struct {
	Seed      uint64
	Violation *Violation // nil: none
	Actions   int
	Counts    Counts
	History   []string // of a run that was traced

	kept []int // the actions done, by number
}

// Run does the whole run of a seed.
func Run(seed uint64) Result {
	_, actions := plan(seed)
	all := make([]int, len(actions))
	for i := range all {
		all[i] = i
	}
	return run(seed, all, false)
}

// Trace does it again and keeps its history.
func (r Result) Trace() Result { return run(r.Seed, r.kept, true) }

// run does some of the actions of a seed.
func run(seed uint64, kept []int, tracing bool) Result {
	slots, actions := plan(seed)
	w := newWorld(seed, slots, tracing)
	for _, i := range kept {
		x := actions[i]
		w.after(x.at, func() {
			r := rand.New(rand.NewPCG(seed, x.salt))
			w.spawn(func(a *actor) { kinds[x.kind].do(w, a, w.slots[x.slot], x, r) })
		})
	}
	span := time.Second
	if len(kept) > 0 {
		span += actions[kept[len(kept)-1]].at
	}
	w.run(span)
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
	if w.check.violation == nil {
		if w.opens > 0 {
			w.check.fail("I3", "%d writes are not published long after the faults", w.opens)
		}
		w.check.converged()
	}
	w.end()
	return Result{
		Seed: seed, Violation: w.check.violation, Actions: len(kept), Counts: w.check.counts,
		History: w.history, kept: slices.Clone(kept),
	}
}

func newWorld(seed uint64, slots int, tracing bool) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 2)), parked: make(chan struct{}), tracing: tracing,
		byID: map[string]*event{},
	}
	w.check = &checker{w: w, lives: map[int64]int{}}
	w.origin = &origin{w: w, commits: map[string][]time.Duration{}}
	w.stream = newStream(w)
	w.check.lives[w.stream.created.UnixNano()] = w.stream.life
	for i := range slots {
		s := &slot{number: i}
		w.place(s)
		w.slots = append(w.slots, s)
		w.start(s)
	}
	return w
}

// Shrink looks for few actions that break the same invariant, with at most so
// many runs.
func (r Result) Shrink(runs int) Result {
	best := r
	for size := (len(best.kept) + 1) / 2; size > 0 && runs > 0; {
		shorter := false
		for from := 0; from < len(best.kept) && runs > 0; {
			less := slices.Delete(slices.Clone(best.kept), from, min(from+size, len(best.kept)))
			runs--
			if t := run(r.Seed, less, false); t.Violation != nil && t.Violation.Invariant == r.Violation.Invariant {
				best, shorter = t, true
				continue
			}
			from += size
		}
		if size > 1 || !shorter {
			size /= 2
		}
	}
	return best
}

// Report says what a failing run did, for people.
func (r Result) Report() string {
	text := fmt.Sprintf("seed %d breaks %s: %s\n\nwith %d actions:\n", r.Seed, r.Violation.Invariant, r.Violation.Message, r.Actions)
	_, actions := plan(r.Seed)
	for _, i := range r.kept {
		text += actions[i].String() + "\n"
	}
	text += "\nwhat happened:\n"
	for _, line := range r.Trace().History {
		text += line + "\n"
	}
	return text + fmt.Sprintf("\nreplay: go test ./sidecar/sidecartest/sim -run TestSim -sim.seed=%d\n", r.Seed)
}
