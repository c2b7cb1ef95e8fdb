package bus_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
)

// scriptedPeers answers as a test says.
type scriptedPeers struct {
	barrier func(context.Context, string) (bus.Ack, int, error)
}

func (p scriptedPeers) Ping(context.Context, string) (time.Duration, error) { return 0, errDown }

func (p scriptedPeers) Barrier(ctx context.Context, process string) (bus.Ack, int, error) {
	return p.barrier(ctx, process)
}

// pulseStream acknowledges a pulse after a while.
type pulseStream struct {
	published atomic.Uint64
	err       error
}

func (s *pulseStream) publish(ctx context.Context) (bus.Ack, error) {
	seq := s.published.Add(1)
	select {
	case <-time.After(10 * time.Millisecond):
		return bus.Ack{Seq: seq}, s.err
	case <-ctx.Done():
		return bus.Ack{}, ctx.Err()
	}
}

const self = "self"

func nobody() string { return "" }

func pulser() string { return "pulser" }

// barriers completes c with what most tests do not care for: what is acknowledged
// is applied at once.
func barriers(c bus.BarriersConfig) *bus.Barriers {
	c.Process = self
	if c.Pulser == nil {
		c.Pulser = nobody
	}
	if c.Applied == nil {
		c.Applied = func(_ context.Context, a bus.Ack) (bus.Position, error) { return bus.Position{Seq: a.Seq}, nil }
	}
	if c.Tell == nil {
		c.Tell = func(bus.Ack) {}
	}
	return bus.NewBarriers(c)
}

// hear has b see n barrier pulses of a process in the stream.
func hear(b *bus.Barriers, process string, n int) {
	h := b.Watch(ignore{})
	for range n {
		h.Apply(bus.Delivery{Event: bus.Event{Op: bus.OpPulse, Pulse: bus.Pulse{Process: process}}})
	}
}

// ignore is a Handler.
type ignore struct{}

func (ignore) Apply(bus.Delivery) {}
func (ignore) Doubt(bus.Reason)   {}
func (ignore) Resume(bus.Resume)  {}

// many is more foreign pulses than are few.
const many = 100

// Requests that arrive while a pulse is under way share the next one, never the
// present one (B6).
func TestBarriersShareTheNextPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s pulseStream
		b := barriers(bus.BarriersConfig{Publish: s.publish})
		defer b.Close()
		var callers sync.WaitGroup
		for i := range 64 {
			time.Sleep(time.Millisecond)
			// One whose publishing may have begun before now proves nothing.
			begun := s.published.Load()
			callers.Go(func() {
				if i%2 == 0 {
					p, err := b.Do(t.Context())
					require.NoError(t, err)
					require.Greater(t, p.Seq, begun, "caller %d", i)
					return
				}
				ack, _, err := b.Serve(t.Context())
				require.NoError(t, err)
				require.Greater(t, ack.Seq, begun, "caller %d", i)
			})
		}
		callers.Wait()
		require.LessOrEqual(t, s.published.Load(), uint64(8), "64 callers within 64 ms, 10 ms each")
	})
}

// While others need few barriers, nobody is asked: that takes twice as long. While
// they need many, one question at a time is asked for all callers (ADR 0007).
func TestBarrierAsksThePulserWhenOthersNeedMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s pulseStream
		asked := 0
		b := barriers(bus.BarriersConfig{
			Pulser: pulser, Publish: s.publish,
			Peers: scriptedPeers{func(_ context.Context, process string) (bus.Ack, int, error) {
				require.Equal(t, "pulser", process)
				time.Sleep(time.Millisecond)
				asked++
				return bus.Ack{Seq: 99, MsgID: "its"}, 7, nil
			}},
		})
		defer b.Close()
		do := func() (seqs []uint64) {
			var callers sync.WaitGroup
			var mu sync.Mutex
			for range 64 {
				callers.Go(func() {
					p, err := b.Do(t.Context())
					require.NoError(t, err)
					mu.Lock()
					defer mu.Unlock()
					seqs = append(seqs, p.Seq)
				})
			}
			callers.Wait()
			return seqs
		}
		hear(b, self, many)
		hear(b, "another", 16)
		do()
		require.Zero(t, asked, "few, and our own do not count")
		require.LessOrEqual(t, s.published.Load(), uint64(2))

		published := s.published.Load()
		hear(b, "another", many)
		require.NotContains(t, do(), uint64(1))
		require.Positive(t, asked)
		require.LessOrEqual(t, asked, 2, "one question at a time for all callers")
		require.Equal(t, published, s.published.Load())
		ack, shared, err := b.Serve(t.Context())
		require.NoError(t, err)
		require.Equal(t, published+1, ack.Seq, "who is asked asks nobody")
		require.Equal(t, 1, shared)

		time.Sleep(time.Minute)
		asked = 0
		do()
		require.Zero(t, asked, "calm again")
	})
}

