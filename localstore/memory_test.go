package localstore_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/localstore"
)

// heapInUse returns the bytes of heap in use after a collection.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

// fill puts size bytes under distinct keys until the rings have been gone
// through reuse times.
func fill(t testing.TB, s *localstore.Store, size int, reuse float64) {
	value := make([]byte, size)
	per := max(size+30, 64)
	n := int(float64(s.Stats().Capacity) * reuse / float64(per))
	for i := range n {
		require.NoError(t, s.Put(fmt.Sprintf("key:%08d", i), value, localstore.Meta{Version: uint64(i), Seq: 1 << 40, Tick: uint64(i)}, nil))
	}
	require.Positive(t, s.Stats().Evicted)
}

// The budget is kept whatever the values: none, so that the index is largest for
// its ring; the usual; and the largest, so that all buffers have grown. Rings
// keep their size.
func TestBudgetIsKept(t *testing.T) {
	for _, c := range []struct {
		budget     int64
		size       int
		thenLarge  bool
		leastInUse float64 // of the budget, by keys and values
	}{
		{16 << 20, 0, true, 0},
		{32 << 20, 100, false, 0.4},
		{32 << 20, 16 << 10, true, 0.55},
		{8 << 20, 0, true, 0},
		{8 << 20, 100, false, 0.2},
	} {
		t.Run(fmt.Sprintf("%dMiB/%dB", c.budget>>20, c.size), func(t *testing.T) {
			before := heapInUse()
			s := open(t, localstore.Config{Budget: c.budget})
			opened := heapInUse() - before
			fill(t, s, c.size, 1.6)
			if c.leastInUse > 0 {
				require.Greater(t, float64(s.Stats().Bytes), c.leastInUse*float64(c.budget))
			}
			if c.thenLarge { // the index stays at its size, the buffers grow
				for i := range 64 {
					require.NoError(t, s.Put(fmt.Sprint(i), make([]byte, localstore.DefaultMaxValue), localstore.Meta{}, nil))
				}
			}
			used := heapInUse() - before
			t.Logf("opened %.1f %%, filled %.1f %% of the budget, keys and values %.1f %%, %+v",
				100*float64(opened)/float64(c.budget), 100*float64(used)/float64(c.budget), 100*float64(s.Stats().Bytes)/float64(c.budget), s.Stats())
			require.LessOrEqual(t, used, c.budget)
			require.GreaterOrEqual(t, opened, s.Stats().Capacity, "rings have their final size from the start")
			runtime.KeepAlive(s)
		})
	}
}

func TestCloseGivesTheMemoryBack(t *testing.T) {
	before := heapInUse()
	s, err := localstore.Open(localstore.Config{Budget: 64 << 20})
	require.NoError(t, err)
	require.Greater(t, heapInUse()-before, int64(32<<20))
	fill(t, s, 16<<10, 1.1)
	_, cursor, err := s.Scan(0, 1) // a scan under way holds on to nothing
	require.NoError(t, err)
	require.NotZero(t, cursor)
	require.NoError(t, s.Close())
	require.Less(t, heapInUse()-before, int64(4<<20))
	runtime.KeepAlive(s)
}
