package bustest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// patience is how long a wait may last before the test fails.
const patience = 30 * time.Second

// Call is one call of a Handler. Exactly one field is set.
type Call struct {
	Applied *bus.Delivery
	Doubted bus.Reason
	Resumed *bus.Resume
}

// String shows the call in a failed test.
func (c Call) String() string {
	switch {
	case c.Applied != nil && c.Applied.Err != nil:
		return fmt.Sprintf("apply %v: %v", c.Applied.Position, c.Applied.Err)
	case c.Applied != nil:
		return fmt.Sprintf("apply %v: %s %v", c.Applied.Position, c.Applied.Event.Op, c.Applied.Event.Keys)
	case c.Resumed != nil:
		return fmt.Sprintf("resume %v, history from %d, blind %s", c.Resumed.Position, c.Resumed.HistoryFrom, c.Resumed.Blind)
	default:
		return "doubt: " + c.Doubted.String()
	}
}

// Recorder is a bus.BatchHandler that writes down every call. It is safe for
// concurrent use.
type Recorder struct {
	mu      sync.Mutex
	calls   []Call
	changed chan struct{} // closed at the next call
	gate    chan struct{} // calls wait while it is open; nil = none
}

var _ bus.BatchHandler = (*Recorder)(nil)

// NewRecorder returns a Recorder without calls.
func NewRecorder() *Recorder { return &Recorder{changed: make(chan struct{})} }

// Apply implements bus.Handler.
func (r *Recorder) Apply(d bus.Delivery) { r.add(Call{Applied: &d}) }

// ApplyAll implements bus.BatchHandler.
func (r *Recorder) ApplyAll(ds []bus.Delivery) {
	for _, d := range ds {
		d.Event.Keys = slices.Clone(d.Event.Keys)
		r.Apply(d)
	}
}

// Doubt implements bus.Handler.
func (r *Recorder) Doubt(reason bus.Reason) { r.add(Call{Doubted: reason}) }

// Resume implements bus.Handler.
func (r *Recorder) Resume(p bus.Resume) { r.add(Call{Resumed: &p}) }

func (r *Recorder) add(c Call) {
	r.mu.Lock()
	gate := r.gate
	r.mu.Unlock()
	if gate != nil {
		<-gate
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, c)
	close(r.changed)
	r.changed = make(chan struct{})
}

// Block makes every further call wait until Unblock, as a slow handler does.
func (r *Recorder) Block() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gate = make(chan struct{})
}

// Unblock ends Block; it may be called more than once.
func (r *Recorder) Unblock() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gate != nil {
		close(r.gate)
		r.gate = nil
	}
}

// Calls returns the calls so far.
func (r *Recorder) Calls() []Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls[:len(r.calls):len(r.calls)]
}

// Wait waits until cond holds of the calls so far, and fails t when it does not
// come to hold.
func (r *Recorder) Wait(t testing.TB, what string, cond func([]Call) bool) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		r.mu.Lock()
		calls, changed := r.calls[:len(r.calls):len(r.calls)], r.changed
		r.mu.Unlock()
		if cond(calls) {
			return
		}
		select {
		case <-changed:
		case <-limit.C:
			t.Fatalf("no %s within %s; calls:\n%s", what, patience, render(calls))
		}
	}
}

// WaitEvent waits until an event that names key was applied.
func (r *Recorder) WaitEvent(t testing.TB, key string) {
	t.Helper()
	r.Wait(t, "event of "+key, func(calls []Call) bool { return len(deliveries(calls, key)) > 0 })
}

// WaitResumes waits until there have been n Resumes.
func (r *Recorder) WaitResumes(t testing.TB, n int) {
	t.Helper()
	r.Wait(t, fmt.Sprintf("resume number %d", n), func(calls []Call) bool { return len(resumes(calls)) >= n })
}

// WaitSettled waits until e was applied or a flush covers it: what may be
// expected of every acknowledged event.
func (r *Recorder) WaitSettled(t testing.TB, e Acked) {
	t.Helper()
	r.Wait(t, fmt.Sprintf("event or flush for %s at %v", e.Key, e.Position), func(calls []Call) bool {
		return e.settled(calls, e.Since[r])
	})
}

// Doubts returns the reasons so far.
func (r *Recorder) Doubts() (reasons []bus.Reason) {
	for _, c := range r.Calls() {
		if c.Doubted != bus.ReasonNone {
			reasons = append(reasons, c.Doubted)
		}
	}
	return reasons
}

// Resumes returns the Resumes so far.
func (r *Recorder) Resumes() []bus.Resume { return resumes(r.Calls()) }

// Event returns the delivery of the only event that names key.
func (r *Recorder) Event(t testing.TB, key string) bus.Delivery {
	t.Helper()
	found := deliveries(r.Calls(), key)
	if len(found) != 1 {
		t.Fatalf("%d deliveries of %s, want 1; calls:\n%s", len(found), key, render(r.Calls()))
	}
	return found[0]
}

func deliveries(calls []Call, key string) (found []bus.Delivery) {
	for _, c := range calls {
		if c.Applied != nil && len(c.Applied.Event.Keys) > 0 && c.Applied.Event.Keys[0].Key == key {
			found = append(found, *c.Applied)
		}
	}
	return found
}

func resumes(calls []Call) (found []bus.Resume) {
	for _, c := range calls {
		if c.Resumed != nil {
			found = append(found, *c.Resumed)
		}
	}
	return found
}

func render(calls []Call) string {
	var b strings.Builder
	for i, c := range calls {
		fmt.Fprintf(&b, "%4d %s\n", i, c)
	}
	return b.String()
}
