package bus_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
)

const second = time.Second

// pulseRig is a started rig with a clock that the test sets, at first at 100 s.
type pulseRig struct {
	rig
	now *time.Duration
}

func startedPulseRig(t *testing.T, events int) pulseRig {
	t.Helper()
	now := 100 * second
	clock := func(c *bus.FollowerConfig) {
		c.Follow.Clock = func() time.Duration { return now }
		c.Follow.PulseInterval = second
	}
	return pulseRig{startedRig(t, events, clock), &now}
}

// pulse stores a pulse and applies it live; it returns the delivery.
func (r pulseRig) pulse(p bus.Pulse) bus.Delivery {
	r.t.Helper()
	body, err := bus.Encode(bus.Event{Op: bus.OpPulse, Pulse: p})
	require.NoError(r.t, err)
	r.Receive(r.log.store(subjects.Pulse(), "", body))
	return r.last()
}

func (r pulseRig) last() bus.Delivery {
	r.t.Helper()
	calls := r.rec.Calls()
	require.NotNil(r.t, calls[len(calls)-1].Applied)
	return *calls[len(calls)-1].Applied
}

// publish makes a role pulse at once, and hands it back.
func (r pulseRig) publish() (bus.RolePulse, error) {
	p := r.PublishPulse(r.t.Context(), r.TakePulse())
	return p, r.Pulsed(p)
}

// rolePulse publishes one, applies it and returns it.
func (r pulseRig) rolePulse() bus.Delivery {
	r.t.Helper()
	_, err := r.publish()
	require.NoError(r.t, err)
	r.Receive(r.log.messages[r.log.last])
	return r.last()
}

func TestRolePulse(t *testing.T) {
	r := startedPulseRig(t, 3)
	require.Equal(t, 100*second, r.rec.Resumes()[0].Fresh)
	wait, ok := r.PulseDue()
	require.True(t, ok)
	require.GreaterOrEqual(t, wait, 2500*time.Millisecond)
	*r.now += wait
	d := r.rolePulse()
	want := bus.Pulse{Process: "me", Sent: *r.now, Role: true, Window: bus.Window{To: 4, Digest: d.Event.Pulse.Window.Digest}}
	require.Equal(t, want, d.Event.Pulse)
	require.Equal(t, *r.now, d.Fresh, "one's own pulse needs no mapping")
	require.True(t, r.HoldsRole())
	require.Empty(t, r.Pulser())
	require.EqualValues(t, 1, r.Stats().Pulses)
	wait, ok = r.PulseDue()
	require.True(t, ok)
	require.Equal(t, second, wait)
	*r.now += wait
	r.Receive(r.log.event(t, "x"))
	require.Equal(t, uint64(4), r.rolePulse().Event.Pulse.Window.From, "windows are without a hole")

	d = r.pulse(bus.Pulse{Process: "other", Sent: 1, Role: false})
	require.True(t, r.HoldsRole(), "a barrier gives no role")
	require.Zero(t, d.Fresh)
	r.pulse(bus.Pulse{Process: "other", Sent: 2, Role: true})
	require.False(t, r.HoldsRole())
	require.Equal(t, "other", r.Pulser())
	wait, _ = r.PulseDue()
	require.GreaterOrEqual(t, wait, 2500*time.Millisecond, "a foreign role pulse above its own stops it")
	r.requireDoubts()
}

func TestResumeIsFreshAsOfItsPulse(t *testing.T) {
	now, published := second, time.Duration(0)
	log := newFakeLog()
	log.before = func(call string, _ int) {
		if call == "Append" {
			published = now
		}
		now += second
	}
	r := newRig(t, log, func(c *bus.FollowerConfig) { c.Follow.Clock = func() time.Duration { return now } })
	r.recover()
	require.Equal(t, published, r.rec.Resumes()[0].Fresh)
}

