package localstore_test

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/localstore"
)

// small is the budget of a Store that a few values of smallValue fill.
const (
	small      = 4 << 20
	smallValue = 64 << 10
	maxShards  = 256
)

func open(t testing.TB, c localstore.Config) *localstore.Store {
	t.Helper()
	s, err := localstore.Open(c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// put stores a value and returns what was evicted for it.
func put(t testing.TB, s *localstore.Store, key, value string, m localstore.Meta) []localstore.Evicted {
	t.Helper()
	var lost []localstore.Evicted
	require.NoError(t, s.Put(key, []byte(value), m, func(e localstore.Evicted) { lost = append(lost, e) }))
	return lost
}

func requireValue(t testing.TB, s *localstore.Store, key, want string) {
	t.Helper()
	got, m, ok := s.Get(key, nil)
	require.True(t, ok, "%.40q", key)
	require.Equal(t, want, string(got))
	require.Equal(t, len(want), m.Size)
}

func requireMiss(t testing.TB, s *localstore.Store, key string) {
	t.Helper()
	got, m, ok := s.Get(key, []byte("dst"))
	require.False(t, ok, "%.40q", key)
	require.Equal(t, "dst", string(got), "dst is returned as it was")
	require.Zero(t, m)
	_, ok = s.Head(key)
	require.False(t, ok)
}

func TestStampsRoundTrip(t *testing.T) {
	s := open(t, localstore.Config{Budget: small, MaxValue: smallValue})
	m := localstore.Meta{Version: 7, Seq: 1 << 60, Tick: 9, Incarnation: 3, Expires: time.Hour + 5*time.Millisecond}
	put(t, s, "k", "value", m)
	m.Size = 5

	got, gotMeta, ok := s.Get("k", []byte("dst:"))
	require.True(t, ok)
	require.Equal(t, "dst:value", string(got))
	require.Equal(t, m, gotMeta)
	head, ok := s.Head("k")
	require.True(t, ok)
	require.Equal(t, m, head)
}

func TestOverwriteReplacesValueAndStamps(t *testing.T) {
	s := open(t, localstore.Config{Budget: small, MaxValue: smallValue})
	put(t, s, "k", "a longer first value", localstore.Meta{Version: 1, Expires: time.Second})
	require.Empty(t, put(t, s, "k", "2nd", localstore.Meta{Version: 2}), "the key itself is not evicted")
	requireValue(t, s, "k", "2nd")
	m, _ := s.Head("k")
	require.Equal(t, localstore.Meta{Version: 2, Size: 3}, m)
	require.Equal(t, 1, s.Len())
	require.EqualValues(t, 4, s.Stats().Bytes)
}

func TestDelete(t *testing.T) {
	s := open(t, localstore.Config{Budget: small, MaxValue: smallValue})
	_, ok := s.Delete("absent")
	require.False(t, ok)
	put(t, s, "k", "v", localstore.Meta{Version: 4})
	m, ok := s.Delete("k")
	require.True(t, ok)
	require.Equal(t, localstore.Meta{Version: 4, Size: 1}, m)
	requireMiss(t, s, "k")
	_, ok = s.Delete("k")
	require.False(t, ok)
	require.Empty(t, put(t, s, "other", "v", localstore.Meta{}), "a deleted key is not evicted later")
	require.Zero(t, s.Stats().Evicted)
}

func TestKeyLimits(t *testing.T) {
	s := open(t, localstore.Config{Budget: 2 * small, MaxValue: smallValue})
	for _, n := range []int{1, 65516, 65517, 65518, 65534, localstore.MaxKey} {
		key := strings.Repeat("k", n)
		put(t, s, key, fmt.Sprint(n), localstore.Meta{Version: uint64(n)})
		requireValue(t, s, key, fmt.Sprint(n))
		m, ok := s.Delete(key)
		require.True(t, ok)
		require.EqualValues(t, n, m.Version)
	}
	for _, key := range []string{"", strings.Repeat("k", localstore.MaxKey+1)} {
		require.ErrorIs(t, s.Put(key, nil, localstore.Meta{}, nil), localstore.ErrBadKey)
		requireMiss(t, s, key)
		_, ok := s.Delete(key)
		require.False(t, ok)
	}
	// As long as bigcache's 16 bits would make it equal.
	put(t, s, "k", "v", localstore.Meta{})
	requireMiss(t, s, strings.Repeat("k", localstore.MaxKey+2))
}

// bigcache's own header would leave 18 bytes of a long key out.
func TestLongKeysThatDifferAtTheEnd(t *testing.T) {
	s := open(t, localstore.Config{Budget: 2 * small, MaxValue: smallValue})
	prefix := strings.Repeat("k", localstore.MaxKey-1)
	put(t, s, prefix+"a", "1", localstore.Meta{Version: 1})
	requireMiss(t, s, prefix+"b")
	_, ok := s.Delete(prefix + "b")
	require.False(t, ok)
	require.Empty(t, put(t, s, prefix+"b", "2", localstore.Meta{}))
	requireValue(t, s, prefix+"a", "1")
	requireValue(t, s, prefix+"b", "2")
}

func TestValueLimits(t *testing.T) {
	s := open(t, localstore.Config{Budget: small, MaxValue: smallValue})
	put(t, s, "empty", "", localstore.Meta{})
	requireValue(t, s, "empty", "")
	put(t, s, "largest", strings.Repeat("v", smallValue), localstore.Meta{})
	requireValue(t, s, "largest", strings.Repeat("v", smallValue))

	err := s.Put("empty", make([]byte, smallValue+1), localstore.Meta{}, nil)
	require.ErrorIs(t, err, localstore.ErrTooLarge)
	require.ErrorContains(t, err, "65537 bytes")
	requireValue(t, s, "empty", "")
}

// bigcache would evict a whole shard before it refused.
func TestTooLargeEvictsNothing(t *testing.T) {
	s := open(t, localstore.Config{Budget: small, MaxValue: smallValue})
	for i := range 1000 {
		put(t, s, fmt.Sprint(i), "v", localstore.Meta{})
	}
	for _, size := range []int{smallValue + 1, small, 4 * small} {
		err := s.Put("large", make([]byte, size), localstore.Meta{}, func(localstore.Evicted) { t.Error("evicted") })
		require.ErrorIs(t, err, localstore.ErrTooLarge)
	}
	require.Equal(t, 1000, s.Len())
}

// The largest key with the largest value, when the shard is full of others, at
// the smallest budget and at an ordinary one.
func TestLargestEntryFits(t *testing.T) {
	for _, budget := range []int64{6 << 20, 8 << 20, 64 << 20} {
		s := open(t, localstore.Config{Budget: budget})
		all := localstore.Meta{Version: 1<<64 - 1, Seq: 1<<64 - 1, Tick: 1<<64 - 1, Incarnation: 1<<64 - 1, Expires: 1<<63 - 1}
		for i := range 60 {
			key := fmt.Sprint(i) + strings.Repeat("k", localstore.MaxKey-3)
			value := strings.Repeat("v", localstore.DefaultMaxValue-i%7*100_000)
			put(t, s, key, value, all)
			requireValue(t, s, key, value)
		}
		require.Equal(t, 60, s.Len()+int(s.Stats().Evicted))
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		config localstore.Config
		want   string
	}{
		"no budget":       {localstore.Config{}, "raise the budget to "},
		"negative":        {localstore.Config{Budget: -1}, "raise the budget to "},
		"small budget":    {localstore.Config{Budget: 2 << 20}, "2097152 bytes cannot hold values of 1048576 bytes"},
		"huge budget":     {localstore.Config{Budget: 1<<40 + 1}, "must not be over 1099511627776"},
		"negative values": {localstore.Config{Budget: small, MaxValue: -1}, "must be 0 (for 1048576) to 268435456"},
		"huge values":     {localstore.Config{Budget: 1 << 40, MaxValue: 1 << 30}, "must be 0 (for 1048576) to 268435456"},
	} {
		_, err := localstore.Open(c.config)
		require.ErrorContains(t, err, c.want, name)
	}
	_, err := localstore.Open(localstore.Config{Budget: 2 << 20})
	require.ErrorIs(t, err, localstore.ErrBudget)
}

// What the message says to raise the budget to is enough, and not
// a tenth too much.
func TestOpenNamesTheLeastBudget(t *testing.T) {
	for _, maxValue := range []int{1, 1000, 1 << 20, 3 << 20} {
		_, err := localstore.Open(localstore.Config{MaxValue: maxValue})
		var zero, size int
		var least int64
		_, text, _ := strings.Cut(err.Error(), "small: ")
		_, scanErr := fmt.Sscanf(text, "%d bytes cannot hold values of %d bytes: raise the budget to %d", &zero, &size, &least)
		require.NoError(t, scanErr, err)
		open(t, localstore.Config{Budget: least, MaxValue: maxValue})
		_, err = localstore.Open(localstore.Config{Budget: least * 9 / 10, MaxValue: maxValue})
		require.ErrorIs(t, err, localstore.ErrBudget)
	}
}

// Keys of one hash live side by side; bigcache would overwrite one with the other,
// and takes hash 0 for a mark.
func TestKeysOfOneHash(t *testing.T) {
	for _, hash := range []uint64{0, 1, 42, 1<<64 - 1} {
		s := open(t, localstore.Config{Budget: small, MaxValue: smallValue, Hash: func(string) uint64 { return hash }})
		const keys = 100
		for i := range keys {
			requireMiss(t, s, fmt.Sprint(i))
			require.Empty(t, put(t, s, fmt.Sprint(i), fmt.Sprint("value", i), localstore.Meta{Version: 1}))
		}
		require.Empty(t, put(t, s, "7", "another value", localstore.Meta{}))
		_, ok := s.Delete("8")
		require.True(t, ok)
		_, ok = s.Delete("absent")
		require.False(t, ok)
		require.Equal(t, keys-1, s.Len())
		for i := range keys {
			switch i {
			case 7:
				requireValue(t, s, "7", "another value")
			case 8:
				requireMiss(t, s, "8")
			default:
				requireValue(t, s, fmt.Sprint(i), fmt.Sprint("value", i))
			}
		}
	}
}

// bigcache counts age in seconds against one window, and checks it at Set.
func TestAgeAloneEvictsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, localstore.Config{Budget: small, MaxValue: smallValue})
		m := localstore.Meta{Expires: time.Millisecond}
		put(t, s, "old", "v", m)
		time.Sleep(20 * 365 * 24 * time.Hour)
		for i := range 100 {
			require.Empty(t, put(t, s, fmt.Sprint(i), "v", localstore.Meta{}))
		}
		m.Size = 1
		got, ok := s.Head("old")
		require.True(t, ok, "expired entries are the caller's to judge")
		require.Equal(t, m, got)
		requireValue(t, s, "old", "v")
	})
}

