package nemesis

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Fault is one kind of harm. Faults of different lanes overlap, those of one
// lane follow one another.
type Fault struct {
	Name string
	// About says what is done and which invariants it attacks.
	About string

	lane lane
	kind kind
	// do harms until it is done with it or ctx ends, and leaves everything whole.
	do func(ctx context.Context, w *worker) error
}

// kind says how many servers a fault needs.
type kind int

const (
	anywhere  kind = iota
	clustered      // more than one
	alone          // only one: others would repair what it does
)

type lane int

const (
	servers lane = iota // NATS
	pods                // sidecars and their ways to NATS
	origins             // the origin and the shared tier
	load                // what clients do
	lanes               // how many there are
)

// harms reports whether its faults harm servers, sidecars or what is between them.
func (l lane) harms() bool { return l == servers || l == pods }

// Faults returns all there are.
func Faults() []Fault { return slices.Concat(serverFaults, podFaults, originFaults, loadFaults) }

// choose returns the faults with these names, separated by commas; "" and "all"
// are all that so many servers can have, "none" is none.
func choose(names string, servers int) ([]Fault, error) {
	all := slices.DeleteFunc(Faults(), func(f Fault) bool {
		return f.kind == clustered && servers == 1 || f.kind == alone && servers > 1
	})
	switch names {
	case "", "all":
		return all, nil
	case "none":
		return nil, nil
	}
	var chosen []Fault
	for _, name := range strings.Split(names, ",") {
		i := slices.IndexFunc(all, func(f Fault) bool { return f.Name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("there is no fault %q on %d servers: want %s", name, servers, describeFaults(all))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

func describeFaults(all []Fault) string {
	var b strings.Builder
	for _, f := range all {
		fmt.Fprintf(&b, "\n  %-16s %s", f.Name, f.About)
	}
	return b.String()
}

// harm does the faults of one lane, one after the other, until ctx ends.
func (w *worker) harm(ctx context.Context, faults []Fault) error {
	if len(faults) == 0 {
		return nil
	}
	for wait(200*time.Millisecond+w.span(time.Second), ctx.Done()) {
		if err := w.next(ctx, faults[w.rng.IntN(len(faults))]); err != nil {
			return err
		}
	}
	return nil
}

// next does a fault beside those of other lanes, or now and then alone.
func (w *worker) next(ctx context.Context, f Fault) error {
	switch {
	case !f.lane.harms():
		return w.inflict(ctx, f)
	case w.chance(4):
		return w.alone(ctx, f)
	}
	w.peace.RLock()
	defer w.peace.RUnlock()
	return w.inflict(ctx, f)
}

// harmEach does every fault once.
func (w *worker) harmEach(ctx context.Context, faults []Fault) error {
	for _, f := range faults {
		if err := w.inflict(ctx, f); err != nil || ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// inflict does one fault.
func (w *worker) inflict(ctx context.Context, f Fault) error {
	w.counts.add("fault "+f.Name, 1)
	w.now.add(f.Name, f.lane.harms())
	err := f.do(ctx, w)
	w.now.remove(f.Name, f.lane.harms())
	if err != nil {
		return fmt.Errorf("fault %s: %w", f.Name, err)
	}
	return nil
}

// last waits as long as a fault shall last.
func (w *worker) last(ctx context.Context) {
	wait(w.longest/10+w.span(w.longest), ctx.Done())
}

// pause waits as long as a process shall stand still: mostly for a short time,
// seldom for three times the longest of other faults.
func (w *worker) pause(ctx context.Context, long bool) {
	d := w.longest/10 + w.span(w.longest/2)
	if long {
		d = w.longest + w.span(2*w.longest)
	}
	wait(d, ctx.Done())
}

// long says whether a pause shall be one of the long ones.
func (w *worker) long() bool { return w.chance(5) }

// bite counts what shows that a fault did harm.
func (w *worker) bite(fault string, n int) { w.counts.add("fault "+fault+bitten, n) }

// bitten ends the names of what bite counts.
const bitten = ": signs of it"

// jump returns how far a clock shall jump: one minute to six hours, either way.
func (w *worker) jump() time.Duration {
	d := time.Minute + w.span(time.Hour)
	if w.chance(3) {
		d += w.span(5 * time.Hour)
	}
	if w.chance(2) {
		d = -d
	}
	return d
}

// jumpClock lets a process's wall clock jump, and half of the time back later. It
// reports whether the process was told so.
func (w *worker) jumpClock(ctx context.Context, m *machine) (seen bool) {
	by := w.jump()
	if ahead := m.ahead(); ahead != 0 && w.chance(2) {
		by = 0 // back to the right time
	}
	m.setAhead(by)
	w.last(ctx)
	off := time.Until(m.shown()) - by
	if w.chance(2) {
		m.setAhead(0)
	}
	return off.Abs() < 10*time.Second
}