func TestRolePulseRetryKeepsItsMoment(t *testing.T) {
	r := startedPulseRig(t, 1)
	*r.now += 10 * second
	sent := *r.now
	r.log.fail["Append"] = 1
	_, err := r.publish()
	require.ErrorIs(t, err, errDown)
	wait, ok := r.PulseDue()
	require.True(t, ok)
	require.GreaterOrEqual(t, wait, second)
	*r.now += wait
	d := r.rolePulse()
	require.Equal(t, sent, d.Event.Pulse.Sent)
	require.Equal(t, sent, d.Fresh)
	require.Zero(t, d.Event.Pulse.Window, "what was read back before may have been lost since")
	require.Len(t, r.log.appended[subjects.Pulse()], 2)
	*r.now += wait
	require.Equal(t, *r.now, r.rolePulse().Event.Pulse.Sent, "the next one is new")
}

func TestFreshOfForeignPulses(t *testing.T) {
	r := startedPulseRig(t, 0)
	_, _, ok := r.PingDue()
	require.False(t, ok, "nobody holds the role")
	require.Zero(t, r.pulse(bus.Pulse{Process: "other", Sent: 5 * second, Role: true}).Fresh, "its clock is unknown")
	process, wait, ok := r.PingDue()
	require.True(t, ok)
	require.Equal(t, "other", process)
	require.LessOrEqual(t, wait, time.Duration(0), "at once")
	asked := r.TakePing()
	_, _, ok = r.PingDue()
	require.False(t, ok, "one question at a time")
	*r.now += 10 * time.Millisecond
	r.Mapped("other", asked, 6*second, nil)
	*r.now += second
	require.Equal(t, asked+second-200*time.Microsecond-1, r.pulse(bus.Pulse{Process: "other", Sent: 7 * second, Role: true}).Fresh)
	_, wait, _ = r.PingDue()
	require.Greater(t, wait, 28*second)
	require.Zero(t, r.pulse(bus.Pulse{Process: "other", Sent: 9 * second, Role: true}).Fresh, "past the moment of receipt")
	_, wait, _ = r.PingDue()
	require.LessOrEqual(t, wait, time.Duration(0), "the mapping is void")
	r.TakePing()
	r.Mapped("other", *r.now, 0, errDown)
	_, wait, _ = r.PingDue()
	require.Positive(t, wait, "not again at once")
}

func TestForgedPulsesSayNothing(t *testing.T) {
	r := startedPulseRig(t, 0)
	for _, p := range []bus.Pulse{
		{Process: "me", Sent: *r.now + 1}, {Process: "me", Sent: -1}, {Sent: 5, Role: true}, {Process: "other", Sent: -5},
	} {
		require.Zero(t, r.pulse(p).Fresh)
	}
	require.Empty(t, r.Pulser())
	for _, w := range []bus.Window{{From: 3, To: 3, Digest: 1}, {From: 3, To: 1}, {From: 1, To: 1 << 40}, {Digest: 9}} {
		r.pulse(bus.Pulse{Process: "other", Window: w})
		require.Equal(t, bus.PendingNothing, r.Pending())
	}
}

// Seqs that were reused, while their new messages were lost on the wire, are
// revealed by the next pulse, and nothing is fresh with it (B3a).
func TestWindowRevealsReusedSeqs(t *testing.T) {
	for _, own := range []bool{true, false} {
		r := startedPulseRig(t, 5)
		r.log.cut(3)
		r.log.events(t, 3)
		var d bus.Delivery
		if own {
			*r.now += 10 * second
			d = r.rolePulse()
		} else {
			late := newRig(t, r.log, func(c *bus.FollowerConfig) { c.Process = "other" })
			p := late.PublishPulse(t.Context(), r.TakePulse())
			require.NoError(t, p.Err())
			r.Receive(r.log.messages[r.log.last])
			d = r.last()
		}
		require.Equal(t, uint64(7), d.Position.Seq, "applied in order")
		require.NotZero(t, d.Event.Pulse.Window)
		require.Zero(t, d.Fresh)
		require.Equal(t, bus.PendingNow, r.Pending())
		r.recover()
		r.requireDoubts(bus.ReasonForked)
		require.Len(t, r.log.appended[subjects.Fork()], 1)
	}
}