func TestClose(t *testing.T) {
	s, err := localstore.Open(localstore.Config{Budget: small, MaxValue: smallValue})
	require.NoError(t, err)
	put(t, s, "a", "v", localstore.Meta{})
	put(t, s, "b", "v", localstore.Meta{})
	_, cursor, err := s.Scan(0, 1)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())

	requireMiss(t, s, "a")
	_, ok := s.Delete("a")
	require.False(t, ok)
	require.ErrorIs(t, s.Put("a", nil, localstore.Meta{}, nil), localstore.ErrClosed)
	_, _, err = s.Scan(cursor, 1)
	require.ErrorIs(t, err, localstore.ErrClosed)
	s.Reset()
	require.Zero(t, s.Len())
	require.Zero(t, s.Stats().Bytes)
}

func TestReset(t *testing.T) {
	s := open(t, localstore.Config{Budget: small, MaxValue: smallValue})
	for i := range 1000 {
		put(t, s, fmt.Sprint(i), "v", localstore.Meta{})
	}
	s.Reset()
	require.Zero(t, s.Len())
	require.Zero(t, s.Stats().Bytes)
	requireMiss(t, s, "1")
	require.Empty(t, put(t, s, "1", "w", localstore.Meta{}))
	requireValue(t, s, "1", "w")
	require.Zero(t, s.Stats().Evicted)
}

