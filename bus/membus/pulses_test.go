package membus_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/bustest"
	"github.com/nearside-cache/nearside/bus/membus"
)

const pulseInterval = bus.DefaultPulseInterval

// fleet runs followers that take the pulser role, in virtual time. Their clocks
// are hours apart.
func fleet(t *testing.T, n int, test func(*testing.T, *membus.Stream, []rig)) {
	synctest.Test(t, func(t *testing.T) {
		s, err := membus.NewStream("default")
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, n)
		var rigs []rig
		begun := time.Now()
		for i := range n {
			r := rig{Bus: s.Attach(membus.Options{}), s: s, rec: bustest.NewRecorder(), t: t}
			clock := func() time.Duration { return time.Since(begun) + time.Duration(i+1)*time.Hour }
			go func() {
				done <- r.Follow(ctx, r.rec, bus.FollowConfig{Window: time.Second, Clock: clock})
			}()
			rigs = append(rigs, r)
		}
		synctest.Wait()
		test(t, s, rigs)
		cancel()
		for range rigs {
			require.NoError(t, <-done)
		}
		for _, r := range rigs {
			bustest.Check(t, r.rec, nil)
			require.NoError(t, r.Close())
		}
	})
}

// fresh returns how old what the i-th rig was last told is.
func (r rig) fresh(i int, now time.Duration) time.Duration {
	var newest time.Duration
	for _, c := range r.rec.Calls() {
		if c.Applied != nil {
			newest = max(newest, c.Applied.Fresh)
		}
	}
	return now + time.Duration(i+1)*time.Hour - newest
}

func holder(rigs []rig) int {
	found := -1
	for i, r := range rigs {
		if r.Status().Pulser {
			if found >= 0 {
				return -1
			}
			found = i
		}
	}
	return found
}

// With 100 sidecars there is one pulse per interval, and everybody is fresh by
// it (B4, B5).
func TestHundredSidecars(t *testing.T) {
	fleet(t, 100, func(t *testing.T, s *membus.Stream, rigs []rig) {
		begun := time.Now()
		time.Sleep(2 * time.Second)
		before := s.Last()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.InDelta(t, 40, s.Last()-before, 2)
		require.GreaterOrEqual(t, holder(rigs), 0)
		for i, r := range rigs {
			require.Less(t, r.fresh(i, time.Since(begun)), pulseInterval+10*time.Millisecond, "sidecar %d", i)
		}
		gone := holder(rigs)
		rigs[gone].Disconnect()
		time.Sleep(4 * pulseInterval)
		next := holder(append(append([]rig{}, rigs[:gone]...), rigs[gone+1:]...))
		require.GreaterOrEqual(t, next, 0, "another one holds the role")
		require.Greater(t, rigs[gone].fresh(gone, time.Since(begun)), 3*pulseInterval, "who is cut off is not fresh")
		rigs[gone].Reconnect()
		time.Sleep(2 * pulseInterval)
		synctest.Wait()
		require.Less(t, rigs[gone].fresh(gone, time.Since(begun)), 2*pulseInterval)
	})
}

// The rule "no pulse" removed would leave the last message before a silence lost
// for ever: a pulse reveals it within an interval and a half.
func TestLostLastMessageIsFoundByAPulse(t *testing.T) {
	fleet(t, 2, func(t *testing.T, s *membus.Stream, rigs []rig) {
		time.Sleep(2 * time.Second)
		for _, r := range rigs {
			r.DropNext(1)
		}
		lost := rigs[0].foreign(1)
		time.Sleep(pulseInterval * 3 / 2)
		for _, r := range rigs {
			require.GreaterOrEqual(t, r.at(), lost)
			require.Empty(t, r.rec.Doubts())
		}
	})
}

// The rule B3a removed would leave seqs reused and lost on the wire unnoticed.
func TestReusedSeqsLostOnTheWire(t *testing.T) {
	fleet(t, 2, func(t *testing.T, s *membus.Stream, rigs []rig) {
		time.Sleep(2 * time.Second)
		s.Snapshot()
		rigs[0].foreign(3)
		time.Sleep(time.Millisecond)
		s.Rollback()
		for _, r := range rigs {
			r.DropNext(3)
		}
		rigs[0].foreign(3)
		for _, r := range rigs {
			require.Empty(t, r.rec.Doubts(), "nobody can know yet")
		}
		time.Sleep(pulseInterval * 3 / 2)
		for _, r := range rigs {
			require.Equal(t, []bus.Reason{bus.ReasonForked}, r.rec.Doubts())
		}
	})
}

// Publishing pulses does not hold up what is applied, and one that hangs does
// not end the pulses of others.
func TestBarrierOfOneWhoseAnswerIsLate(t *testing.T) {
	fleet(t, 2, func(t *testing.T, s *membus.Stream, rigs []rig) {
		time.Sleep(2 * time.Second)
		asked := 1 - holder(rigs)
		for range 64 { // that others are asked for theirs
			_, err := rigs[1-asked].Barrier(t.Context())
			require.NoError(t, err)
		}
		synctest.Wait()
		rigs[1-asked].Disconnect()
		begun := time.Now()
		last := rigs[asked].foreign(1)
		p, err := rigs[asked].Barrier(t.Context())
		require.NoError(t, err)
		require.Greater(t, p.Seq, last)
		require.LessOrEqual(t, time.Since(begun), 50*time.Millisecond)
		rigs[1-asked].Reconnect()
	})
}
