package membus_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/bustest"
	"github.com/nearside-cache/nearside/bus/membus"
)

// rig is a follower that never takes the pulser role, in virtual time: synctest.Wait returns when it has done all
// it does without a timer.
type rig struct {
	*membus.Bus
	s   *membus.Stream
	rec *bustest.Recorder
	t   *testing.T
}

func run(t *testing.T, o membus.Options, test func(*testing.T, rig)) {
	synctest.Test(t, func(t *testing.T) {
		s, err := membus.NewStream("default")
		require.NoError(t, err)
		r := rig{Bus: s.Attach(o), s: s, rec: bustest.NewRecorder(), t: t}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- r.Follow(ctx, r.rec, bus.FollowConfig{Window: time.Second, PulseInterval: -1})
		}()
		synctest.Wait()
		test(t, r)
		bustest.Check(t, r.rec, nil)
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, r.Close())
		require.NoError(t, r.Close(), "Close may be called twice")
	})
}

// foreign stores n events of another writer and returns the last one's seq.
func (r rig) foreign(n int) (seq uint64) {
	r.t.Helper()
	for range n {
		var err error
		seq, err = r.s.Publish("nearside.default.ev.product", "", fmt.Appendf(nil, `{"keys":["product:%d"]}`, r.s.Last()+1))
		require.NoError(r.t, err)
	}
	synctest.Wait()
	return seq
}

func (r rig) mine(ctx context.Context) (bus.Position, error) {
	return r.Publish(ctx, "product", bus.Event{Keys: []bus.KeyVersion{{Key: "product:mine"}}})
}

// at returns the seq applied.
func (r rig) at() (seq uint64) {
	synctest.Wait()
	for _, c := range r.rec.Calls() {
		switch {
		case c.Applied != nil:
			seq = c.Applied.Position.Seq
		case c.Resumed != nil:
			seq = c.Resumed.Position.Seq
		}
	}
	return seq
}

func TestGapWaitsForReordering(t *testing.T) {
	run(t, membus.Options{}, func(t *testing.T, r rig) {
		r.ReverseNext(4)
		last := r.foreign(4)
		require.Equal(t, last, r.at(), "at once")
		require.Zero(t, r.Status().Repairs)

		r.DropNext(1)
		last = r.foreign(2)
		require.Equal(t, last-2, r.at())
		time.Sleep(4 * time.Millisecond)
		require.Equal(t, last-2, r.at())
		time.Sleep(time.Millisecond)
		require.Equal(t, last, r.at(), "repaired after a few ms")
	})
}

func TestAcknowledgedIsLookedForSoon(t *testing.T) {
	run(t, membus.Options{}, func(t *testing.T, r rig) {
		r.DropNext(1)
		begun := time.Now()
		p, err := r.mine(t.Context())
		require.NoError(t, err)
		require.Equal(t, 50*time.Millisecond, time.Since(begun), "a publish returns once it is applied")
		require.Equal(t, p.Seq, r.at())
	})
}

// Acknowledged and not applied is another failure than not acknowledged.
func TestPublishAppliedTooLate(t *testing.T) {
	run(t, membus.Options{}, func(t *testing.T, r rig) {
		r.DropNext(1)
		ctx, cancel := context.WithTimeout(t.Context(), 49*time.Millisecond)
		defer cancel()
		p, err := r.mine(ctx)
		require.ErrorIs(t, err, bus.ErrNotApplied)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, bus.ErrNotAcknowledged)
		require.Equal(t, bus.Position{Seq: r.s.Last()}, p)
		time.Sleep(time.Millisecond)
		require.Equal(t, p.Seq, r.at())
	})
}

func TestSilenceAsksNothing(t *testing.T) {
	run(t, membus.Options{}, func(t *testing.T, r rig) {
		r.DropNext(1)
		last := r.foreign(1)
		time.Sleep(time.Hour)
		require.Equal(t, last-1, r.at(), "only a later message can tell")
		require.Zero(t, r.Status().Matches)
		last = r.foreign(1)
		time.Sleep(5 * time.Millisecond)
		require.Equal(t, last, r.at())
	})
}

func TestRetriesArePacedAndEndWithTheFault(t *testing.T) {
	run(t, membus.Options{}, func(t *testing.T, r rig) {
		r.DropSeq(r.s.Last() + 1)
		r.FailCalls(20)
		last := r.foreign(2)
		begun := time.Now()
		for r.at() != last {
			time.Sleep(time.Millisecond)
		}
		took := time.Since(begun)
		require.Greater(t, took, 5*time.Second, "20 failures are not asked in a hot loop")
		require.Less(t, took, 40*time.Second)
		require.Empty(t, r.rec.Doubts())
	})
}

