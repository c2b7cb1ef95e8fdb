package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

func validateL2(l *policy.L2) error {
	s := policy.DefaultSet()
	s.Default.L2 = l
	return s.Validate()
}

func TestL2Defaults(t *testing.T) {
	require.Nil(t, policy.DefaultNamespace().L2, "off unless asked for")
	require.NoError(t, validateL2(nil))
	require.NoError(t, validateL2(&policy.L2{}))
	l := policy.L2{}.WithDefaults()
	require.Equal(t, policy.DefaultL2(), l)
	require.Equal(t, l, l.WithDefaults())
	require.Greater(t, l.LockExpiry, l.Wait)
	mine := policy.L2{
		Bucket: "b", Timeout: time.Second, LockExpiry: 2 * time.Second, Wait: 3 * time.Second, Loaders: 4, TTL: 5 * time.Second,
		History: -1, Replicas: 3, Storage: bus.StorageMemory, MaxBytes: 1 << 20,
	}
	require.Equal(t, mine, mine.WithDefaults(), "what is said prevails")
	require.NoError(t, validateL2(&mine))
}

func TestL2BucketConfig(t *testing.T) {
	c := policy.L2{TTL: time.Second, Replicas: 3}.BucketConfig()
	require.Equal(t, bus.BucketConfig{TTL: 10 * time.Second, MaxBytes: 256 << 20, Replicas: 3, Storage: bus.StorageFile}, c, "locks fit in")
	require.NoError(t, c.Validate("b"))
	require.Equal(t, time.Hour, policy.L2{TTL: time.Hour}.BucketConfig().TTL)
}

func TestL2FaultsAreAllNamed(t *testing.T) {
	err := validateL2(&policy.L2{
		Bucket: "a.b", Timeout: -1, LockExpiry: time.Millisecond, Wait: time.Hour, Loaders: 17, TTL: 365 * 24 * time.Hour,
		History: 25 * time.Hour, Replicas: 6, Storage: "tape", MaxBytes: 1,
	})
	for _, want := range []string{
		`defaults.l2.bucket is "a.b": want 1 to 200 of`, "defaults.l2.timeout is -1ns: want 1ms to 10s", "defaults.l2.lock_expiry is 1ms: want 1s to 10m0s",
		"defaults.l2.wait is 1h0m0s: want 1ms to 10m0s", "defaults.l2.loaders is 17: want 1 to 16", "defaults.l2.ttl is 8760h0m0s: want 1s to 720h0m0s",
		"defaults.l2.history is 25h0m0s: want at most 24h0m0s", "defaults.l2.replicas is 6", `defaults.l2.storage is "tape": want file or memory`,
		"defaults.l2.max_bytes is 1: want 1048576",
	} {
		require.ErrorContains(t, err, want)
	}
	require.ErrorContains(t, validateL2(&policy.L2{Bucket: strings.Repeat("b", bus.MaxBucketName+1)}), "defaults.l2.bucket")
	require.ErrorContains(t, validateL2(&policy.L2{Loaders: -1, Replicas: -1}), "defaults.l2.loaders is -1")
}
