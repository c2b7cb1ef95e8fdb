package localstore

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func openTest(t *testing.T, c Config) *Store {
	t.Helper()
	s, err := Open(c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func mustPut(t *testing.T, s *Store, key string, size int) (lost []string) {
	t.Helper()
	require.NoError(t, s.Put(key, make([]byte, size), Meta{Seq: 1 << 40}, func(e Evicted) { lost = append(lost, e.Key) }))
	return lost
}

// ringOf returns the ring that holds a key.
func ringOf(t *testing.T, s *Store, key string) int {
	t.Helper()
	sd, mixed := s.shelf.Load().shard(key)
	_, w, rec := sd.find(key, mixed)
	require.NotNil(t, rec, key)
	return w.ring()
}

// fits is how many entries of a size all rings hold, less a tenth.
func fits(s *Store, size int) int { return int(s.Stats().Capacity) * 9 / 10 / (size + 40) }

// Probation is no limit while main has room.
func TestNothingIsEvictedBeforeTheMemoryIsFull(t *testing.T) {
	for _, size := range []int{100, 1000, 2000} {
		s := openTest(t, Config{Budget: 4 << 20, MaxValue: 4 << 10})
		n := fits(s, size) * 8 / 9 // shards differ
		for i := range n {
			require.Empty(t, mustPut(t, s, fmt.Sprint("key", i), size), "%d of %d", i, n)
		}
	}
}

// What is read stays, however many keys come once; and what comes once goes soon.
func TestScansPassThrough(t *testing.T) {
	const size = 200
	s := openTest(t, Config{Budget: 2 << 20, MaxValue: 16 << 10})
	n := fits(s, size)
	hot := n / 2
	read := func() (hits int) {
		for i := range hot {
			if _, _, ok := s.AppendTo(nil, fmt.Sprint("hot", i)); ok {
				hits++
			}
		}
		return hits
	}
	for i := range hot {
		mustPut(t, s, fmt.Sprint("hot", i), size)
	}
	read()
	for i := range 20 * n {
		mustPut(t, s, fmt.Sprint("once", i), size)
		if i%(4*n) == 0 {
			read()
		}
	}
	require.Greater(t, read(), hot*98/100)
}

// A key that was evicted unread, and is missed soon, is kept longer.
func TestGhostsGoToMain(t *testing.T) {
	const size = 200
	s := openTest(t, Config{Budget: 4 << 20, MaxValue: 16 << 10})
	var lost []string
	for i := 0; len(lost) == 0; i++ {
		lost = mustPut(t, s, fmt.Sprint("key", i), size)
	}
	mustPut(t, s, "new", size)
	require.Equal(t, probation, ringOf(t, s, "new"))
	mustPut(t, s, lost[0], size)
	require.Equal(t, mainRing, ringOf(t, s, lost[0]))
}

// An invalidation takes the value, not what is known of its key's use.
func TestDeletedKeysThatWereReadComeBackToMain(t *testing.T) {
	s := openTest(t, Config{Budget: 4 << 20, MaxValue: 16 << 10})
	for _, key := range []string{"read", "unread"} {
		mustPut(t, s, key, 10)
	}
	_, _, ok := s.AppendTo(nil, "read")
	require.True(t, ok)
	for _, key := range []string{"read", "unread"} {
		_, ok := s.Delete(key)
		require.True(t, ok)
		mustPut(t, s, key, 10)
	}
	require.Equal(t, mainRing, ringOf(t, s, "read"))
	require.Equal(t, probation, ringOf(t, s, "unread"))
}

// bigcache keeps what was overwritten until its turn, and so evicts others for it. Where
// what is dead is far from its turn a few go, since moves are bounded.
func TestOverwritesEvictHardlyAnybody(t *testing.T) {
	for name, size := range map[string]func(i int) int{
		"same size":   func(int) int { return 300 },
		"little less": func(i int) int { return 300 - i%100 },
		"other sizes": func(i int) int { return 100 + i*7919%600 },
	} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t, Config{Budget: 4 << 20, MaxValue: 16 << 10})
			n := fits(s, 300) * 6 / 10
			for i := range n {
				mustPut(t, s, fmt.Sprint("key", i), 300)
			}
			for i := range 8 * n {
				mustPut(t, s, fmt.Sprint("key", i%(n/10)), size(i))
			}
			require.LessOrEqual(t, s.Stats().Evicted, uint64(n/20))
		})
	}
}