func TestReconnectEndsThePause(t *testing.T) {
	run(t, membus.Options{}, func(t *testing.T, r rig) {
		r.DropNext(1)
		last := r.foreign(2)
		r.Disconnect()
		time.Sleep(time.Minute)
		require.Less(t, r.at(), last)
		r.Reconnect()
		require.Equal(t, last, r.at())
	})
}

func TestDelayedMessages(t *testing.T) {
	run(t, membus.Options{}, func(t *testing.T, r rig) {
		r.Hold()
		last := r.foreign(3)
		time.Sleep(time.Second)
		require.Less(t, r.at(), last)
		r.Release()
		require.Equal(t, last, r.at())
		require.Zero(t, r.Status().Repairs)
	})
}

func TestLaggingReplicaOnlyDelays(t *testing.T) {
	run(t, membus.Options{}, func(t *testing.T, r rig) {
		r.s.Lag(3)
		r.DropNext(5)
		last := r.foreign(6)
		time.Sleep(time.Second)
		require.Equal(t, last, r.at())
		require.Empty(t, r.rec.Doubts())
		r.s.Lag(0)
	})
}

func TestHoleInsideTheStream(t *testing.T) {
	run(t, membus.Options{}, func(t *testing.T, r rig) {
		r.DropNext(1)
		r.Hold()
		last := r.foreign(2)
		r.s.Remove(last - 1)
		r.Release()
		time.Sleep(time.Second)
		require.Equal(t, []bus.Reason{bus.ReasonHole}, r.rec.Doubts())
		require.Greater(t, r.at(), last)
	})
}

func TestRepairLimit(t *testing.T) {
	run(t, membus.Options{RepairLimit: 10}, func(t *testing.T, r rig) {
		r.DropNext(20)
		r.foreign(21)
		time.Sleep(time.Second)
		require.Equal(t, []bus.Reason{bus.ReasonTooFar}, r.rec.Doubts())
	})
}

func TestForgedLiveMessage(t *testing.T) {
	run(t, membus.Options{}, func(t *testing.T, r rig) {
		last := r.foreign(2)
		r.Inject(bus.Message{Seq: last, Subject: "nearside.default.flush", Data: []byte("{}"), Time: time.Now()})
		require.Equal(t, last, r.at())
		require.Empty(t, r.rec.Doubts())
		require.EqualValues(t, 1, r.Status().Matches)
	})
}

// An acknowledgement that is lost does not make a second event, and a publish
// that fails is tried again until it is stored (B8).
func TestPublishRetriesUnderOneID(t *testing.T) {
	run(t, membus.Options{}, func(t *testing.T, r rig) {
		before := r.s.Last()
		r.LoseAcks(3)
		p, err := r.mine(t.Context())
		require.NoError(t, err)
		require.Equal(t, before+1, p.Seq)
		require.Equal(t, before+1, r.s.Last())
		r.FailPublishes(3)
		p, err = r.mine(t.Context())
		require.NoError(t, err)
		require.Equal(t, before+2, p.Seq)
		require.Equal(t, p.Seq, r.at())
	})
}

func TestPublishEndsWithItsContext(t *testing.T) {
	run(t, membus.Options{}, func(t *testing.T, r rig) {
		r.Disconnect()
		require.False(t, r.Status().Connected)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		_, err := r.mine(ctx)
		require.ErrorIs(t, err, bus.ErrNotAcknowledged)
		require.Equal(t, time.Second, time.Since(begun))
		r.Reconnect()
		_, err = r.Publish(t.Context(), "", bus.Event{Keys: []bus.KeyVersion{{Key: "a"}}})
		require.ErrorIs(t, err, bus.ErrBadNamespace)
		_, err = r.Publish(t.Context(), "a", bus.Event{})
		require.ErrorContains(t, err, "names no key")
	})
}

func TestCloseEndsFollowAndPublish(t *testing.T) {
	run(t, membus.Options{}, func(t *testing.T, r rig) {
		require.Error(t, r.Follow(t.Context(), r.rec, bus.FollowConfig{}), "once only")
		require.NoError(t, r.Close())
		_, err := r.mine(t.Context())
		require.ErrorIs(t, err, bus.ErrNotAcknowledged)
		synctest.Wait()
		require.False(t, r.Status().Connected)
	})
}

func TestBadDomain(t *testing.T) {
	_, err := membus.NewStream("No Domain")
	require.ErrorIs(t, err, bus.ErrBadDomain)
}
