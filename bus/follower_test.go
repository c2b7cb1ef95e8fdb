package bus_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
)

// A started rig has its start pulse at seq 1 and events from seq 2 on.

func TestGapIsRepairedBeforeWhatLiesAbove(t *testing.T) {
	r := startedRig(t, 2)
	m := r.log.events(t, 3)
	r.Receive(m[2])
	r.requireApplied(2, 3)
	require.Equal(t, bus.PendingGap, r.Pending())
	r.recover()
	r.requireApplied(2, 6)
	r.requireDoubts()
	require.Equal(t, bus.PendingNothing, r.Pending())
	require.EqualValues(t, 1, r.Stats().Gaps)
	require.EqualValues(t, 1, r.Stats().Repairs)
}

func TestReorderedMessagesNeedNoRepair(t *testing.T) {
	r := startedRig(t, 0)
	m := r.log.events(t, 3)
	r.Receive(m[2])
	r.Receive(m[1])
	r.Receive(m[0])
	r.requireApplied(2, 4)
	require.Equal(t, bus.PendingNothing, r.Pending())
	require.Empty(t, r.log.calls)
}

func TestDuplicateIsIgnored(t *testing.T) {
	r := startedRig(t, 2)
	r.Receive(r.log.messages[3])
	r.Receive(r.log.messages[2])
	r.Receive(r.log.messages[1])
	r.requireApplied(2, 3)
	require.Equal(t, bus.PendingNothing, r.Pending())
}

func TestReusedSeqIsNoDuplicate(t *testing.T) {
	r := startedRig(t, 3)
	r.log.cut(3)
	m := r.log.event(t, "other")
	r.Receive(m)
	require.Equal(t, bus.PendingNow, r.Pending())
	r.recover()
	r.requireDoubts(bus.ReasonForked)
	require.Len(t, r.log.appended[subjects.Fork()], 1)
	require.Equal(t, r.log.appended[subjects.Fork()][0].Seq, r.Position().Epoch.Fork)
}

func TestForeignContentThatTheLogDeniesIsIgnored(t *testing.T) {
	r := startedRig(t, 3)
	m := r.log.messages[3]
	m.Data = []byte("forged")
	r.Receive(m)
	r.recover()
	r.requireApplied(2, 4)
	r.requireDoubts()
	require.EqualValues(t, 1, r.Stats().Matches)
}

func TestNothingIsAppliedWhileMatchingIsDue(t *testing.T) {
	r := startedRig(t, 3)
	r.log.cut(2)
	m := r.log.events(t, 4)
	for _, m := range m {
		r.Receive(m)
	}
	r.requireApplied(2, 4)
	r.recover()
	r.requireApplied(2, 4)
	r.requireDoubts(bus.ReasonForked)
}

func TestMessageThatWaitedSinceBeforeARollback(t *testing.T) {
	r := startedRig(t, 9)
	stale := r.log.messages[9]
	r.log.cut(2)
	r.Disturbed()
	r.recover()
	r.requireDoubts(bus.ReasonRolledBack)
	for r.log.last < stale.Seq-1 {
		r.Receive(r.log.event(t, "new"))
	}
	r.Receive(stale)
	require.Equal(t, stale.Seq-1, r.Position().Seq, "the former history's message is not applied")
	r.recover()
	r.requireDoubts(bus.ReasonRolledBack)
	r.Receive(r.log.event(t, "new"))
	require.Equal(t, stale.Seq, r.Position().Seq)
}

func TestAheadBufferOverflows(t *testing.T) {
	r := startedRig(t, 0)
	m := r.log.events(t, 3000)
	for _, m := range m[1:] {
		r.Receive(m)
	}
	r.recover()
	r.requireApplied(2, 3001)
	r.requireDoubts()
}

func TestAcknowledgedPositionMustBeSeen(t *testing.T) {
	r := startedRig(t, 0)
	m := r.log.event(t, "mine")
	r.Expect(bus.Ack{Seq: m.Seq, MsgID: m.MsgID})
	require.Equal(t, bus.PendingAcked, r.Pending())
	r.recover()
	r.requireApplied(2, 2)
	r.Expect(bus.Ack{Seq: m.Seq, MsgID: m.MsgID})
	require.Equal(t, bus.PendingNothing, r.Pending(), "seen already")
}

