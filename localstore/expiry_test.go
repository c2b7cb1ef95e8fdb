package localstore_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/nearside-cache/nearside/localstore"
)

func TestExpiry(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name      string
		now, ttl  time.Duration
		jitter, u float64
		want      time.Duration
	}{
		{"no ttl is never", 5 * ms, 0, 0.5, 0.5, 0},
		{"negative ttl has passed", time.Hour, -1, 0, 0, ms},
		{"no jitter", time.Second, 10 * time.Second, 0, 0.99, 11 * time.Second},
		{"jitter not drawn", time.Second, 10 * time.Second, 0.5, 0, 11 * time.Second},
		{"half of a tenth", 0, 10 * time.Second, 0.1, 0.5, 9500 * ms},
		{"rounded down", 999 * time.Microsecond, ms, 0, 0, ms},
		{"never 0, which would be never", 0, 1, 0, 0, ms},
		{"does not overflow", math.MaxInt64 - 1, math.MaxInt64, 0, 0, time.Duration(math.MaxInt64).Truncate(ms)},
		{"jitter over 1 is 1", time.Second, 10 * time.Second, 7, 1, time.Second + ms},
		{"jitter that is no number is none", 0, time.Second, math.NaN(), 0.5, time.Second},
	} {
		require.Equal(t, c.want, localstore.Expiry(c.now, c.ttl, c.jitter, c.u), c.name)
	}
}

func TestExpiryBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Duration(rapid.Int64Range(0, int64(100*365*24*time.Hour)).Draw(t, "now"))
		ttl := time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(365*24*time.Hour)).Draw(t, "ttl"))
		jitter := rapid.Float64Range(0, 1).Draw(t, "jitter")
		u := rapid.Float64Range(0, 0.999).Draw(t, "u")
		got := localstore.Expiry(now, ttl, jitter, u)
		require.Zero(t, got%time.Millisecond, "whole milliseconds")
		require.Positive(t, got)
		require.LessOrEqual(t, got, now+ttl, "never lengthened")
		least := now + time.Duration(float64(ttl)*(1-jitter))
		require.Greater(t, got, least-time.Millisecond-time.Microsecond, "not shortened by more than the jitter and the rounding")
	})
}
