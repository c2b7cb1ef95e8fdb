package policy_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/policy"
)

func TestRights(t *testing.T) {
	var r policy.Rights
	require.False(t, r.Plain())
	require.Equal(t, 2*time.Second, r.Term())
	require.Equal(t, 500*time.Millisecond, r.Patience())
	r = policy.Rights{Get: true, For: time.Second, Wait: 2 * time.Second}
	require.True(t, r.Plain())
	require.Equal(t, time.Second, r.Term())
	require.Equal(t, 2*time.Second, r.Patience())
	r.Off = true
	require.False(t, r.Plain())

	s := policy.DefaultSet()
	s.Default.Lease = r
	require.NoError(t, s.Validate())
	s.Default.Set, s.Default.Lease = policy.SetInvalidate, policy.Rights{Get: true, For: -1, Wait: time.Hour}
	err := s.Validate()
	require.ErrorContains(t, err, "defaults.lease.for is -1ns: want 0 (2s) to 1m0s")
	require.ErrorContains(t, err, "defaults.lease.wait is 1h0m0s: want 0 (500ms) to 1m0s")
	require.ErrorContains(t, err, "defaults.lease.get is true and set is invalidate")
}
