package bustest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
)

// Run runs the suite; start makes a Harness for each case.
func Run(t *testing.T, start func(t *testing.T) Harness) {
	for _, c := range []struct {
		name string
		run  func(*scene)
	}{
		{"an acknowledged position is where the event is applied", caseAcknowledged},
		{"two followers see the same order", caseSameOrder},
		{"one id published twice is one event", caseSameID},
		{"foreign and malformed messages", caseForeign},
		{"a start sees the history", caseHistory},
		{"blind after a start", caseBlind},
		{"publishing while away", casePublishAway},
		{"one message dropped", caseDropOne},
		{"the last message dropped before silence", caseDropLast},
		{"own acknowledged message dropped", caseDropOwn},
		{"messages delivered twice", caseDuplicate},
		{"disconnected while events are published", caseDisconnect},
		{"a slow consumer", caseSlow},
		{"server killed and restarted", caseRestart},
		{"retention trimmed past us", caseTrimmed},
		{"trimmed below us", caseTrimmedBelow},
		{"purged while away", casePurgedAway},
		{"purged while connected", casePurged},
		{"stream deleted and re-created", caseRecreated},
		{"store rolled back and fewer published", caseRolledBackFewer},
		{"store rolled back and more published", caseRolledBackMore},
		{"store rolled back while away", caseRolledBackAway},
		{"fresh as of the pulses", caseFresh},
		{"not fresh while cut off", caseFreshStops},
		{"another takes over from a pulser that is gone", casePulserGone},
		{"a barrier covers everything before it", caseBarrier},
		{"a barrier while away", caseBarrierAway},
		{"barriers that are frequent are the pulser's", caseBarrierAsked},
		{"barriers share pulses", caseBarriersShared},
		{"the last message dropped, then silence", caseDropLastSilence},
		{"seqs reused and their messages dropped", caseReusedUnseen},
		{"rolled back beyond a fork event", caseForksTwice},
		{"random faults", caseRandom},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(newScene(t, start(t))) })
	}
}

var firstLife = bus.FollowConfig{Window: window}

func caseAcknowledged(s *scene) {
	side := s.follow(firstLife)
	for range 3 {
		e := s.publishOn(side, 1)[0]
		side.WaitEvent(s.t, e.Key)
		require.Equal(s.t, e.Position, side.Event(s.t, e.Key).Position)
	}
	require.True(s.t, side.Status().Connected)
	require.Empty(s.t, side.Doubts())
	s.settle()
}

func caseSameOrder(s *scene) {
	a, b := s.follow(firstLife), s.follow(firstLife)
	var writers sync.WaitGroup
	for _, from := range []Attachment{s.writer, a, b} {
		writers.Go(func() { s.publishOn(from, 50) })
	}
	writers.Wait()
	s.settle()
	last := s.publish(1)[0]
	a.WaitEvent(s.t, last.Key)
	b.WaitEvent(s.t, last.Key)
	require.Equal(s.t, keysAbove(b, last.Position.Seq-150), keysAbove(a, last.Position.Seq-150))
	require.Empty(s.t, append(a.Doubts(), b.Doubts()...))
}

func keysAbove(side *sidecar, seq uint64) (keys []string) {
	for _, c := range side.Calls() {
		if c.Applied != nil && c.Applied.Position.Seq > seq && len(c.Applied.Event.Keys) > 0 {
			keys = append(keys, c.Applied.Event.Keys[0].Key)
		}
	}
	return keys
}

func caseSameID(s *scene) {
	side := s.follow(firstLife)
	e := s.begin()
	for range 2 {
		p, err := s.writer.Publish(s.t.Context(), namespace, bus.Event{ID: "the-id", Keys: []bus.KeyVersion{{Key: e.Key}}})
		require.NoError(s.t, err)
		if e.Position.IsZero() {
			e.Position = p
		}
		require.Equal(s.t, e.Position.Seq, p.Seq)
	}
	s.acked = append(s.acked, e)
	s.settle()
	require.Equal(s.t, "the-id", side.Event(s.t, e.Key).Event.ID)
}

