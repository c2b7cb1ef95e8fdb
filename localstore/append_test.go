package localstore_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/localstore"
)

var rich = localstore.Meta{
	Version: 7, Seq: 1 << 60, Tick: 9, Incarnation: 3, Expires: time.Hour, Hangs: []byte("what it hangs on"),
	Extra: localstore.Extra{Soft: time.Minute, ETag: `"etag"`},
}

func TestAppendTo(t *testing.T) {
	s := open(t, localstore.Config{Budget: small, MaxValue: smallValue})
	dst := []byte("dst:")
	got, m, ok := s.AppendTo(dst, "k")
	require.False(t, ok)
	require.Equal(t, "dst:", string(got))
	require.Zero(t, m)

	put(t, s, "k", "value", rich)
	want := rich
	want.Size, want.Extra.ETag = 5, ""
	for _, dst := range [][]byte{[]byte("dst:"), append(make([]byte, 0, 100), "dst:"...)} {
		got, m, ok = s.AppendTo(dst, "k")
		require.True(t, ok)
		require.Equal(t, "dst:value", string(got))
		require.Equal(t, want, m)
		m.Hangs[0] = 'X' // it is the reader's, not the Store's
		_ = append(got, "overwritten"...)
	}
	_, m, _ = s.Get("k", nil)
	m.Size = 0
	require.Equal(t, rich, m)

	require.NoError(t, s.Close())
	_, _, ok = s.AppendTo(nil, "k")
	require.False(t, ok)
	s.Prefetch([]string{"k"})
}

// A hit allocates nothing, whatever is kept with it; nor does a miss.
func TestReadsAllocateNothing(t *testing.T) {
	s := open(t, localstore.Config{Budget: small, MaxValue: smallValue})
	long := strings.Repeat("k", 3000)
	put(t, s, "plain", strings.Repeat("v", 1000), localstore.Meta{Seq: 1})
	put(t, s, "rich", "v", rich)
	put(t, s, long, "v", localstore.Meta{})
	buf := make([]byte, 0, 2000)
	for _, key := range []string{"plain", "rich", long, "absent"} {
		require.Zero(t, testing.AllocsPerRun(100, func() { buf, _, _ = s.AppendTo(buf[:0], key) }), "%.10s", key)
	}
	keys := []string{"plain", "rich", long, "absent"}
	require.Zero(t, testing.AllocsPerRun(100, func() { s.Prefetch(keys) }))
	require.Zero(t, testing.AllocsPerRun(100, func() { s.Head("plain") }))
}

// Whatever it is given, a prefetch changes nothing that a read can see.
func TestPrefetchIsAHint(t *testing.T) {
	s := filled(t, 1000)
	s.Prefetch(nil)
	keys := []string{"", "absent"}
	for i := range 2 * localstore.PrefetchKeys {
		keys = append(keys, fmt.Sprint("key", i))
	}
	before := s.Stats()
	s.Prefetch(keys)
	require.Equal(t, before, s.Stats())
	for _, key := range keys[2:] {
		requireValue(t, s, key, "v")
	}
}
