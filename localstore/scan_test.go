package localstore_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/localstore"
)

func filled(t testing.TB, n int) *localstore.Store {
	s := open(t, localstore.Config{Budget: small, MaxValue: smallValue})
	for i := range n {
		put(t, s, fmt.Sprint("key", i), "v", localstore.Meta{Version: uint64(i)})
	}
	return s
}

// walk continues a scan to its end and adds what it meets to seen.
func walk(t testing.TB, s *localstore.Store, cursor uint64, seen map[string]bool, between func()) {
	for {
		entries, next, err := s.Scan(cursor, 50)
		require.NoError(t, err)
		for _, e := range entries {
			require.False(t, seen[e.Key], "%s twice", e.Key)
			seen[e.Key] = true
		}
		if cursor = next; cursor == 0 {
			return
		}
		between()
	}
}

func TestScanMeetsWhatStays(t *testing.T) {
	const keys = 1000
	s := filled(t, keys)
	seen, i := map[string]bool{}, 0
	walk(t, s, 0, seen, func() {
		put(t, s, fmt.Sprint("new", i), "v", localstore.Meta{})
		s.Delete(fmt.Sprint("key", i*2+1)) // odd ones go
		put(t, s, fmt.Sprint("key", i*2), "overwritten", localstore.Meta{})
		i++
	})
	for k := 0; k < keys; k += 2 {
		require.True(t, seen[fmt.Sprint("key", k)], k)
	}
}

// Everything that a shard held when the scan came to it is evicted before the
// next step.
func TestScanSurvivesEvictionOfAll(t *testing.T) {
	s := filled(t, 5000)
	_, cursor, err := s.Scan(0, 1)
	require.NoError(t, err)
	for i := range 500 {
		put(t, s, fmt.Sprint("new", i), strings.Repeat("v", smallValue), localstore.Meta{})
	}
	walk(t, s, cursor, map[string]bool{}, func() {})
}

func TestScanEndsAtReset(t *testing.T) {
	s := filled(t, 1000)
	_, cursor, err := s.Scan(0, 10)
	require.NoError(t, err)
	s.Reset()
	for i := range 100 { // in all shards, so that the scan would come to some
		put(t, s, fmt.Sprint("new", i), "v", localstore.Meta{})
	}
	entries, next, err := s.Scan(cursor, 10)
	require.NoError(t, err)
	require.Empty(t, entries)
	require.Zero(t, next)
}

func TestScanCursors(t *testing.T) {
	s := filled(t, 1000)
	_, _, err := s.Scan(12345, 10)
	require.ErrorIs(t, err, localstore.ErrCursor)

	_, first, err := s.Scan(0, 10)
	require.NoError(t, err)
	_, second, err := s.Scan(first, 10)
	require.NoError(t, err)
	_, _, err = s.Scan(first, 10)
	require.ErrorIs(t, err, localstore.ErrCursor, "a step that was taken cannot be taken again: it would skip")

	others := make([]uint64, 4)
	for i := range others {
		_, others[i], err = s.Scan(0, 10)
		require.NoError(t, err)
	}
	_, _, err = s.Scan(second, 10)
	require.ErrorIs(t, err, localstore.ErrCursor, "the one that rested longest was ended")
	for _, cursor := range others {
		_, _, err = s.Scan(cursor, 10)
		require.NoError(t, err)
	}
}

func TestScanCountIsLimited(t *testing.T) {
	s := filled(t, 3000)
	for count, want := range map[int]int{-1: 1, 0: 1, 7: 7, 1 << 40: localstore.MaxScanCount} {
		entries, _, err := s.Scan(0, count)
		require.NoError(t, err)
		require.Len(t, entries, want)
	}
}

func TestScanOfAnEmptyStore(t *testing.T) {
	entries, next, err := filled(t, 0).Scan(0, 10)
	require.NoError(t, err)
	require.Empty(t, entries)
	require.Zero(t, next)
}