// A value of about the same length is written where the old one was: nothing dies.
func TestOverwritesStayInPlace(t *testing.T) {
	s := openTest(t, Config{Budget: 2 << 20, MaxValue: 16 << 10})
	place := func() uint32 {
		sd, mixed := s.shelf.Load().shard("k")
		_, w, _ := sd.find("k", mixed)
		return w.offset()
	}
	mustPut(t, s, "k", 1000)
	mustPut(t, s, "other", 1000)
	first := place()
	for _, size := range []int{1000, 999, 1000 - maxPad, 900, 1000} {
		value := bytes.Repeat([]byte{byte(size)}, size)
		require.NoError(t, s.Put("k", value, Meta{Seq: 1 << 40, Version: 1}, nil))
		got, m, ok := s.Get("k", nil)
		require.True(t, ok)
		require.Equal(t, value, got)
		require.EqualValues(t, 1, m.Version)
		if size < 1000 {
			require.Equal(t, first, place(), size)
		}
	}
	mustPut(t, s, "k", 1001)
	require.NotEqual(t, first, place())
}

// Second chances are work under the shard's lock: one insertion has only so many, and
// the oldest goes though it was read.
func TestSecondChancesAreBounded(t *testing.T) {
	s := openTest(t, Config{Budget: 2 << 20, MaxValue: 1 << 10})
	require.Equal(t, 1, s.Stats().Shards)
	sd := &s.shelf.Load().shards[0]
	for i := 0; s.Stats().Evicted == 0; i++ {
		key := fmt.Sprint("key", i)
		mustPut(t, s, key, 100)
		s.AppendTo(nil, key)
	}
	x := sd.index.Load()
	for i := range x.slots { // everybody reads everything
		if w := x.at(i); w != 0 {
			x.set(i, w|maxReads*readsUnit)
		}
	}
	left := chances(allChances)
	for before := s.Len(); sd.entries == before; {
		require.NoError(t, sd.recycle(&left))
	}
	require.LessOrEqual(t, left, chances(0), "something went only when all were spent")
	require.Greater(t, left, chances(-2*moveCost))
}

// Tiny entries do not fill the rings before the index has what the budget allows it.
func TestEntriesAreBounded(t *testing.T) {
	s := openTest(t, Config{Budget: 2 << 20, MaxValue: 1 << 10})
	for i := range 4 * s.layout.entries * s.layout.shards {
		mustPut(t, s, fmt.Sprint(i), 0)
	}
	for i := range s.shelf.Load().shards {
		sd := &s.shelf.Load().shards[i]
		require.Equal(t, s.layout.entries, sd.entries)
		require.LessOrEqual(t, len(sd.index.Load().slots), s.layout.slots)
	}
}

// A queue that grew would move, and be over the budget; also the smallest must not.
func TestRingsKeepTheirSize(t *testing.T) {
	s := openTest(t, Config{Budget: least(largest(1)), MaxValue: 1})
	for i := range 20_000 {
		mustPut(t, s, fmt.Sprint(i), i%2)
	}
	for r := range s.shelf.Load().shards[0].rings {
		ring := &s.shelf.Load().shards[0].rings[r]
		require.Equal(t, ring.size, ring.records.Capacity())
	}
}

// What a prefetch would load is what a read looks at.
func TestRingAddresses(t *testing.T) {
	r := newRing(1 << 16)
	for i := range 40 {
		offset, ok := r.push(make([]byte, 20*i+minRecord))
		require.True(t, ok)
		b := r.at(offset)
		distance := uintptr(addressOf(b)) - uintptr(r.address(offset))
		require.Contains(t, []uintptr{1, 2}, distance, "the record's length is before it")
	}
	require.LessOrEqual(t, uintptr(r.address(1<<32-1))-uintptr(r.base), uintptr(1<<16-line))
}

// Of small records the index is full before the rings are. Then, too, what nobody reads
// passes through probation and keeps nothing out that is read, and one Put moves little.
func TestSmallRecordsAreEvictedAsLargeOnes(t *testing.T) {
	s := openTest(t, Config{Budget: 4 << 20, MaxValue: 1 << 10})
	l := s.layout
	room := l.shards * l.entries
	most := 0
	put := func(key string) {
		sd, _ := s.shelf.Load().shard(key)
		before := sd.rings[probation].count()
		mustPut(t, s, key, 8)
		most = max(most, before-sd.rings[probation].count())
	}
	hot := func(i int) string { return fmt.Sprintf("h%d", i) }
	for i := range room / 2 {
		put(hot(i))
		_, _, ok := s.AppendTo(nil, hot(i))
		require.True(t, ok)
	}
	for i := range 4 * room {
		put(fmt.Sprintf("s%d", i))
	}
	require.Greater(t, s.Len(), room*8/10, "the index is what is full")
	kept := 0
	for i := range room / 2 {
		if _, _, ok := s.AppendTo(nil, hot(i)); ok {
			kept++
		}
	}
	require.Greater(t, kept, room/2*9/10, "of %d that were read", room/2)
	require.Less(t, most, 200)
	for i := range s.shelf.Load().shards {
		require.Greater(t, s.shelf.Load().shards[i].rings[probation].count(), l.entries/20, "probation is in use")
	}
}
