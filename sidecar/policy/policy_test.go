package policy_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/policy"
)

func TestPolicyOfAKey(t *testing.T) {
	s := policy.DefaultSet()
	require.NoError(t, s.Validate())
	require.Equal(t, s.Default, *s.OfKey("product:42"))
	product := policy.Namespace{Class: policy.BestEffort, TTL: time.Second, Set: policy.SetWindow}
	s.Namespaces = map[string]policy.Namespace{"product": product}
	require.NoError(t, s.Validate())
	for _, s := range []*policy.Set{s, s.Indexed()} {
		require.Equal(t, product, *s.OfKey("product:42"))
		require.Equal(t, product, *s.Of("product"))
		for _, key := range []string{"product", "products:42", ":product", "x:product:1"} {
			require.Equal(t, s.Default, *s.OfKey(key), key)
		}
	}
	s = s.Indexed()
	require.Zero(t, testing.AllocsPerRun(100, func() { s.OfKey("product:42") }))
}

func TestBounds(t *testing.T) {
	n := policy.DefaultNamespace()
	require.Equal(t, 30*time.Second, n.Bound(), "longer than the election of a stream's leader")
	require.False(t, n.Critical())
	n.Class = policy.BestEffort
	require.Equal(t, 10*time.Minute, n.Bound())
	n.MaxStale = time.Second
	require.Equal(t, time.Second, n.Bound(), "what is said prevails over the class")
	n.Class = policy.Critical
	require.True(t, n.Critical())
	n.Class, n.MaxStale = "vital", -1
	s := policy.DefaultSet()
	s.Default = n
	err := s.Validate()
	require.ErrorContains(t, err, `defaults.class is "vital": want critical, important or best-effort`)
	require.ErrorContains(t, err, "defaults.max_stale is -1ns: want 0 (the class's bound) or more")
}

func TestValidateNamesAllFaults(t *testing.T) {
	s := policy.DefaultSet()
	s.Window = time.Second
	s.Default = policy.Namespace{TTL: -1, MaxTTL: -2, TTLJitter: 0.95, Set: "x", ReplicaLag: 2 * time.Second}
	good := policy.DefaultNamespace()
	nan := good
	nan.TTLJitter = math.NaN()
	negative := good
	negative.ReplicaLag = -1
	s.Namespaces = map[string]policy.Namespace{"": good, strings.Repeat("n", 257): good, "a:b": good, "nan": nan, "negative": negative}
	err := s.Validate()
	for _, want := range []string{
		"defaults.ttl is -1ns", "defaults.max_ttl is -2ns", "defaults.ttl_jitter is 0.95: want 0 to 0.9", `defaults.set is "x"`,
		"defaults.replica_lag is 2s: want 0 to fill_window (1s)", `namespaces: "" has 0 bytes`, "has 257 bytes: want 1 to 256",
		`namespaces: "a:b" has a ':' in it`, "namespaces.nan.ttl_jitter is NaN", "namespaces.negative.replica_lag is -1ns",
	} {
		require.ErrorContains(t, err, want)
	}
	for _, w := range []time.Duration{0, -1, time.Millisecond, time.Hour} {
		s := policy.DefaultSet()
		s.Window = w
		require.ErrorContains(t, s.Validate(), "fill_window is "+w.String()+": want 100ms to 10m0s")
	}
}
