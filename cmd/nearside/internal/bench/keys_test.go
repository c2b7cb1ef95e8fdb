package bench_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/cmd/nearside/internal/bench"
)

// The frequencies are those of Zipf's law, at every exponent: chi-square over the
// most frequent keys and the rest together.
func TestZipfsShape(t *testing.T) {
	const draws, head = 100_000, 50
	for _, c := range []struct {
		n uint64
		s float64
	}{{1000, 0}, {1000, 0.5}, {1000, 0.99}, {100_000, 0.99}, {1000, 1}, {1000, 1.01}, {10_000, 1.1}, {1000, 2.5}, {60, 0.8}, {2, 1}} {
		keys, err := bench.NewKeys(c.n, c.s, rand.New(rand.NewPCG(7, 11)))
		require.NoError(t, err)
		counts := make([]float64, min(head, c.n)+1)
		for range draws {
			k := keys.Next()
			if k >= c.n {
				t.Fatalf("key %d of %d", k, c.n)
			}
			counts[min(k, uint64(len(counts)-1))]++
		}
		total := 0.0
		for k := uint64(1); k <= c.n; k++ {
			total += math.Pow(float64(k), -c.s)
		}
		chi, rest := 0.0, float64(draws)
		for k := range counts[:len(counts)-1] {
			want := draws * math.Pow(float64(k+1), -c.s) / total
			rest -= want
			chi += (counts[k] - want) * (counts[k] - want) / want
		}
		if rest > 1 {
			chi += (counts[len(counts)-1] - rest) * (counts[len(counts)-1] - rest) / rest
		}
		degrees := float64(len(counts) - 1)
		require.Less(t, chi, degrees+5*math.Sqrt(2*degrees)+5, "%d keys, exponent %v", c.n, c.s)
	}
}

func TestOneKey(t *testing.T) {
	for _, s := range []float64{0, 0.5, 1, 5} {
		keys, err := bench.NewKeys(1, s, rand.New(rand.NewPCG(1, 1)))
		require.NoError(t, err)
		for range 1000 {
			require.Zero(t, keys.Next())
		}
	}
}

func TestKeysAreBounded(t *testing.T) {
	for _, c := range []struct {
		n uint64
		s float64
	}{{0, 1}, {math.MaxInt32 + 1, 1}, {10, -1}, {10, 5.1}, {10, math.NaN()}, {10, math.Inf(1)}} {
		_, err := bench.NewKeys(c.n, c.s, rand.New(rand.NewPCG(1, 1)))
		require.Error(t, err, c)
	}
}
