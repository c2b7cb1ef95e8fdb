package bus_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
)

// gapped is a rig that has applied seqs 1 to 3, while the log holds 10 and the
// last one came live.
func gapped(t *testing.T, change ...func(*bus.FollowerConfig)) rig {
	t.Helper()
	r := startedRig(t, 2, change...)
	m := r.log.events(t, 7)
	r.Receive(m[6])
	return r
}

func TestRepairGoesOnAfterAnErrorInItsMiddle(t *testing.T) {
	for _, call := range []string{"State", "At", "Range"} {
		r := gapped(t)
		r.log.maxRange = 2
		seen := 0
		r.log.before = func(name string, _ int) {
			if name == call {
				if seen++; seen%2 == 0 {
					r.log.fail[name] = 1
				}
			}
		}
		failed := 0
		for r.Pending() != bus.PendingNothing {
			if err := r.Recover(t.Context()); err != nil {
				require.ErrorIs(t, err, errDown)
				failed++
			}
			require.Less(t, failed, 50)
		}
		require.Positive(t, failed, call)
		r.requireApplied(2, 10)
		r.requireDoubts()
	}
}

func TestRepairFromALaggingReplica(t *testing.T) {
	r := gapped(t)
	r.log.lag = 5
	r.recover()
	r.requireApplied(2, 10)
	r.requireDoubts()
	require.Empty(t, r.log.appended[subjects.Pulse()][1:], "the leader had everything: nothing to prove")
}

func TestRepairFromAReplicaThatSkips(t *testing.T) {
	r := gapped(t)
	r.log.onRange = func(m []bus.Message) {
		if len(m) > 1 {
			m[0], m[1] = m[1], m[0]
		}
	}
	r.recover()
	r.requireApplied(2, 10)
	r.requireDoubts()
}

func TestHoleIsADoubtOnceProven(t *testing.T) {
	r := gapped(t)
	delete(r.log.messages, 6)
	r.log.fail["Append"] = 1
	require.ErrorIs(t, r.Recover(t.Context()), errDown)
	require.Empty(t, r.rec.Doubts(), "not found counts only after an acknowledged pulse")
	r.requireApplied(2, 5)
	r.recover()
	r.requireDoubts(bus.ReasonHole)
	require.Empty(t, r.log.appended[subjects.Fork()])
}

func TestFormerLeaderProvesNothing(t *testing.T) {
	r := gapped(t)
	kept := r.log.messages[6]
	delete(r.log.messages, 6)
	r.log.before = func(call string, _ int) {
		if call == "Append" {
			// From here on State is answered by who has not heard of the pulse.
			r.log.stale = []bus.LogState{r.log.state()}
		}
	}
	require.ErrorIs(t, r.Recover(t.Context()), bus.ErrBehind)
	require.Empty(t, r.rec.Doubts())
	r.log.before, r.log.messages[6] = nil, kept
	r.recover()
	r.requireApplied(2, 11) // the last is the pulse
	r.requireDoubts()
}

func TestTrimmedPastUsIsADoubtWithoutFork(t *testing.T) {
	r := gapped(t)
	r.log.trim(6)
	r.recover()
	r.requireDoubts(bus.ReasonTrimmed)
	require.Empty(t, r.log.appended[subjects.Fork()])
	require.Zero(t, r.Position().Epoch.Fork)
}

func TestTrimmedDuringRepair(t *testing.T) {
	r := gapped(t)
	ranges := 0
	r.log.before = func(call string, _ int) {
		if call == "Range" {
			if ranges++; ranges == 2 {
				r.log.trim(6)
			}
		}
	}
	r.recover()
	r.requireDoubts(bus.ReasonTrimmed)
}

func TestRepairLimit(t *testing.T) {
	limit := func(c *bus.FollowerConfig) { c.RepairLimit = 7 }
	r := gapped(t, limit)
	r.recover()
	r.requireDoubts()
	r.requireApplied(2, 10)
	r.log.events(t, 8)
	r.Disturbed()
	r.recover()
	r.requireDoubts(bus.ReasonTooFar)
}

func TestLiveMessageThatTheLogDenies(t *testing.T) {
	r := gapped(t)
	r.log.cut(8)
	r.log.events(t, 4)
	r.recover()
	r.requireDoubts(bus.ReasonForked)
	require.Equal(t, uint64(9), r.applied()[len(r.applied())-1], "up to where the histories part")
}

func TestRolledBackBetweenGapAndRepair(t *testing.T) {
	r := gapped(t)
	r.log.cut(2)
	r.log.events(t, 12)
	r.recover()
	r.requireDoubts(bus.ReasonForked)
	r.requireApplied(2, 3)
}

func TestRolledBackInTheMiddleOfRepair(t *testing.T) {
	r := gapped(t)
	r.log.maxRange = 2
	appends := 0
	r.log.before = func(call string, _ int) {
		if call == "Range" {
			if appends++; appends == 4 {
				r.log.cut(2)
				r.log.before = nil
				r.log.events(t, 12)
			}
		}
	}
	r.recover()
	require.Len(t, r.rec.Doubts(), 1)
	require.Len(t, r.log.appended[subjects.Fork()], 1)
}

func TestRecreatedWhileAHoleIsProven(t *testing.T) {
	r := gapped(t)
	delete(r.log.messages, 6)
	r.log.before = func(call string, _ int) {
		if call == "Append" {
			fresh := newFakeLog()
			fresh.created = birth.Add(time.Minute)
			*r.log = *fresh
			r.log.events(t, 20)
		}
	}
	r.recover()
	r.requireDoubts(bus.ReasonRecreated)
	r.requireApplied(2, 5)
}