// What waited behind a pulse whose window differs is not applied before the log has
// been matched: it would prove what is not so, to a barrier for instance (I6, I9).
func TestNothingIsAppliedBeforeADifferingWindowIsMatched(t *testing.T) {
	r := startedPulseRig(t, 5)
	r.log.cut(3)
	r.log.events(t, 3)
	*r.now += 10 * second
	_, err := r.publish()
	require.NoError(t, err)
	body, err := bus.Encode(r.Pulse())
	require.NoError(t, err)
	barrier, err := r.log.Append(t.Context(), subjects.Pulse(), "barrier", body)
	require.NoError(t, err)
	r.Receive(r.log.messages[barrier])
	r.Receive(r.log.messages[barrier-1])
	require.Equal(t, barrier-1, r.last().Position.Seq)
	require.Zero(t, r.last().Fresh)
	r.recover()
	r.requireDoubts(bus.ReasonForked)
	require.NotContains(t, r.applied(), barrier)
}

// Other content inside, below the same tail: the leader is asked for all of the
// window, whatever replicas say.
func TestWindowRevealsOtherContentBelowTheTail(t *testing.T) {
	r := startedPulseRig(t, 6)
	*r.now += 10 * second
	require.NotZero(t, r.rolePulse().Fresh, "matched up to here")
	for _, m := range r.log.events(t, 5) {
		r.Receive(m)
	}
	corrupt := r.log.messages[11]
	kept := corrupt
	corrupt.Data = append([]byte(nil), "{}"...)
	r.log.messages[11] = corrupt
	*r.now += 10 * second
	require.Zero(t, r.rolePulse().Fresh)
	r.log.onRange = func(messages []bus.Message) {
		for i := range messages {
			if messages[i].Seq == 11 {
				messages[i] = kept
			}
		}
	}
	r.recover()
	r.requireDoubts(bus.ReasonForked)
}

func TestAgreeingWindowIsAMatching(t *testing.T) {
	r := startedPulseRig(t, 50)
	*r.now += 10 * second
	require.NotZero(t, r.rolePulse().Fresh)
	r.log.calls = nil
	r.log.maxRange = 5
	r.Disturbed()
	r.recover()
	require.LessOrEqual(t, len(r.log.calls), 4, "what the pulse vouched for is not read again: %v", r.log.calls)
	r.requireDoubts()
}

// Seqs that were reused, whose new messages were lost on the wire and then
// trimmed, so that no window can name them: that nobody vouches for them shows.
func TestWindowAboveWhatWasTrimmedUnmatched(t *testing.T) {
	r := startedPulseRig(t, 5)
	r.log.cut(3)
	r.log.events(t, 4)
	r.log.trim(7)
	r.Receive(r.log.messages[7])
	require.Equal(t, bus.PendingNothing, r.Pending(), "what came was contiguous")
	late := newRig(t, r.log, func(c *bus.FollowerConfig) { c.Process = "other" })
	p := late.PublishPulse(t.Context(), r.TakePulse())
	require.NoError(t, p.Err())
	r.Receive(r.log.messages[8])
	require.Equal(t, bus.Window{From: 6, To: 7}, func() bus.Window { w := r.last().Event.Pulse.Window; w.Digest = 0; return w }())
	require.Equal(t, bus.PendingNow, r.Pending())
	r.recover()
	r.requireDoubts(bus.ReasonTrimmed)
}