func TestAcknowledgedPositionHoldsAnotherMessage(t *testing.T) {
	r := startedRig(t, 0)
	r.Expect(bus.Ack{Seq: 2, MsgID: "mine"})
	r.Receive(r.log.event(t, "other"))
	require.Empty(t, r.applied())
	r.recover()
	r.requireDoubts(bus.ReasonForked)
	require.Len(t, r.log.appended[subjects.Fork()], 1)
}

func TestAcknowledgedPositionWasAppliedWithAnotherMessage(t *testing.T) {
	r := startedRig(t, 3)
	r.log.cut(2)
	r.log.events(t, 4)
	r.Expect(bus.Ack{Seq: 3, MsgID: "mine"})
	require.Equal(t, bus.PendingNow, r.Pending())
	r.recover()
	r.requireDoubts(bus.ReasonForked)
}

func TestAcknowledgedMessageWasLost(t *testing.T) {
	r := startedRig(t, 1)
	r.Expect(bus.Ack{Seq: 9, MsgID: "mine"})
	r.recover()
	r.requireDoubts(bus.ReasonRolledBack)
	require.Len(t, r.log.appended[subjects.Pulse()], 3, "one at each start and one as a proof")
}

func TestNothingOfAFormerHistoryIsKeptOverADoubt(t *testing.T) {
	r := startedRig(t, 2)
	r.Receive(r.log.events(t, 7)[6])
	r.Expect(bus.Ack{Seq: 9, MsgID: "mine"})
	r.log.cut(3)
	r.recover()
	r.requireDoubts(bus.ReasonRolledBack)
	require.Less(t, r.Position().Seq, uint64(9))
	for r.Position().Seq < 12 {
		m := r.log.event(t, "new")
		r.Receive(m)
		require.Equal(t, m.Seq, r.Position().Seq)
	}
	r.requireDoubts(bus.ReasonRolledBack)
}

func TestDuplicateOlderThanTheRing(t *testing.T) {
	r := startedRig(t, 10_000)
	r.Receive(r.log.messages[5])
	r.recover()
	r.requireApplied(2, 10_001)
	r.requireDoubts()
}

func TestForkEventBeginsAnEpoch(t *testing.T) {
	r := startedRig(t, 1)
	before := r.Position()
	body, err := bus.Encode(bus.Event{Op: bus.OpFork})
	require.NoError(t, err)
	m := r.log.store(subjects.Fork(), "fork", body)
	r.Receive(m)
	calls := r.rec.Calls()
	d := calls[len(calls)-1].Applied
	require.Equal(t, bus.OpFork, d.Event.Op)
	require.Equal(t, m.Seq, d.Position.Epoch.Fork)
	require.Equal(t, d.Position, r.Position())
	require.True(t, before.Epoch.Before(d.Position.Epoch))
}

func TestDeliveryCarriesWhatTheMessageSays(t *testing.T) {
	r := startedRig(t, 1)
	m := r.log.store(subjects.Pulse()+".x", "id", []byte("{}"))
	r.Receive(m)
	calls := r.rec.Calls()
	first, second := calls[1].Applied, calls[2].Applied
	require.Equal(t, "product", first.Namespace)
	require.Equal(t, r.log.messages[2].MsgID, first.Event.ID)
	require.Equal(t, r.log.messages[2].Time, first.Time)
	require.ErrorIs(t, second.Err, bus.ErrBadSubject)
	require.Empty(t, second.Namespace)
}

func TestFollowerNeedsItsParts(t *testing.T) {
	_, err := bus.NewFollower(bus.FollowerConfig{})
	require.Error(t, err)
	_, err = bus.NewFollower(bus.FollowerConfig{Subjects: subjects, Log: newFakeLog(), Handler: newRig(t, newFakeLog()).rec,
		Follow: bus.FollowConfig{Window: -time.Second}})
	require.ErrorContains(t, err, "window")
}
