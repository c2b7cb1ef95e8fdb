package refresh_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/clock"
	"github.com/nearside-cache/nearside/sidecar/refresh"
)

// bench is a Queue in virtual time and what it had loaded.
type bench struct {
	*refresh.Queue
	metrics *refresh.Metrics
	now     clock.Clock
	skipped atomic.Int64   // what now is ahead of virtual time
	end     func()         // ends Run's context
	ended   sync.WaitGroup // Run

	mu     sync.Mutex
	loaded []string
	at     map[string][]time.Duration // when a key was loaded
}

func newBench(c refresh.Config) *bench {
	b := &bench{metrics: refresh.NewMetrics(prometheus.NewRegistry()), at: map[string][]time.Duration{}}
	elapsed := clock.Elapsed()
	b.now = func() time.Duration { return elapsed() + time.Duration(b.skipped.Load()) }
	c.Metrics, c.Clock = b.metrics, b.now
	if c.Limit == nil {
		c.Limit = func(string) int { return 1 }
	}
	if c.Memory == 0 {
		c.Memory = 1 << 20
	}
	b.Queue = refresh.New(c)
	return b
}

// run has keys loaded by load, until the test ends or stop.
func (b *bench) run(load refresh.Load) {
	ctx, cancel := context.WithCancel(context.Background())
	b.end = cancel
	b.ended.Go(func() {
		b.Run(ctx, func(ctx context.Context, key string) error {
			b.mu.Lock()
			b.loaded, b.at[key] = append(b.loaded, key), append(b.at[key], b.now())
			b.mu.Unlock()
			return load(ctx, key)
		})
	})
}

func (b *bench) stop() {
	b.end()
	b.ended.Wait()
}

// history returns what was loaded since the last time.
func (b *bench) history() []string {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.loaded
	b.loaded = nil
	return h
}

// when returns the moments at which a key was loaded.
func (b *bench) when(key string) []time.Duration {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.at[key])
}

// count reads a counter or a gauge.
func count(m prometheus.Metric) float64 {
	var d dto.Metric
	if err := m.Write(&d); err != nil {
		panic(err)
	}
	return d.GetCounter().GetValue() + d.GetGauge().GetValue()
}

func instant(context.Context, string) error { return nil }

// taking returns a load that takes so long.
func taking(d time.Duration) refresh.Load {
	return func(context.Context, string) error {
		time.Sleep(d)
		return nil
	}
}

func TestKeysAreLoadedWhenDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(refresh.Config{})
		b.run(instant)
		defer b.stop()
		dues := map[string]time.Duration{"a": time.Second, "b": 90 * time.Second, "c": 3 * time.Second, "d": 0}
		for key, due := range dues {
			require.True(t, b.Add(key, due, 0))
		}
		time.Sleep(2 * time.Minute)
		require.Equal(t, []string{"d", "a", "c", "b"}, b.history())
		for key, due := range dues {
			require.Equal(t, []time.Duration{due}, b.when(key))
		}
		require.Zero(t, b.Len())
		require.Zero(t, count(b.metrics.Length))
		require.Equal(t, 4.0, count(b.metrics.Queued))
		require.Equal(t, 4.0, count(b.metrics.Started))
	})
}

// Of what is due, the hottest comes first; of equals what was due first.
func TestHottestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(refresh.Config{})
		b.Add("cold", -3, 1)
		b.Add("late", -1, 5)
		b.Add("early", -2, 5)
		b.Add("hot", 0, 9)
		b.run(instant)
		defer b.stop()
		require.Equal(t, []string{"hot", "early", "late", "cold"}, b.history())
	})
}

func TestAKeyIsQueuedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(refresh.Config{})
		b.Add("a", time.Minute, 1)
		b.Add("a", time.Second, 3) // sooner and hotter
		b.Add("a", time.Hour, 2)
		b.Add("b", time.Second, 2)
		require.Equal(t, 2, b.Len())
		b.run(instant)
		defer b.stop()
		time.Sleep(2 * time.Hour)
		require.Equal(t, []string{"a", "b"}, b.history())
		require.Equal(t, []time.Duration{time.Second}, b.when("a"))
		require.Equal(t, 2.0, count(b.metrics.Queued))
	})
}

// A key that becomes hotter or due sooner changes its place everywhere.
func TestAKeyIsHastened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(refresh.Config{Memory: 4 * (512 + 2)})
		b.run(taking(time.Minute))
		defer b.stop()
		b.Add("x", 0, 0)
		require.Equal(t, []string{"x"}, b.history(), "holds up the others of its namespace")
		b.Add("a", 0, 1)
		b.Add("b", 0, 2)
		b.Add("c", time.Hour, 3)
		b.Add("d", 2*time.Hour, 3)
		synctest.Wait()
		b.Add("a", 0, 9)
		b.Add("d", time.Minute, 3)
		require.True(t, b.Add("e", time.Hour, 4), "and b, the coldest now, is dropped")
		time.Sleep(59*time.Minute + time.Second)
		require.Equal(t, []string{"a", "d"}, b.history())
		time.Sleep(time.Hour)
		require.Equal(t, []string{"e", "c"}, b.history())
	})
}