func TestWindowIsWhatTheLogProves(t *testing.T) {
	window := func(t *testing.T, events int, change func(*fakeLog)) (bus.Window, pulseRig) {
		r := startedPulseRig(t, events)
		*r.now += 10 * second
		change(r.log)
		p, err := r.publish()
		require.NoError(t, p.Err())
		if err != nil {
			t.Log(err)
		}
		e, err := bus.Decode(bus.KindPulse, r.log.messages[r.log.last].Data)
		require.NoError(t, err)
		w := e.Pulse.Window
		w.Digest = 0
		return w, r
	}
	w, r := window(t, 8, func(l *fakeLog) { l.lag = 3 })
	require.Equal(t, bus.Window{To: 9}, w, "what a replica lacks is read from the leader")
	r.Receive(r.log.messages[r.log.last])
	require.Equal(t, bus.PendingNothing, r.Pending(), "and agrees with what was applied")
	w, _ = window(t, 300, func(l *fakeLog) { l.lag = 1000 })
	require.Equal(t, bus.Window{To: 256}, w, "of much, some")
	w, r = window(t, 8, func(l *fakeLog) { l.trim(5) })
	require.Equal(t, bus.Window{From: 4, To: 9}, w, "trimmed")
	require.Equal(t, bus.PendingAcked, r.Pending())
	w, _ = window(t, 8, func(l *fakeLog) { delete(l.messages, 6) })
	require.Equal(t, bus.Window{From: 6, To: 9}, w, "a hole")
	w, _ = window(t, 5000, func(l *fakeLog) { l.maxRange = 1000 })
	require.Equal(t, bus.Window{From: 5001 - 4096, To: 5001}, w, "cut to the newest")
	w, _ = window(t, 8, func(l *fakeLog) {
		l.onRange = func(m []bus.Message) { m[len(m)-1].MsgID = "corrupt" }
	})
	require.Zero(t, w, "the leader holds another message")
	for _, call := range []string{"Range", "At"} {
		w, r = window(t, 8, func(l *fakeLog) { l.fail[call] = 1 })
		require.Zero(t, w, "no answer: a pulse all the same")
		r.Receive(r.log.messages[r.log.last])
		require.Zero(t, func() uint64 { *r.now += 10 * second; return r.rolePulse().Event.Pulse.Window.From }(), "made up for")
	}
	gone := bus.Message{}
	_, r = window(t, 8, func(l *fakeLog) {
		l.before = func(call string, _ int) {
			if call == "At" {
				gone = l.messages[9]
				delete(l.messages, 9)
			}
		}
	})
	require.NotZero(t, gone)
	require.Equal(t, bus.PendingNow, r.Pending(), "the leader lacks what was applied")
}

// B8, C8: an acknowledged message's position is of its own epoch or a newer one.
func TestAcknowledgedPositionHasTheEpochOfItsMessage(t *testing.T) {
	ack := func(r rig, m bus.Message) <-chan bus.Position {
		told := make(chan bus.Position, 1)
		r.Expect(bus.Ack{Seq: m.Seq, MsgID: m.MsgID, Applied: told})
		return told
	}
	r := startedRig(t, 2)
	fork := r.log.store(subjects.Fork(), "fork", []byte("{}"))
	m := r.log.event(t, "mine")
	told := ack(r, m)
	require.Empty(t, told, "a fork event below it is not applied yet")
	r.Receive(fork)
	require.Empty(t, told)
	r.Receive(m)
	require.Equal(t, bus.Position{Epoch: r.Position().Epoch, Seq: m.Seq}, <-told)
	require.Equal(t, fork.Seq, r.Position().Epoch.Fork)
	require.Equal(t, r.Position(), <-ack(r, m), "applied before")

	// Acknowledged at a seq where another message was applied: rolled back.
	r.log.cut(m.Seq - 1)
	told = ack(r, r.log.event(t, "reused"))
	require.Empty(t, told)
	before := r.Position()
	r.recover()
	require.True(t, before.Epoch.Before((<-told).Epoch))
	r.requireDoubts(bus.ReasonForked)

	// Lost: the doubt's Resume covers it.
	told = ack(r, bus.Message{Seq: r.log.last + 5, MsgID: "lost"})
	r.recover()
	require.Equal(t, r.Position().Epoch, (<-told).Epoch)

	// Lost before a Resume, told after it: the log is matched first.
	m = r.log.messages[r.Position().Seq]
	told = ack(r, bus.Message{Seq: m.Seq, MsgID: "lost"})
	require.Empty(t, told)
	r.recover()
	require.Equal(t, r.Position(), <-told)
}