func caseForeign(s *scene) {
	side := s.follow(firstLife)
	subject, err := s.h.Subjects().Event("product")
	require.NoError(s.t, err)
	json := s.raw(subject, `{"keys":[{"key":"product:42","version":7}],"unknown":1}`)
	garbage := s.raw(subject, "\xff\x00 no event")
	stranger := s.raw(s.h.Subjects().Pulse()+".stranger", `{}`)
	flush := s.raw(s.h.Subjects().Flush(), `{}`)
	s.settle()

	at := map[uint64]bus.Delivery{}
	for _, c := range side.Calls() {
		if c.Applied != nil {
			at[c.Applied.Position.Seq] = *c.Applied
		}
	}
	require.NoError(s.t, at[json].Err)
	require.Equal(s.t, []bus.KeyVersion{{Key: "product:42", Version: 7}}, at[json].Event.Keys)
	require.Equal(s.t, "product", at[json].Namespace)
	require.ErrorIs(s.t, at[garbage].Err, bus.ErrMalformed)
	require.Equal(s.t, "product", at[garbage].Namespace)
	require.ErrorIs(s.t, at[stranger].Err, bus.ErrBadSubject)
	require.Empty(s.t, at[stranger].Namespace)
	require.Equal(s.t, bus.OpFlush, at[flush].Event.Op)
	require.Empty(s.t, at[flush].Namespace)
}

func caseHistory(s *scene) {
	events := s.publish(5)
	side := s.follow(bus.FollowConfig{Window: window})
	resume := side.Resumes()[0]
	seen := map[string]uint64{}
	for _, d := range resume.History {
		require.NoError(s.t, d.Err)
		if len(d.Event.Keys) > 0 {
			seen[d.Event.Keys[0].Key] = d.Position.Seq
		}
	}
	for _, e := range events {
		require.Equal(s.t, e.Position.Seq, seen[e.Key], e.Key)
	}
	require.Less(s.t, resume.HistoryFrom, events[0].Position.Seq)
	require.Equal(s.t, resume.Position.Seq, resume.History[len(resume.History)-1].Position.Seq)
	s.settle()
}

func caseBlind(s *scene) {
	s.publish(1)
	first := s.follow(bus.FollowConfig{Window: window})
	require.Equal(s.t, 2*window, first.Resumes()[0].Blind, "nothing is known of what was before")
	earlier := bus.Earlier{Epoch: first.Resumes()[0].Position.Epoch, Seq: first.Resumes()[0].HistoryFrom}
	again := s.follow(bus.FollowConfig{Window: window, Earlier: func() bus.Earlier { return earlier }})
	require.Zero(s.t, again.Resumes()[0].Blind, "this very stream was followed before")
	s.settle()
}

func casePublishAway(s *scene) {
	side := s.follow(firstLife)
	side.Disconnect(s.t)
	ctx, cancel := context.WithTimeout(s.t.Context(), 200*time.Millisecond)
	defer cancel()
	begun := time.Now()
	_, err := side.Publish(ctx, namespace, bus.Event{Keys: []bus.KeyVersion{{Key: "product:away"}}})
	require.ErrorIs(s.t, err, bus.ErrNotAcknowledged)
	require.Less(s.t, time.Since(begun), 2*time.Second, "the deadline is the caller's")
	side.Reconnect(s.t)
	s.settle()
	s.publishOn(side, 1)
	s.settle()
}

func caseDropOne(s *scene) {
	side := s.follow(firstLife)
	s.waitAll(side, s.publish(2))
	side.DropNext(1)
	s.waitAll(side, s.publish(3))
	s.settle()
	require.Empty(s.t, side.Doubts())
	require.Positive(s.t, side.Status().Gaps)
	require.Positive(s.t, side.Status().Repairs)
}

func caseDropLast(s *scene) {
	side := s.follow(firstLife)
	s.waitAll(side, s.publish(1))
	side.DropNext(1)
	lost := s.publish(1)
	s.waitAll(side, s.publish(1))
	s.waitAll(side, lost)
	s.settle()
	require.Empty(s.t, side.Doubts())
}

func caseDropOwn(s *scene) {
	side := s.follow(firstLife)
	side.DropNext(1)
	s.waitAll(side, s.publishOn(side, 1))
	require.Empty(s.t, side.Doubts())
	s.settle()
}

func caseDuplicate(s *scene) {
	side := s.follow(firstLife)
	side.DuplicateNext(5)
	s.waitAll(side, s.publish(8))
	s.settle()
	require.Empty(s.t, side.Doubts())
}

func caseDisconnect(s *scene) {
	side := s.follow(firstLife)
	s.waitAll(side, s.publish(2))
	side.Disconnect(s.t)
	missed := s.publish(5)
	side.Reconnect(s.t)
	s.waitAll(side, missed)
	s.settle()
	require.Empty(s.t, side.Doubts())
	require.Positive(s.t, side.Status().Matches, "a reconnect matches the log")
}

func caseSlow(s *scene) {
	side := s.follow(firstLife)
	side.Block()
	events := s.publish(side.LiveBuffer() + 50)
	side.Unblock()
	s.waitAll(side, events[len(events)-1:])
	s.settle()
	require.Empty(s.t, side.Doubts())
}

