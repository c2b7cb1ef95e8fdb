package bustest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/nearside-cache/nearside/bus"
)

// interval is that of the pulses in cases that are about them: long beside a
// call, short beside a case.
const interval = 100 * time.Millisecond

// fewPulses is how many pulses without a role 64 barriers at once may take.
const fewPulses = 16

// pulsing is a first life with a clock of its own, far from all others.
func (s *scene) pulsing() (bus.FollowConfig, *skewed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clock := &skewed{begun: s.begun, ahead: time.Duration(1+len(s.sidecars)*7%5) * time.Hour}
	return bus.FollowConfig{Window: window, Clock: clock.now, PulseInterval: interval}, clock
}

// skewed is a clock of which the test knows the true time.
type skewed struct {
	begun time.Time
	ahead time.Duration
}

func (c *skewed) now() time.Duration { return time.Since(c.begun) + c.ahead }

func (c *skewed) truth(moment time.Duration) time.Time { return c.begun.Add(moment - c.ahead) }

// pulse attaches n sidecars with clocks of their own that publish pulses.
func (s *scene) pulse(n int) []*sidecar {
	s.t.Helper()
	var sides []*sidecar
	for range n {
		config, clock := s.pulsing()
		side := s.follow(config)
		side.clock = clock
		sides = append(sides, side)
	}
	return sides
}

// process is the id under which the sidecar's pulses go: its start pulse ends
// the history of its first Resume.
func (s *sidecar) process() string {
	history := s.Resumes()[0].History
	return history[len(history)-1].Event.Pulse.Process
}

// freshest returns the true time of the newest moment that the calls vouch for.
func (s *sidecar) freshest(calls []Call) (newest time.Time) {
	for _, c := range calls {
		fresh := time.Duration(0)
		switch {
		case c.Applied != nil:
			fresh = c.Applied.Fresh
		case c.Resumed != nil:
			fresh = c.Resumed.Fresh
		}
		if at := s.clock.truth(fresh); fresh != 0 && at.After(newest) {
			newest = at
		}
	}
	return newest
}

// waitFresh waits until the sidecar is fresh as of a true time.
func (s *sidecar) waitFresh(t testing.TB, as time.Time) {
	t.Helper()
	s.Wait(t, "freshness", func(calls []Call) bool { return s.freshest(calls).After(as) })
}

// waitRolePulses waits until n more role pulses were applied.
func (s *sidecar) waitRolePulses(t testing.TB, n int) {
	t.Helper()
	have := rolePulses(s.Calls())
	s.Wait(t, "role pulses", func(calls []Call) bool { return rolePulses(calls) >= have+n })
}

func rolePulses(calls []Call) (n int) {
	for _, p := range pulses(calls) {
		if p.Event.Pulse.Role {
			n++
		}
	}
	return n
}

func pulses(calls []Call) (found []bus.Delivery) {
	for _, c := range calls {
		if c.Applied != nil && c.Applied.Event.Op == bus.OpPulse {
			found = append(found, *c.Applied)
		}
	}
	return found
}

// pulser waits until one of the sidecars holds the role and returns it.
func (s *scene) pulser(sides ...*sidecar) *sidecar {
	s.t.Helper()
	limit := time.Now().Add(patience)
	for time.Now().Before(limit) {
		for _, side := range sides {
			if side.Status().Pulser {
				return side
			}
		}
		sides[0].waitAnything()
	}
	s.t.Fatalf("nobody took the pulser role within %s", patience)
	return nil
}

// waitAnything waits for the next call, or an interval.
func (r *Recorder) waitAnything() {
	r.mu.Lock()
	changed := r.changed
	r.mu.Unlock()
	select {
	case <-changed:
	case <-time.After(interval):
	}
}

// checkFresh holds every moment that a sidecar was told against what was
// acknowledged before it, and against the true moment of its pulse (B5).
func (s *scene) checkFresh() {
	s.t.Helper()
	clocks := map[string]*skewed{}
	for _, side := range s.sidecars {
		clocks[side.process()] = side.clock
	}
	for _, side := range s.sidecars {
		calls := side.Calls()
		for i, c := range calls {
			if r := c.Resumed; r != nil && r.Fresh != 0 {
				s.checkMoment(side, calls[:i+1], side.clock.truth(r.Fresh), r.Position)
			}
			d := c.Applied
			if d == nil || d.Fresh == 0 {
				continue
			}
			fresh := side.clock.truth(d.Fresh)
			s.checkMoment(side, calls[:i+1], fresh, d.Position)
			if sent := clocks[d.Event.Pulse.Process].truth(d.Event.Pulse.Sent); fresh.After(sent) {
				s.t.Errorf("fresh as of %s after the pulse at %v was sent", fresh.Sub(sent), d.Position)
			}
		}
	}
}

