package bench_test

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/cmd/nearside/internal/bench"
)

// countUp is every key in turn.
type countUp struct{ n uint64 }

func (c *countUp) Next() uint64 { c.n++; return c.n }

func TestRequests(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for want, requests := range map[string]bench.Requests{
		"get GET k:000000000001":                             bench.Mixed(new(countUp), "k:", 1, bench.NewValue(3), r),
		"set SET k:000000000001 xxx EX 86400":                bench.Mixed(new(countUp), "k:", 0, bench.NewValue(3), r),
		"invalidate DEL k:000000000001":                      bench.Invalidations(new(countUp), "k:", bench.CommandDel),
		"invalidate NEAR.INVALIDATE KEYS 1 k:000000000001 0": bench.Invalidations(new(countUp), "k:", bench.CommandInvalidate),
	} {
		wire, op := requests.Append(nil)
		cmd, n, err := resp.NewDecoder(resp.Limits{}).Next(wire)
		require.NoError(t, err)
		require.Equal(t, len(wire), n)
		require.Equal(t, want, op.String()+" "+string(bytes.Join(cmd, []byte(" "))))
	}
}

func TestShareOfReads(t *testing.T) {
	m := bench.Mixed(new(countUp), "k:", 0.9, bench.NewValue(3), rand.New(rand.NewPCG(1, 1)))
	gets := 0
	for range 10_000 {
		if _, op := m.Append(nil); op == bench.Get {
			gets++
		}
	}
	require.InDelta(t, 9000, gets, 150)
}

func TestKeysAreThoseOfRedisBenchmark(t *testing.T) {
	require.Equal(t, "key:000000000042", bench.Key("key:", 42))
	wire, _ := bench.Mixed(&countUp{123_456_789_011}, "key:", 1, bench.NewValue(1), nil).Append(nil)
	require.True(t, strings.HasSuffix(string(wire), "\r\nkey:123456789012\r\n"), string(wire))
}