// A key that is added while it is being loaded is loaded again, and not at the same
// time: what it was added for may have come after that load began.
func TestAKeyIsLoadedAgainAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(refresh.Config{Workers: 9, Limit: func(string) int { return 9 }})
		b.run(taking(time.Minute))
		defer b.stop()
		b.Add("a", 0, 0)
		time.Sleep(time.Second)
		b.Add("a", 0, 0)
		b.Add("a", 0, 7)
		time.Sleep(time.Second)
		require.Equal(t, []string{"a"}, b.history())
		time.Sleep(time.Hour)
		require.Equal(t, []string{"a"}, b.history())
		require.Equal(t, []time.Duration{0, time.Minute}, b.when("a"))
		require.Zero(t, b.Len())
	})
}

func TestWhatDoesNotFitIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(refresh.Config{Memory: 3*(512+2) - 1 + 2})
		require.True(t, b.Add("b", 0, 2))
		require.True(t, b.Add("c", time.Hour, 3))
		require.True(t, b.Add("d", 0, 4))
		require.False(t, b.Add("a", 0, 1), "colder than all")
		require.False(t, b.Add("x", 0, 2), "as cold as the coldest, and newer")
		require.True(t, b.Add("e", 0, 5))
		require.Equal(t, 3, b.Len())
		require.False(t, b.Add(strings.Repeat("k", 9999), 0, 9), "fits nowhere")
		require.Equal(t, 3, b.Len(), "and takes nobody's place")
		require.Equal(t, 4.0, count(b.metrics.Dropped))
		require.True(t, b.Add("d", 0, 9), "is queued already")
		b.run(instant)
		defer b.stop()
		require.Equal(t, []string{"d", "e"}, b.history())
		time.Sleep(time.Hour)
		require.Equal(t, []string{"c"}, b.history())
	})
}

// A namespace whose loads hang leaves a worker to the others, whatever its limit.
func TestASlowNamespaceHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(refresh.Config{Workers: 4, Limit: func(ns string) int { return map[string]int{"slow": 100, "two": 2}[ns] }})
		b.run(func(ctx context.Context, key string) error {
			if bus.NamespaceOf(key) != "fast" {
				<-ctx.Done()
			}
			return nil
		})
		defer b.stop()
		for i := range 10 {
			b.Add(fmt.Sprint("slow:", i), 0, 9)
		}
		require.Len(t, b.history(), 3)
		for i := range 10 {
			b.Add(fmt.Sprint("fast:", i), 0, 0)
		}
		require.Len(t, b.history(), 10)
		require.Equal(t, 7, b.Len())
	})
}

func TestNamespacesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(refresh.Config{Workers: 2, Limit: func(string) int { return 0 }})
		for i := range 3 {
			for _, ns := range []string{"a", "a", "b", "c"} {
				b.Add(fmt.Sprint(ns, ":", i, b.Len()), 0, 0)
			}
		}
		b.run(taking(time.Second))
		defer b.stop()
		var order []string
		for range 6 {
			round := b.history()
			slices.Sort(round) // two at the same time
			for _, key := range round {
				order = append(order, bus.NamespaceOf(key))
			}
			time.Sleep(time.Second)
		}
		require.Equal(t, "ab ac bc ab ac a", regroup(order))
	})
}

func regroup(order []string) string {
	var pairs []string
	for pair := range slices.Chunk(order, 2) {
		pairs = append(pairs, strings.Join(pair, ""))
	}
	return strings.Join(pairs, " ")
}

func TestAnErrorIsCountedAndNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(refresh.Config{})
		b.run(func(context.Context, string) error { return errors.New("no") })
		defer b.stop()
		b.Add("a", 0, 0)
		time.Sleep(time.Hour)
		require.Equal(t, []string{"a"}, b.history())
		require.Equal(t, 1.0, count(b.metrics.Failed))
	})
}

// Run returns when the last load has, and begins no other one.
func TestRunWaitsForItsLoads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(refresh.Config{})
		var told error
		b.run(func(ctx context.Context, _ string) error {
			<-ctx.Done()
			time.Sleep(time.Minute)
			told = ctx.Err()
			return told
		})
		b.Add("a", 0, 0)
		b.Add("b", 0, 0)
		require.Equal(t, []string{"a"}, b.history())
		began := b.now()
		b.stop()
		require.Equal(t, time.Minute, b.now()-began)
		require.ErrorIs(t, told, context.Canceled)
		require.Empty(t, b.history())
		require.Equal(t, 1, b.Len())
		require.Zero(t, count(b.metrics.Failed), "the end of the sidecar is no failure of the origin")
		b.run(instant) // another life of the queue
		require.Equal(t, []string{"b"}, b.history())
		b.stop()
		b.stop()
	})
}

func TestSpread(t *testing.T) {
	require.Zero(t, refresh.Spread("a", 1, 0))
	require.Zero(t, refresh.Spread("a", 1, -1))
	require.Equal(t, refresh.Spread("a", 1, time.Hour), refresh.Spread("a", 1, time.Hour))
	var tenths [10]int
	const n = 10_000
	for i := range n {
		byKey, bySeed := refresh.Spread(fmt.Sprint("k", i), 7, time.Second), refresh.Spread("k", uint64(i), time.Second)
		for _, d := range []time.Duration{byKey, bySeed} {
			require.True(t, d >= 0 && d < time.Second)
			tenths[d/(time.Second/10)]++
		}
	}
	for i, count := range tenths {
		require.InEpsilon(t, 2*n/10, count, 0.1, "tenth %d", i)
	}
}
