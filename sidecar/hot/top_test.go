package hot_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/hot"
)

// The sketch finds the head of a skewed load that has a hundred times more keys
// than it has counters, in order, and its rates are about right.
func TestTopFindsTheHottest(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	zipf := rand.NewZipf(rnd, 1.1, 1, 100_000)
	top := hot.NewTop(1000, time.Minute, 0)
	const samples, span = 100_000, 10 * time.Minute
	recent := map[uint64]float64{}
	for i := range samples {
		now := span * time.Duration(i) / samples
		k := zipf.Uint64()
		recent[k] += math.Exp2(float64(now-span) / float64(time.Minute))
		hot.Sample(top, fmt.Sprint(k), now)
	}
	list := top.List(20, span)
	require.Len(t, list, 20)
	for i, k := range list {
		require.True(t, i == 0 || list[i-1].Rate >= k.Rate)
		var n uint64
		_, err := fmt.Sscan(k.Key, &n)
		require.NoError(t, err)
		require.Less(t, n, uint64(60), "place %d", i)
		want := recent[n] * math.Ln2 / 60 * hot.SampleEvery
		require.InEpsilon(t, want, k.Rate, 0.05, "key %d", n)
	}
	require.Equal(t, "0", list[0].Key)
}

// The promise of Space-Saving: whatever else is read, a key with more than one
// n-th of all samples has a counter.
func TestTopNeverLosesAFrequentKey(t *testing.T) {
	top := hot.NewTop(10, time.Hour, 0)
	for i := range 10_000 {
		hot.Sample(top, fmt.Sprint("once:", i), 0)
		if i%8 == 0 {
			hot.Sample(top, "often", 0)
		}
	}
	require.Equal(t, "often", top.List(1, time.Minute)[0].Key)
}

func TestTopForgets(t *testing.T) {
	top := hot.NewTop(10, time.Minute, 0)
	for range 1000 {
		hot.Sample(top, "old", time.Minute)
	}
	old := top.List(1, time.Minute)[0].Rate
	require.InEpsilon(t, old/16, top.List(1, 5*time.Minute)[0].Rate*(1-math.Exp2(-5))*2, 0.01, "four half-lives, and the start counts for less")
	for range 100 {
		hot.Sample(top, "new", 5*time.Minute)
	}
	require.Equal(t, "new", top.List(1, 5*time.Minute)[0].Key)
	far := 10_000 * time.Minute // where 2^age is no number any more
	hot.Sample(top, "newer", far)
	list := top.List(10, far)
	require.Equal(t, "newer", list[0].Key)
	require.InEpsilon(t, math.Ln2/60*hot.SampleEvery, list[0].Rate, 0.01)
	require.Zero(t, list[1].Rate)
}

// A key that takes another one's counter is not taken for as hot.
func TestTopInheritsNoHeat(t *testing.T) {
	top := hot.NewTop(1, time.Minute, 0)
	for range 1000 {
		hot.Sample(top, "a", 0)
	}
	hot.Sample(top, "b", 0)
	list := top.List(5, time.Minute)
	require.Len(t, list, 1)
	require.Equal(t, "b", list[0].Key)
	require.Less(t, list[0].Rate, 1.0)
}

// The counter that has counted least is given to a new key, and its former key is
// as good as any other.
func TestTopGivesUpTheColdest(t *testing.T) {
	top := hot.NewTop(3, time.Hour, 0)
	for i, key := range []string{"a", "b", "c"} {
		for range []int{9, 2, 5}[i] {
			hot.Sample(top, key, 0)
		}
	}
	keys := func() (all []string) {
		for _, k := range top.List(3, time.Minute) {
			all = append(all, k.Key)
		}
		return all
	}
	hot.Sample(top, "d", 0) // has 3 now
	require.Equal(t, []string{"a", "c", "d"}, keys())
	hot.Sample(top, "b", 0) // has 4, and d is gone
	require.Equal(t, []string{"a", "c", "b"}, keys())
}

func TestTopIsBounded(t *testing.T) {
	const n = 8
	for _, shortest := range []int{0, 300} {
		top := hot.NewTop(n, time.Hour, 0)
		for length := shortest; length <= hot.MaxKey; length++ {
			for i := range 2 * n {
				hot.Sample(top, fmt.Sprintf("%0*d", length, i), 0)
			}
		}
		keys, bytes := hot.Held(top)
		require.Equal(t, n, keys)
		require.LessOrEqual(t, bytes, n*hot.MaxKey)
	}
}

func TestTopKeepsNoLongKeysAndNoneOfTheCallers(t *testing.T) {
	top := hot.NewTop(3, time.Minute, 0)
	hot.Sample(top, strings.Repeat("k", hot.MaxKey+1), 0)
	require.Empty(t, top.List(1, 0))
	longest := strings.Repeat("k", hot.MaxKey)
	hot.Sample(top, longest, 0)
	hot.Sample(top, "", 0)
	require.Len(t, top.List(5, 0), 2)
	require.Empty(t, top.List(-1, 0))
	require.Equal(t, 3*672, top.Bytes())
	require.Zero(t, testing.AllocsPerRun(10_000, func() { top.Note(longest, 0) }))
}

// One read in 32 is counted, and the rate says how many there were.
func TestTopSamples(t *testing.T) {
	top := hot.NewTop(10, time.Minute, 0)
	const reads = 640_000 // a standard deviation of the samples is under 1 %
	for range reads {
		top.Note("k", time.Second)
	}
	require.InEpsilon(t, reads, top.List(1, time.Second)[0].Rate, 0.06)
}

func TestTopConcurrently(t *testing.T) {
	top := hot.NewTop(16, time.Minute, 0)
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for i := range 20_000 {
				top.Note(fmt.Sprint(i%100), time.Duration(i))
			}
		})
	}
	for range 100 {
		require.LessOrEqual(t, len(top.List(100, time.Second)), 16)
	}
	readers.Wait()
	require.Len(t, top.List(100, time.Second), 16)
}

func BenchmarkNote(b *testing.B) {
	top := hot.NewTop(1024, time.Minute, 0)
	keys := make([]string, 1<<10)
	for i := range keys {
		keys[i] = fmt.Sprintf("product:%d", i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		top.Note(keys[i%len(keys)], time.Duration(i))
	}
}
