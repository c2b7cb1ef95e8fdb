package bus_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
)

func TestMatchAfterADisturbance(t *testing.T) {
	r := startedRig(t, 3)
	r.log.events(t, 2)
	r.Disturbed()
	require.Equal(t, bus.PendingNow, r.Pending())
	r.recover()
	r.requireApplied(2, 6)
	r.requireDoubts()
	require.Equal(t, bus.PendingNothing, r.Pending())
}

func TestFormerLeadersStateIsNoRollback(t *testing.T) {
	r := startedRig(t, 3)
	r.log.stale = []bus.LogState{{Created: birth, First: 1, Last: 2}}
	r.Disturbed()
	r.recover()
	r.requireDoubts()
	require.Empty(t, r.log.appended[subjects.Fork()])
}

func TestFormerLeaderLacksWhatWasApplied(t *testing.T) {
	r := startedRig(t, 3)
	kept := r.log.messages[4]
	delete(r.log.messages, 4)
	r.log.before = func(call string, _ int) {
		if call == "Append" {
			r.log.messages[4] = kept
		}
	}
	r.Disturbed()
	r.recover()
	r.requireDoubts()
}

func TestRolledBack(t *testing.T) {
	r := startedRig(t, 5)
	r.log.cut(3)
	r.Disturbed()
	r.recover()
	r.requireDoubts(bus.ReasonRolledBack)
	require.Len(t, r.log.appended[subjects.Fork()], 1)
	require.EqualValues(t, 1, r.Stats().Forks)
}

func TestReuseBeyondUsIsAFork(t *testing.T) {
	r := startedRig(t, 5)
	r.log.cut(3)
	r.log.events(t, 9)
	r.Disturbed()
	r.recover()
	r.requireDoubts(bus.ReasonForked)
}

func TestOtherContentBelowApplied(t *testing.T) {
	r := startedRig(t, 5)
	m := r.log.messages[4]
	m.Data = append([]byte(nil), m.Data...)
	m.Data[0] ^= 1
	r.log.messages[4] = m
	r.Disturbed()
	r.recover()
	r.requireDoubts(bus.ReasonForked)
}

func TestOtherContentAtASuspectSeqMatchedBefore(t *testing.T) {
	r := startedRig(t, 5)
	r.Disturbed()
	r.recover()
	m := r.log.messages[4]
	m.Time = m.Time.Add(time.Nanosecond)
	r.log.messages[4] = m
	r.Receive(m)
	r.recover()
	r.requireDoubts(bus.ReasonForked)
}

func TestReplicaWithOtherContentIsOverruled(t *testing.T) {
	r := startedRig(t, 5)
	r.log.onRange = func(messages []bus.Message) {
		for i := range messages {
			messages[i].MsgID = "corrupt"
		}
	}
	r.Disturbed()
	r.recover()
	r.requireDoubts()
}

func TestAppliedMessageWasDeleted(t *testing.T) {
	for _, seq := range []uint64{4, 6} {
		r := startedRig(t, 5)
		delete(r.log.messages, seq)
		r.Disturbed()
		r.recover()
		r.requireDoubts(bus.ReasonHole)
		require.Empty(t, r.log.appended[subjects.Fork()])
	}
}

func TestRecreated(t *testing.T) {
	r := startedRig(t, 5)
	created := birth.Add(2 * time.Hour)
	fresh := newFakeLog()
	fresh.created, fresh.now = created, created
	*r.log = *fresh
	r.log.events(t, 9)
	r.Disturbed()
	r.recover()
	r.requireDoubts(bus.ReasonRecreated)
	require.Equal(t, bus.Epoch{Created: created.UnixNano()}, r.Position().Epoch)
	require.Empty(t, r.log.appended[subjects.Fork()])
	require.Positive(t, r.rec.Resumes()[1].Blind)
}

