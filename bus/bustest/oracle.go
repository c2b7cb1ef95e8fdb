package bustest

import (
	"testing"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// Acked is an event that the stream has acknowledged. Key is in no other event.
type Acked struct {
	Key      string
	Position bus.Position
	// At is when the acknowledgement was known, or later.
	At time.Time
	// Since is, per Recorder, how many calls there were when publishing began.
	Since map[*Recorder]int
	// Lost says that the broker lost it afterwards. Who has not applied it by
	// then cannot know.
	Lost bool
}

// settled reports whether the event was applied, or a flush that came after its
// publishing began stands in its place.
func (e Acked) settled(calls []Call, since int) bool {
	return len(deliveries(calls, e.Key)) > 0 || e.covered(calls, since)
}

func (e Acked) covered(calls []Call, since int) bool {
	for _, c := range calls[since:] {
		var flush bus.Position
		switch {
		case c.Resumed != nil:
			flush = c.Resumed.Position
		case c.Applied != nil && c.Applied.Event.Op == bus.OpFork:
			flush = c.Applied.Position
		default:
			continue
		}
		if flush.Seq >= e.Position.Seq || e.Position.Epoch.Before(flush.Epoch) {
			return true
		}
	}
	return false
}

// Check fails t unless r has got what the contract owes it: calls in an order
// that makes sense, and every acknowledged event exactly once, at its position,
// or a Resume or a fork event (both flush) that covers it.
func Check(t testing.TB, r *Recorder, acked []Acked) {
	t.Helper()
	calls := r.Calls()
	checkOrder(t, calls)
	for _, e := range acked {
		found := deliveries(calls, e.Key)
		switch {
		case len(found) > 1:
			t.Errorf("%s was applied %d times; calls:\n%s", e.Key, len(found), render(calls))
		case len(found) == 1 && found[0].Position.Seq != e.Position.Seq:
			t.Errorf("%s was acknowledged at %v and applied at %v", e.Key, e.Position, found[0].Position)
		case len(found) == 0 && !e.Lost && !e.covered(calls, e.Since[r]):
			t.Errorf("%s, acknowledged at %v, was passed over in silence; calls:\n%s", e.Key, e.Position, render(calls))
		}
	}
}

// checkOrder holds the calls against the promise of bus.Handler: a Resume
// first, then seqs without a hole, and after a Doubt nothing but a Resume.
func checkOrder(t testing.TB, calls []Call) {
	t.Helper()
	var at bus.Position
	live := false
	for i, c := range calls {
		switch {
		case c.Resumed != nil:
			if live {
				t.Errorf("call %d: a Resume without a Doubt; calls:\n%s", i, render(calls))
			}
			live, at = true, c.Resumed.Position
			checkHistory(t, *c.Resumed)
		case c.Applied != nil:
			want := bus.Position{Epoch: at.Epoch, Seq: at.Seq + 1}
			switch c.Applied.Event.Op {
			case bus.OpFork: // a new epoch, also after a rollback beyond a former one
				want.Epoch.Fork = max(at.Epoch.Fork+1, want.Seq)
			case bus.OpPulse: // it may tell of a fork event that this one never saw
				want.Epoch.Fork = max(at.Epoch.Fork, c.Applied.Event.Pulse.Fork)
			default:
			}
			if !live || c.Applied.Position != want {
				t.Errorf("call %d: applied %v, want %v, live %t; calls:\n%s", i, c.Applied.Position, want, live, render(calls))
			}
			at = c.Applied.Position
		default:
			if !live {
				t.Errorf("call %d: a Doubt while in doubt; calls:\n%s", i, render(calls))
			}
			live = false
		}
	}
}

// checkHistory holds the history of a Resume against its HistoryFrom.
func checkHistory(t testing.TB, r bus.Resume) {
	t.Helper()
	next := r.HistoryFrom + 1
	for _, d := range r.History {
		if d.Position.Seq != next {
			t.Errorf("history of %v: seq %d, want %d", r.Position, d.Position.Seq, next)
		}
		next++
	}
	if next != r.Position.Seq+1 {
		t.Errorf("history of %v ends at %d", r.Position, next-1)
	}
	if r.Blind < 0 {
		t.Errorf("negative Blind %s", r.Blind)
	}
}
