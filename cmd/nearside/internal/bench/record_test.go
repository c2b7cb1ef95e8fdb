package bench_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/cmd/nearside/internal/bench"
)

// Merged parts say what one histogram of everything says, and that is what sorted
// latencies say, to three digits.
func TestMergedHistogramsAreTheWhole(t *testing.T) {
	const seed = 42
	r := rand.New(rand.NewPCG(seed, 0))
	var whole, merged bench.Histogram
	parts := make([]bench.Histogram, 7)
	var all []float64
	for range 20_000 {
		d := time.Duration(200 + r.ExpFloat64()*float64(300*time.Microsecond))
		all = append(all, float64(d)/1e3)
		whole.Record(d)
		parts[r.IntN(len(parts)-1)].Record(d) // the last stays empty
	}
	for i := range parts {
		merged.Merge(&parts[i])
	}
	require.Equal(t, whole.Latency(), merged.Latency())
	slices.Sort(all)
	l := merged.Latency()
	require.EqualValues(t, len(all), l.Count)
	at := func(q float64) float64 { return all[int(q*float64(len(all)))-1] }
	for name, c := range map[string][2]float64{
		"p50": {at(0.5), l.P50}, "p90": {at(0.9), l.P90}, "p99": {at(0.99), l.P99}, "p99.9": {at(0.999), l.P999}, "max": {at(1), l.Max},
	} {
		require.InDelta(t, c[0], c[1], 0.2+c[0]/500, name)
	}
}

func TestHistogramsBounds(t *testing.T) {
	var h, empty bench.Histogram
	require.Zero(t, h.Latency())
	h.Merge(&empty)
	require.Zero(t, h.Latency())
	h.Record(-time.Second)
	h.Record(100 * time.Hour)
	l := h.Latency()
	require.Zero(t, l.Min)
	require.InEpsilon(t, 3600e6, l.Max, 0.001, "an hour is the most")
	require.EqualValues(t, 2, l.Count)
}
