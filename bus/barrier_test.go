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
	barrier func(context.Context, string) (bus.Ack, error)
}

func (p scriptedPeers) Ping(context.Context, string) (time.Duration, error) { return 0, errDown }

func (p scriptedPeers) Barrier(ctx context.Context, process string) (bus.Ack, error) {
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

func nobody() string { return "" }

// Requests that arrive while a pulse is under way share the next one, never the
// present one (B6).
func TestBarriersShareTheNextPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s pulseStream
		b := bus.NewBarriers(bus.BarriersConfig{Pulser: nobody, Publish: s.publish})
		defer b.Close()
		var callers sync.WaitGroup
		for i := range 64 {
			time.Sleep(time.Millisecond)
			// One whose publishing may have begun before now proves nothing.
			begun := s.published.Load()
			callers.Go(func() {
				ack, err := b.Do(t.Context())
				require.NoError(t, err)
				require.Greater(t, ack.Seq, begun, "caller %d", i)
			})
		}
		callers.Wait()
		require.LessOrEqual(t, s.published.Load(), uint64(8), "64 callers within 64 ms, 10 ms each")
	})
}

func TestBarrierAsksThePulser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s pulseStream
		asked := 0
		b := bus.NewBarriers(bus.BarriersConfig{
			Pulser: func() string { return "pulser" }, Publish: s.publish,
			Peers: scriptedPeers{func(_ context.Context, process string) (bus.Ack, error) {
				require.Equal(t, "pulser", process)
				time.Sleep(time.Millisecond)
				asked++
				return bus.Ack{Seq: 99, MsgID: "its"}, nil
			}},
		})
		defer b.Close()
		var callers sync.WaitGroup
		for range 64 {
			callers.Go(func() {
				ack, err := b.Do(t.Context())
				require.NoError(t, err)
				require.Equal(t, bus.Ack{Seq: 99, MsgID: "its"}, ack)
			})
		}
		callers.Wait()
		require.LessOrEqual(t, asked, 3, "one question at a time for all callers")
		require.Zero(t, s.published.Load())
		ack, err := b.Serve(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 1, ack.Seq, "who is asked asks nobody")
	})
}

func TestBarrierWithoutAnAnswerPublishesItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s pulseStream
		b := bus.NewBarriers(bus.BarriersConfig{
			Pulser: func() string { return "pulser" }, Publish: s.publish,
			Peers: scriptedPeers{func(ctx context.Context, _ string) (bus.Ack, error) {
				<-ctx.Done()
				return bus.Ack{}, ctx.Err()
			}},
		})
		defer b.Close()
		begun := time.Now()
		ack, err := b.Do(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 1, ack.Seq)
		require.Equal(t, 60*time.Millisecond, time.Since(begun))
	})
}

func TestBarrierEndsWithItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan struct{}, 2) // one batch each
		b := bus.NewBarriers(bus.BarriersConfig{Pulser: nobody, Publish: func(ctx context.Context) (bus.Ack, error) {
			<-ctx.Done() // only when nobody waits any more
			ended <- struct{}{}
			return bus.Ack{}, ctx.Err()
		}})
		for _, wait := range []time.Duration{time.Second, 2 * time.Second} {
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), wait)
				defer cancel()
				_, err := b.Serve(ctx)
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
		b := bus.NewBarriers(bus.BarriersConfig{Pulser: nobody, Publish: s.publish})
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