func TestSlicesAreNotShared(t *testing.T) {
	s := open(t, localstore.Config{Budget: small, MaxValue: smallValue})
	value := []byte("value")
	require.NoError(t, s.Put("k", value, localstore.Meta{}, nil))
	copy(value, "XXXXX")
	for _, dst := range [][]byte{nil, make([]byte, 0, 100), []byte("dst")} {
		got, _, _ := s.Get("k", dst)
		for i := range got {
			got[i] = 'X'
		}
		_ = append(got, "XXXXXXXX"...)
		requireValue(t, s, "k", "value")
	}
}

// Nothing of bigcache's reaches the terminal: not its verbose log, not its
// cleaning goroutine's farewell.
func TestSilent(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	stdout, stderr := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = w, w
	restore := func() { os.Stdout, os.Stderr = stdout, stderr }
	defer restore()

	s, err := localstore.Open(localstore.Config{Budget: small, MaxValue: smallValue, Hash: func(k string) uint64 { return uint64(len(k)) }})
	require.NoError(t, err)
	for i := range 500 {
		key := fmt.Sprintf("%d%s", i, strings.Repeat("k", i%8))
		require.NoError(t, s.Put(key, make([]byte, smallValue), localstore.Meta{}, nil))
		s.Get(key+"x", nil)
	}
	require.NoError(t, s.Close())
	restore()
	require.NoError(t, w.Close())
	out, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Empty(t, string(out))
}