// A rollback beyond a fork event does not make the epoch go back, for whoever
// knew of it, and who comes later learns it from the pulses.
func TestForkPartNeverGoesDown(t *testing.T) {
	r := startedRig(t, 50)
	r.log.cut(40)
	r.log.events(t, 15)
	r.Disturbed()
	r.recover()
	r.requireDoubts(bus.ReasonForked)
	first := r.Position()
	require.Greater(t, first.Epoch.Fork, uint64(50))
	r.log.cut(5)
	r.Disturbed()
	r.recover()
	r.requireDoubts(bus.ReasonForked, bus.ReasonRolledBack)
	second := r.Position()
	require.Less(t, second.Seq, first.Seq)
	require.True(t, first.Epoch.Before(second.Epoch), "%v, then %v", first, second)
	late := newRig(t, r.log)
	late.recover()
	require.Equal(t, second.Epoch, late.Position().Epoch)
	again := r.log.event(t, "x")
	r.Receive(r.log.messages[again.Seq-1])
	r.Receive(again)
	require.Equal(t, second.Epoch, r.Position().Epoch)

	// Without history and without the fork event, the next pulse tells.
	r.log.trim(r.log.last)
	blind := newRig(t, r.log, func(c *bus.FollowerConfig) { c.Follow.Window = time.Nanosecond })
	blind.recover()
	require.Zero(t, blind.Position().Epoch.Fork)
	body, err := bus.Encode(r.Pulse())
	require.NoError(t, err)
	blind.Receive(r.log.store(subjects.Pulse(), "", body))
	require.Equal(t, second.Epoch, blind.Position().Epoch)
}

func TestForkOf(t *testing.T) {
	fork := func(known uint64) []byte {
		b, err := bus.Encode(bus.Event{Op: bus.OpFork, Pulse: bus.Pulse{Fork: known}})
		require.NoError(t, err)
		return b
	}
	for want, m := range map[uint64]bus.Message{
		7:  {Subject: subjects.Fork(), Seq: 7, Data: fork(3)},
		10: {Subject: subjects.Fork(), Seq: 7, Data: fork(9)},
		8:  {Subject: subjects.Fork(), Seq: 8, Data: fork(1<<64 - 1)},
		9:  {Subject: subjects.Fork(), Seq: 9, Data: []byte("garbage")},
		0:  {Subject: subjects.Pulse(), Seq: 9, Data: []byte("garbage")},
		4:  {Subject: subjects.Pulse(), Seq: 2, Data: []byte(`{"pulse":{"fork":4}}`)},
	} {
		require.Equal(t, want, bus.ForkOf(subjects, m))
	}
}

func TestAcksWithoutAFollower(t *testing.T) {
	a := bus.NewAcks()
	_, err := a.Position(t.Context(), bus.Ack{Seq: 1})
	require.ErrorIs(t, err, bus.ErrNotFollowing)
	require.True(t, a.Tell(bus.Ack{Seq: 1}))
	require.Empty(t, a.Queue())
	stop := a.Following()
	for a.Tell(bus.Ack{Seq: 1}) {
	}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := a.Position(ctx, bus.Ack{Seq: 2})
		failed <- err
	}()
	cancel()
	require.ErrorIs(t, <-failed, bus.ErrNotApplied)
	<-a.Queue()
	go func() {
		_, err := a.Position(t.Context(), bus.Ack{Seq: 2})
		failed <- err
	}()
	stop()
	require.ErrorIs(t, <-failed, bus.ErrNotFollowing)
}