// One who shared a pulse with nobody is the only one who needs barriers, although
// the pulses are the pulser's: it goes back to its own. Who shares goes on asking,
// although only one pulse is seen for all.
func TestBarrierKnowsHowManyShare(t *testing.T) {
	for _, shared := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			var s pulseStream
			var b *bus.Barriers
			asked := 0
			b = barriers(bus.BarriersConfig{
				Pulser: pulser, Publish: s.publish,
				Peers: scriptedPeers{func(context.Context, string) (bus.Ack, int, error) {
					time.Sleep(10 * time.Millisecond)
					asked++
					hear(b, "pulser", 1)
					return bus.Ack{Seq: 99}, shared, nil
				}},
			})
			defer b.Close()
			hear(b, "another", many)
			for range 1500 { // 15 s
				_, err := b.Do(t.Context())
				require.NoError(t, err)
			}
			if shared == 1 {
				require.Less(t, asked, 600, "about the time in which the former pulses are forgotten")
			} else {
				require.Equal(t, 1500, asked)
			}
		})
	}
}

// What is acknowledged need not be applied: the caller waits for that, and those
// who share wait once. The next pulse does not wait (B6).
func TestBarrierWaitsUntilApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s pulseStream
		var waits atomic.Int64
		b := barriers(bus.BarriersConfig{Publish: s.publish, Applied: func(ctx context.Context, a bus.Ack) (bus.Position, error) {
			waits.Add(1)
			time.Sleep(100 * time.Millisecond)
			return bus.Position{Seq: a.Seq}, ctx.Err()
		}})
		defer b.Close()
		begun := time.Now()
		var callers sync.WaitGroup
		for range 10 {
			callers.Go(func() {
				_, err := b.Do(t.Context())
				require.NoError(t, err)
			})
		}
		callers.Wait()
		require.EqualValues(t, 2, waits.Load(), "one for the first, and one for all others")
		require.Equal(t, 120*time.Millisecond, time.Since(begun), "two pulses, and the last one's wait")

		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := b.Do(ctx)
		require.Error(t, err)
	})
}

// A pulse that the handler has applied under its id at its seq needs no wait;
// another message at that seq is left to the Follower (B3).
func TestBarrierAppliedBeforeItIsAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := bus.Position{Epoch: bus.Epoch{Created: 7}, Seq: 5}
		var b *bus.Barriers
		stored := "mine"
		b = barriers(bus.BarriersConfig{
			Publish: func(context.Context) (bus.Ack, error) {
				b.Watch(ignore{}).Apply(bus.Delivery{Position: at, Event: bus.Event{
					Op: bus.OpPulse, ID: stored, Pulse: bus.Pulse{Process: self},
				}})
				return bus.Ack{Seq: 5, MsgID: "mine"}, nil
			},
			Applied: func(context.Context, bus.Ack) (bus.Position, error) { return bus.Position{}, errDown },
		})
		defer b.Close()
		p, err := b.Do(t.Context())
		require.NoError(t, err)
		require.Equal(t, at, p)
		stored = "another's"
		_, err = b.Do(t.Context())
		require.ErrorIs(t, err, errDown)
		stored, at.Seq = "mine", 6
		_, err = b.Do(t.Context())
		require.ErrorIs(t, err, errDown)
	})
}

// Nobody here waits for a pulse that another process asked for, but the Follower
// expects it.
func TestServedBarrierIsExpected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s pulseStream
		var told []bus.Ack
		b := barriers(bus.BarriersConfig{Publish: s.publish, Tell: func(a bus.Ack) { told = append(told, a) }})
		ack, shared, err := b.Serve(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, shared)
		b.Close()
		require.Equal(t, []bus.Ack{ack}, told)
	})
}

func TestBarrierWithoutAnAnswerPublishesItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s pulseStream
		b := barriers(bus.BarriersConfig{
			Pulser: pulser, Publish: s.publish,
			Peers: scriptedPeers{func(ctx context.Context, _ string) (bus.Ack, int, error) {
				<-ctx.Done()
				return bus.Ack{}, 0, ctx.Err()
			}},
		})
		defer b.Close()
		hear(b, "another", many)
		begun := time.Now()
		p, err := b.Do(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 1, p.Seq)
		require.Equal(t, 60*time.Millisecond, time.Since(begun))
	})
}

func TestBarrierEndsWithItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan struct{}, 2) // one batch each
		b := barriers(bus.BarriersConfig{Publish: func(ctx context.Context) (bus.Ack, error) {
			<-ctx.Done() // only when nobody waits any more
			ended <- struct{}{}
			return bus.Ack{}, ctx.Err()
		}})
		for _, wait := range []time.Duration{time.Second, 2 * time.Second} {
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), wait)
				defer cancel()
				_, _, err := b.Serve(ctx)
				require.ErrorIs(t, err, bus.ErrNotAcknowledged)
				require.ErrorIs(t, err, context.DeadlineExceeded)
			}()
			synctest.Wait()
		}
		begun := time.Now()
		<-ended
		<-ended
		require.Less(t, time.Since(begun), 3*time.Second)
		synctest.Wait()
		b.Close()
		b.Close()
		_, err := b.Do(t.Context())
		require.ErrorIs(t, err, bus.ErrNotAcknowledged)
	})
}

func TestBarriersCloseWhileOneWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := pulseStream{err: errors.New("refused")}
		b := barriers(bus.BarriersConfig{Publish: s.publish})
		_, err := b.Do(t.Context())
		require.ErrorIs(t, err, s.err)
		failed := make(chan error, 1)
		go func() {
			_, err := b.Do(t.Context())
			failed <- err
		}()
		time.Sleep(time.Millisecond)
		b.Close()
		require.ErrorIs(t, <-failed, context.Canceled)
	})
}
