package bus_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
)

// Times of the fleet's network.
const (
	ackTakes = time.Millisecond
	askTakes = time.Millisecond // there and back
)

// barrierFleet is processes that need barriers, and the stream that they share, in
// virtual time. Process 0 is the pulser.
type barrierFleet struct {
	t     *testing.T
	sides []*bus.Barriers
	heard []bus.Handler

	mu     sync.Mutex
	last   uint64 // stored
	acked  uint64 // the newest that anybody was told of
	pulses int
	shared int
}

func newBarrierFleet(t *testing.T, n int) *barrierFleet {
	f := &barrierFleet{t: t}
	for i := range n {
		process := fmt.Sprint(i)
		b := bus.NewBarriers(bus.BarriersConfig{
			Process: process,
			Pulser: func() string {
				if i == 0 {
					return ""
				}
				return "0"
			},
			Peers:   scriptedPeers{f.ask},
			Publish: func(ctx context.Context) (bus.Ack, error) { return f.publish(ctx, process) },
			Applied: func(context.Context, bus.Ack) (bus.Position, error) { return bus.Position{}, errDown },
			Tell:    func(bus.Ack) {},
		})
		f.sides = append(f.sides, b)
		f.heard = append(f.heard, b.Watch(ignore{}))
	}
	return f
}

func (f *barrierFleet) close() {
	for _, b := range f.sides {
		b.Close()
	}
}

// publish stores a pulse half the time before it is acknowledged: those who begin
// after that half must not have it. Everybody applies it at once.
func (f *barrierFleet) publish(ctx context.Context, process string) (bus.Ack, error) {
	time.Sleep(ackTakes / 2)
	if ctx.Err() != nil {
		return bus.Ack{}, ctx.Err()
	}
	f.mu.Lock()
	f.last++
	seq := f.last
	f.pulses++
	id := fmt.Sprint("pulse ", seq)
	for _, h := range f.heard {
		h.Apply(bus.Delivery{Position: bus.Position{Seq: seq}, Event: bus.Event{
			Op: bus.OpPulse, ID: id, Pulse: bus.Pulse{Process: process},
		}})
	}
	f.mu.Unlock()
	time.Sleep(ackTakes / 2)
	return bus.Ack{Seq: seq, MsgID: id}, nil
}

func (f *barrierFleet) ask(ctx context.Context, _ string) (bus.Ack, int, error) {
	time.Sleep(askTakes / 2)
	ack, shared, err := f.sides[0].Serve(ctx)
	time.Sleep(askTakes / 2)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shared++
	return ack, shared, errors.Join(err, ctx.Err())
}

// write stores and acknowledges an event.
func (f *barrierFleet) write() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	f.acked = f.last
}

// barrier checks that whatever was acknowledged before the call is covered (B6).
func (f *barrierFleet) barrier(i int) {
	f.write()
	f.mu.Lock()
	acked := f.acked
	f.mu.Unlock()
	p, err := f.sides[i].Do(f.t.Context())
	if errors.Is(err, errDown) {
		return // another pulse was applied since: the Follower would be asked
	}
	require.NoError(f.t, err)
	require.Greater(f.t, p.Seq, acked, "process %d", i)
}

// storm has every process need barriers all the time for d, and returns how many
// pulses that took.
func (f *barrierFleet) storm(d time.Duration) int {
	begun, before := time.Now(), f.pulses
	var all sync.WaitGroup
	for i := range f.sides {
		all.Go(func() {
			for time.Since(begun) < d {
				f.barrier(i)
			}
		})
	}
	all.Wait()
	return f.pulses - before
}

// With barriers all the time in every process, the pulses are those of the pulser,
// one after the other, and few besides, however many processes there are.
func TestBarrierPulsesAreBounded(t *testing.T) {
	for _, n := range []int{10, 100} {
		synctest.Test(t, func(t *testing.T) {
			f := newBarrierFleet(t, n)
			defer f.close()
			const d = 100 * time.Millisecond
			const pulsers = int(d/ackTakes) + 3 // those under way at either end
			require.LessOrEqual(t, f.storm(d), pulsers+16+2*n, "%d processes", n)
			require.LessOrEqual(t, f.storm(d), pulsers, "%d processes, as it goes on", n)
		})
	}
}

// Bursts do not look like calm because each is over before anybody sees it.
func TestBarrierBurstsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, bursts = 100, 60
		f := newBarrierFleet(t, n)
		defer f.close()
		for range bursts {
			begun := time.Now()
			var all sync.WaitGroup
			for i := range n {
				all.Go(func() { f.barrier(i) })
			}
			all.Wait()
			time.Sleep(time.Second - time.Since(begun))
		}
		require.LessOrEqual(t, f.pulses, bursts*(16+3)+n, "16 a second are few; each for itself would be %d", bursts*n)
	})
}

// Directly and shared, in calm and in storms, and while both go on at the same
// time: no barrier is below what was acknowledged before its call (B6).
func TestBarrierWaysMixed(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		f := newBarrierFleet(t, 8)
		defer f.close()
		var all sync.WaitGroup
		for i := range f.sides {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			all.Go(func() {
				for range 20 {
					pause := time.Duration(rng.Int64N(int64(100 * time.Millisecond)))
					for range 1 + rng.IntN(50) {
						f.barrier(i)
						time.Sleep(time.Duration(rng.Int64N(int64(pause) + 1)))
					}
					time.Sleep(time.Duration(rng.Int64N(int64(5 * time.Second))))
				}
			})
		}
		all.Wait()
		require.Positive(t, f.shared, "some asked")
		require.Greater(t, f.pulses, f.shared/8, "some did not")
	})
}