// checkMoment wants everything acknowledged before fresh to be covered by at, or
// by what the calls up to there did: after a purge a start may not know of an
// earlier fork until the first pulse (ADR 0004), and its flush stands all the same.
func (s *scene) checkMoment(side *sidecar, calls []Call, fresh time.Time, at bus.Position) {
	s.t.Helper()
	for _, e := range s.acked {
		if e.At.Before(fresh) && !e.Lost && !at.Covers(e.Position) && !e.settled(calls, e.Since[side.Recorder]) {
			s.t.Errorf("fresh as of %s after %s was acknowledged at %v, but applied only to %v",
				fresh.Sub(e.At), e.Key, e.Position, at)
		}
	}
}

func caseFresh(s *scene) {
	sides := s.pulse(3)
	sides[0].waitRolePulses(s.t, 1)
	begun, have := time.Now(), rolePulses(sides[0].Calls())
	for range 4 {
		for _, side := range sides {
			side.waitFresh(s.t, time.Now())
		}
		s.publish(2)
	}
	for _, side := range sides {
		side.waitFresh(s.t, begun.Add(10*interval))
	}
	got, span := rolePulses(sides[0].Calls())-have, time.Since(begun)
	require.LessOrEqual(s.t, got, int(span/interval)+3, "pulses of three sidecars in %s", span)
	s.settle()
	s.checkFresh()
	for _, side := range sides {
		require.Empty(s.t, side.Doubts())
	}
}

func caseFreshStops(s *scene) {
	sides := s.pulse(2)
	for _, side := range sides {
		side.waitFresh(s.t, time.Now())
	}
	for i, side := range sides {
		side.Disconnect(s.t)
		cut := time.Now()
		s.publish(2)
		sides[1-i].waitFresh(s.t, cut.Add(3*interval))
		require.False(s.t, side.freshest(side.Calls()).After(cut), "fresh although cut off")
		side.Reconnect(s.t)
		side.waitFresh(s.t, time.Now())
	}
	s.settle()
	s.checkFresh()
}

// casePulserGone takes the pulser away, by its connection and by its handler.
func casePulserGone(s *scene) {
	sides := s.pulse(3)
	for _, fault := range []struct{ begin, end func(*sidecar) }{
		{func(a *sidecar) { a.Disconnect(s.t) }, func(a *sidecar) { a.Reconnect(s.t) }},
		{func(a *sidecar) { a.Block() }, func(a *sidecar) { a.Unblock() }},
	} {
		sides[0].waitFresh(s.t, time.Now())
		gone := s.pulser(sides...)
		fault.begin(gone)
		var left []*sidecar
		for _, side := range sides {
			if side != gone {
				left = append(left, side)
			}
		}
		for _, side := range left {
			side.waitFresh(s.t, time.Now())
		}
		s.pulser(left...)
		fault.end(gone)
		gone.waitFresh(s.t, time.Now())
	}
	s.settle()
	s.checkFresh()
	for _, side := range sides {
		require.Empty(s.t, side.Doubts())
	}
}

// caseBarrier wants everything acknowledged before a barrier to be applied where
// its position is.
func caseBarrier(s *scene) {
	sides := s.pulse(2)
	for _, side := range sides { // also before anybody is known as the pulser
		s.barrier(side)
	}
	s.pulser(sides...)
	for range 3 {
		for _, side := range sides {
			s.barrier(side)
		}
	}
	sides[0].DropNext(2)
	s.barrier(sides[0])
	gone := s.pulser(sides...)
	gone.Disconnect(s.t) // does not answer
	for _, side := range sides {
		if side != gone {
			s.barrier(side)
		}
	}
	gone.Reconnect(s.t)
	s.settle()
	s.checkFresh()
}

func (s *scene) barrier(side *sidecar) bus.Position {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	events := s.publish(2)
	p, err := side.Barrier(ctx)
	require.NoError(s.t, err)
	for _, e := range events {
		require.True(s.t, p.Covers(e.Position), "barrier at %v, %s at %v", p, e.Key, e.Position)
	}
	side.Wait(s.t, "position of the barrier", func([]Call) bool { return side.Position().Covers(p) })
	for _, e := range events {
		require.True(s.t, e.settled(side.Calls(), e.Since[side.Recorder]), e.Key)
	}
	return p
}