func caseRestart(s *scene) {
	side := s.follow(firstLife)
	for range 2 {
		s.publish(3)
		s.h.Restart(s.t)
		s.waitAll(side, s.publish(3))
	}
	s.settle()
	require.Empty(s.t, side.Doubts())
}

func caseTrimmed(s *scene) {
	side := s.follow(firstLife)
	s.waitAll(side, s.publish(2))
	side.Disconnect(s.t)
	missed := s.publish(5)
	s.h.Trim(s.t, missed[3].Position.Seq)
	side.Reconnect(s.t)
	side.WaitResumes(s.t, 2)
	s.settle()
	require.Equal(s.t, []bus.Reason{bus.ReasonTrimmed}, side.Doubts())
	require.Equal(s.t, side.Resumes()[0].Position.Epoch, side.Resumes()[1].Position.Epoch, "nothing forked")
	require.Positive(s.t, side.Resumes()[1].Blind, "the trimmed events are of the last windows")
}

func caseTrimmedBelow(s *scene) {
	side := s.follow(firstLife)
	events := s.publish(5)
	s.waitAll(side, events)
	side.Disconnect(s.t)
	side.Reconnect(s.t)
	s.waitAll(side, s.publish(1)) // after the log was matched
	s.h.Trim(s.t, events[3].Position.Seq)
	side.DropNext(1)
	s.waitAll(side, s.publish(3))
	s.settle()
	require.Empty(s.t, side.Doubts(), "what was trimmed had been applied and matched")
}

func casePurgedAway(s *scene) {
	side := s.follow(firstLife)
	s.waitAll(side, s.publish(2))
	side.Disconnect(s.t)
	s.publish(3)
	s.h.Purge(s.t)
	side.Reconnect(s.t)
	side.WaitResumes(s.t, 2)
	s.settle()
	require.Equal(s.t, []bus.Reason{bus.ReasonTrimmed}, side.Doubts())
}

func casePurged(s *scene) {
	side := s.follow(firstLife)
	s.waitAll(side, s.publish(3))
	s.h.Purge(s.t)
	s.publish(3)
	s.settle()
	// What was purged had been applied; but where a message is late, log matching
	// finds nothing of it any more (B3).
	for _, r := range side.Doubts() {
		require.Equal(s.t, bus.ReasonTrimmed, r)
	}
}

func caseRecreated(s *scene) {
	side := s.follow(firstLife)
	s.waitAll(side, s.publish(5))
	s.h.DeleteStream(s.t)
	s.h.Recreate(s.t)
	s.publish(2)
	side.WaitResumes(s.t, 2)
	s.settle()
	former, now := side.Resumes()[0].Position.Epoch, side.Position().Epoch
	require.NotEqual(s.t, former.Created, now.Created)
	require.Zero(s.t, now.Fork, "another incarnation is no fork")
	require.NotEmpty(s.t, side.Doubts())
	require.Positive(s.t, side.Resumes()[1].Blind, "the former stream's last events cannot be read")
}

// Position returns the newest position that the handler was told.
func (s *sidecar) Position() (p bus.Position) {
	for _, c := range s.Calls() {
		switch {
		case c.Applied != nil:
			p = c.Applied.Position
		case c.Resumed != nil:
			p = c.Resumed.Position
		}
	}
	return p
}

func caseRolledBackFewer(s *scene) { rolledBack(s, 2, false) }
func caseRolledBackMore(s *scene)  { rolledBack(s, 9, false) }
func caseRolledBackAway(s *scene)  { rolledBack(s, 9, true) }

// rolledBack loses five applied events, stores n others in their place, and
// wants every follower to notice and to agree on a new epoch.
func rolledBack(s *scene, n int, away bool) {
	a, b := s.follow(firstLife), s.follow(firstLife)
	s.waitAll(a, s.publish(2))
	s.snapshot()
	lost := s.publish(5)
	s.waitAll(a, lost)
	s.waitAll(b, lost)
	if away {
		a.Disconnect(s.t)
		b.Disconnect(s.t)
	}
	s.rollback()
	s.publish(n)
	if away {
		a.Reconnect(s.t)
		b.Reconnect(s.t)
	}
	for _, side := range []*sidecar{a, b} {
		side.WaitResumes(s.t, 2)
		require.Subset(s.t, []bus.Reason{bus.ReasonForked, bus.ReasonRolledBack}, side.Doubts())
	}
	s.settle()
	last := s.publish(1)[0]
	a.WaitEvent(s.t, last.Key)
	b.WaitEvent(s.t, last.Key)
	require.Equal(s.t, a.Position().Epoch, b.Position().Epoch, "both are in one new epoch")
	require.Positive(s.t, a.Position().Epoch.Fork)
	require.Positive(s.t, a.Status().Forks+b.Status().Forks)
}