func TestDeletedIsToldAtOnceAndStartIsRetried(t *testing.T) {
	r := startedRig(t, 5)
	r.log.gone = true
	r.Disturbed()
	require.Error(t, r.Recover(t.Context()))
	require.Equal(t, []bus.Reason{bus.ReasonDeleted}, r.rec.Doubts())
	require.True(t, r.Position().IsZero())
	require.Error(t, r.Recover(t.Context()))
	require.Equal(t, bus.PendingNow, r.Pending())
	r.log.gone = false
	r.recover()
	r.requireDoubts(bus.ReasonDeleted)
}

func TestEverythingTrimmedIsADoubt(t *testing.T) {
	r := startedRig(t, 5)
	r.log.trim(7)
	r.Disturbed()
	r.recover()
	r.requireDoubts(bus.ReasonTrimmed)
	require.Empty(t, r.log.appended[subjects.Fork()])
}

func TestNoAnswerIsNoDoubt(t *testing.T) {
	for _, call := range []string{"State", "At", "Range"} {
		r := startedRig(t, 5)
		r.log.fail[call] = 1
		r.Disturbed()
		require.ErrorIs(t, r.Recover(t.Context()), errDown, call)
		require.Equal(t, bus.PendingNow, r.Pending())
		r.recover()
		r.requireDoubts()
	}
}

func TestForkEventPrecedesTheResume(t *testing.T) {
	r := startedRig(t, 5)
	r.log.cut(3)
	r.log.events(t, 9)
	r.Disturbed()
	for _, call := range []string{"LastFork", "Append", "State"} {
		r.log.calls = nil
		r.log.before = func(name string, n int) {
			// The first State is that of log matching, as long as it is due.
			if name == call && (name != "State" || len(r.rec.Doubts()) > 0) {
				r.log.fail[name] = 1
			}
		}
		require.Error(t, r.Recover(t.Context()), call)
		require.Equal(t, []bus.Reason{bus.ReasonForked}, r.rec.Doubts(), "told before what may fail")
		require.Len(t, r.rec.Resumes(), 1)
		require.Empty(t, r.log.appended[subjects.Fork()])
	}
	r.log.before, r.log.fail = nil, map[string]int{}
	r.recover()
	r.requireDoubts(bus.ReasonForked)
	require.Less(t, r.log.appended[subjects.Fork()][0].Seq, r.Position().Seq)
	require.EqualValues(t, 1, r.Stats().Forks)
}

// Followers that had applied different parts of the lost history publish one
// fork event, whether one sees the other's or both publish at once.
func TestForkIsPublishedOnce(t *testing.T) {
	for _, race := range []bool{false, true} {
		for _, reused := range []int{0, 1, 20} {
			a := startedRig(t, 0)
			b := newRig(t, a.log)
			b.recover()
			messages := a.log.events(t, 8)
			a.Receive(a.log.messages[2])
			for i, m := range messages {
				a.Receive(m)
				if i < 6 {
					b.Receive(m)
				}
			}
			a.log.cut(5)
			a.log.events(t, reused)
			a.log.hideForks = race && reused > 0
			for _, r := range []rig{a, b} {
				r.Disturbed()
				r.recover()
				require.Len(t, r.rec.Doubts(), 1)
			}
			require.Len(t, a.log.appended[subjects.Fork()], 1, "race %t, %d reused", race, reused)
			if !a.log.hideForks {
				require.Equal(t, a.Position().Epoch, b.Position().Epoch)
				require.Positive(t, a.Position().Epoch.Fork)
			}
		}
	}
}

func TestForkThatAnotherPublishedIsEnough(t *testing.T) {
	r := startedRig(t, 5)
	r.log.cut(3)
	fork := r.log.store(subjects.Fork(), "another's", []byte("{}"))
	r.log.events(t, 9)
	r.Disturbed()
	r.recover()
	r.requireDoubts(bus.ReasonForked)
	require.Empty(t, r.log.appended[subjects.Fork()])
	require.Zero(t, r.Stats().Forks)
	require.Equal(t, fork.Seq, r.Position().Epoch.Fork)
}