func caseBarrierAway(s *scene) {
	side := s.pulse(1)[0]
	side.Disconnect(s.t)
	ctx, cancel := context.WithTimeout(s.t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := side.Barrier(ctx)
	require.ErrorIs(s.t, err, bus.ErrNotAcknowledged)
	side.Reconnect(s.t)
	s.barrier(side)
	s.settle()
}

// caseBarrierAsked has sidecars need so many barriers that others ask the pulser for
// theirs.
func caseBarrierAsked(s *scene) {
	sides := s.pulse(8) // on a busy machine a few alone do not need pulses often
	limit := time.Now().Add(patience)
	pulser, asked := s.asksPulser(sides)
	for !asked { // there the storm may be a breeze, answers come late, and the role moves
		require.True(s.t, time.Now().Before(limit), "nobody asks the pulser")
		pulser, asked = s.asksPulser(sides)
	}
	other := another(sides, pulser)
	s.storm(sides, other)
	pulser.Disconnect(s.t) // does not answer
	s.barrier(other)
	pulser.Reconnect(s.t)
	s.settle()
	s.checkFresh()
}

// asksPulser reports whether, in a storm of barriers, that of one of the sides is a pulse
// of the pulser's, which it returns.
func (s *scene) asksPulser(sides []*sidecar) (pulser *sidecar, asked bool) {
	pulser = s.pulser(sides...)
	side := another(sides, pulser)
	s.storm(sides, side)
	at := s.barrier(side)
	for _, p := range pulses(side.Calls()) {
		if p.Position.Seq == at.Seq {
			asked = p.Event.Pulse.Process == pulser.process()
		}
	}
	return pulser, asked
}

// storm has all sides but one need barriers at the same time.
func (s *scene) storm(sides []*sidecar, but *sidecar) {
	var group errgroup.Group
	for _, side := range sides {
		if side == but {
			continue
		}
		group.Go(func() (err error) {
			for i := 0; i < 16 && err == nil; i++ {
				_, err = side.Barrier(s.t.Context())
			}
			return err
		})
	}
	require.NoError(s.t, group.Wait())
}

func another(sides []*sidecar, than *sidecar) *sidecar {
	if sides[0] == than {
		return sides[1]
	}
	return sides[0]
}

// caseBarriersShared has 64 callers wait at the same time, which takes a
// disconnection where the bus answers at once.
func caseBarriersShared(s *scene) {
	sides := s.pulse(2)
	s.pulser(sides...)
	for _, side := range sides {
		side.Disconnect(s.t)
	}
	have := len(pulses(sides[0].Calls())) - rolePulses(sides[0].Calls())
	var callers, begun sync.WaitGroup
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	errs := make(chan error, 64)
	for i := range cap(errs) {
		begun.Add(1)
		callers.Go(func() {
			begun.Done()
			_, err := sides[i%2].Barrier(ctx)
			errs <- err
		})
	}
	begun.Wait()
	for _, side := range sides {
		side.Reconnect(s.t)
	}
	callers.Wait()
	for range cap(errs) {
		require.NoError(s.t, <-errs)
	}
	s.settle()
	calls := sides[0].Calls()
	require.LessOrEqual(s.t, len(pulses(calls))-rolePulses(calls)-have, fewPulses)
}

// caseDropLastSilence loses the last message before a silence: only a pulse can
// tell.
func caseDropLastSilence(s *scene) {
	sides := s.pulse(2)
	sides[0].waitRolePulses(s.t, 2)
	for _, side := range sides {
		side.DropNext(1)
	}
	begun := time.Now()
	lost := s.publish(1)
	for _, side := range sides {
		s.waitAll(side, lost)
		require.Empty(s.t, side.Doubts())
	}
	require.Less(s.t, time.Since(begun), interval*3/2+slack)
	s.settle()
}

// slack is for a machine that is busy with other things.
const slack = 2 * time.Second

// caseReusedUnseen reuses seqs that were applied, and loses their new messages
// on the wire as well: only the window digest of a pulse can tell (B3a).
func caseReusedUnseen(s *scene) {
	sides := s.pulse(2)
	sides[0].waitRolePulses(s.t, 2)
	s.snapshot()
	lost := s.publish(5)
	for _, side := range sides {
		s.waitAll(side, lost)
		side.DropNext(1 << 20)
	}
	s.rollback()
	s.publish(5)
	s.stopDropping()
	for _, side := range sides {
		side.WaitResumes(s.t, 2)
		require.Subset(s.t, []bus.Reason{bus.ReasonForked, bus.ReasonRolledBack}, side.Doubts())
	}
	s.settle()
	s.checkFresh()
	require.Eventually(s.t, func() bool {
		a, b := sides[0].Position(), sides[1].Position()
		return a.Epoch == b.Epoch && a.Epoch.Fork > 0
	}, patience, interval, "both are in one new epoch")
}

// caseForksTwice rolls back beyond a fork event: no position goes backwards.
func caseForksTwice(s *scene) {
	side := s.pulse(1)[0]
	s.waitAll(side, s.publish(2))
	s.snapshot()
	var before bus.Position
	for n := range 2 {
		s.waitAll(side, s.publish(5))
		doubts := len(side.Doubts())
		before = side.Position()
		s.rollback()
		s.publish(2)
		side.WaitResumes(s.t, doubts+2)
		s.barrier(side)
		after := side.Position()
		require.True(s.t, before.Epoch.Before(after.Epoch), "rollback %d: %v, then %v", n, before, after)
	}
	side.waitRolePulses(s.t, 1)
	late := s.pulse(1)[0] // learns of it from the pulses
	late.waitRolePulses(s.t, 1)
	require.Equal(s.t, side.Position().Epoch, late.Position().Epoch)
	s.settle()
}