// While a writer replaces, deletes, evicts and resets, a reader sees whole
// values under the right stamps, or none.
func TestReadersBesideAWriter(t *testing.T) {
	const keys, rounds = 50, 3000
	s := open(t, localstore.Config{Budget: small, MaxValue: smallValue, Hash: func(k string) uint64 { return uint64(len(k) % 40) }})
	key := func(i int) string { return strings.Repeat("k", i%keys+1) }
	size := func(version int) int { return version * 7919 % smallValue }

	done := make(chan struct{})
	var readers sync.WaitGroup
	for r := range 4 {
		readers.Go(func() {
			var buf []byte
			for i := r; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				s.Prefetch([]string{key(i), key(i + 1)})
				read := s.AppendTo
				if i%2 == 0 {
					read = func(dst []byte, key string) ([]byte, localstore.Meta, bool) { return s.Get(key, dst) }
				}
				got, m, ok := read(buf[:0], key(i))
				buf = got
				if ok && (len(got) != size(int(m.Version)) || strings.Trim(string(got), string(rune('a'+m.Version%26))) != "") {
					t.Errorf("torn value at version %d", m.Version)
					return
				}
				s.Head(key(i))
				if i%64 == 0 {
					s.Stats()
					_, _, _ = s.Scan(0, 10)
				}
			}
		})
	}
	for v := 1; v <= rounds; v++ {
		value := strings.Repeat(string(rune('a'+v%26)), size(v))
		put(t, s, key(v*31), value, localstore.Meta{Version: uint64(v)})
		if v%5 == 0 {
			s.Delete(key(v))
		}
		if v%1000 == 0 {
			s.Reset()
		}
	}
	close(done)
	readers.Wait()
}

func TestHangsAreKeptApart(t *testing.T) {
	s := open(t, localstore.Config{Budget: 8 << 20})
	hangs := []byte("what it hangs on")
	put(t, s, "k", "v", localstore.Meta{Hangs: hangs})
	hangs[0] = 'W'
	got, m, ok := s.Get("k", nil)
	require.True(t, ok)
	require.Equal(t, "v", string(got))
	require.Equal(t, "what it hangs on", string(m.Hangs))

	put(t, s, "k", "other", localstore.Meta{Hangs: []byte("something different")})
	require.Equal(t, "what it hangs on", string(m.Hangs), "a reader's copy is its own")
	head, ok := s.Head("k")
	require.True(t, ok)
	require.Equal(t, "something different", string(head.Hangs))

	require.ErrorIs(t, s.Put("k", nil, localstore.Meta{Hangs: make([]byte, localstore.MaxHangs+1)}, nil), localstore.ErrTooLarge)
	head, ok = s.Head("k")
	require.True(t, ok)
	require.Equal(t, 5, head.Size, "a refused Put leaves the entry alone")
}
