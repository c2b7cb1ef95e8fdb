package bus_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
)

// unfitLog is a log that can never be followed.
type unfitLog struct{ *fakeLog }

func (unfitLog) State(context.Context) (bus.LogState, error) {
	return bus.LogState{}, fmt.Errorf("max_msgs_per_subject is 1: %w", bus.ErrUnfit)
}

func TestDriveGivesUpOnAnUnfitStream(t *testing.T) {
	r := newRig(t, newFakeLog(), func(c *bus.FollowerConfig) { c.Log = unfitLog{newFakeLog()} })
	err := bus.Drive(t.Context(), r.Follower, bus.Feed{})
	require.ErrorIs(t, err, bus.ErrUnfit)
	require.ErrorContains(t, err, "NEARSIDE_DEFAULT")
	require.Empty(t, r.rec.Calls())
}

// hungLog never answers.
type hungLog struct{ *fakeLog }

func (hungLog) Append(ctx context.Context, _, _ string, _ []byte) (uint64, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

func TestDriveSurvivesCallsWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newFakeLog(), func(c *bus.FollowerConfig) { c.Log = hungLog{newFakeLog()} })
		ctx, cancel := context.WithCancel(t.Context())
		failures := 0
		done := make(chan error)
		go func() {
			done <- bus.Drive(ctx, r.Follower, bus.Feed{Failed: func(err error) {
				require.ErrorIs(t, err, context.DeadlineExceeded)
				failures++
			}})
		}()
		time.Sleep(time.Minute)
		cancel()
		require.NoError(t, <-done, "the end of the context is no error")
		require.Greater(t, failures, 10, "each call has a deadline of its own")
	})
}

// An acknowledgement that waits while a start is due is of a former
// incarnation's numbering and must not be expected in the new one.
func TestDriveForgetsAcknowledgementsBeforeAStart(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, newFakeLog())
			acked := make(chan bus.Ack, 1)
			acked <- bus.Ack{Seq: 1000, MsgID: "mine"}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- bus.Drive(ctx, r.Follower, bus.Feed{Acked: acked}) }()
			time.Sleep(time.Second)
			cancel()
			require.NoError(t, <-done)
			r.requireDoubts()
		})
	}
}

// silent is a handler that keeps nothing.
type silent struct{}

func (silent) Apply(bus.Delivery) {}
func (silent) Doubt(bus.Reason)   {}
func (silent) Resume(bus.Resume)  {}

func BenchmarkReceive(b *testing.B) {
	log := newFakeLog()
	f, err := bus.NewFollower(bus.FollowerConfig{Subjects: subjects, Log: log, Handler: silent{}})
	require.NoError(b, err)
	require.NoError(b, f.Recover(b.Context()))
	m := log.event(b, "product:42")
	for b.Loop() {
		f.Receive(m)
		m.Seq++
	}
	require.Equal(b, m.Seq-1, f.Position().Seq)
}
