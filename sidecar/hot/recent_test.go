package hot_test

import (
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/nearside-cache/nearside/sidecar/hot"
)

// What was read within the time is told, whenever it is rotated; what was not is
// forgotten a third of the time later, when that is in time.
func TestRecentNeverForgetsTooSoon(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		within := time.Duration(rapid.IntRange(3, 1000).Draw(t, "within"))
		inTime := rapid.Bool().Draw(t, "in time")
		var now time.Duration
		r := hot.NewRecent(1<<12, within, now)
		read := map[uint64]time.Duration{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			step := time.Duration(rapid.IntRange(0, int(within)).Draw(t, "step"))
			for end := now + step; now < end; {
				now = min(end, now+r.Every())
				if inTime {
					r.Rotate(now)
				}
			}
			r.Rotate(now)
			hash := rapid.Uint64Range(0, 2).Draw(t, "key") * 0x9e3779b97f4a7c15 // apart from one another
			if rapid.Bool().Draw(t, "mark") {
				r.Mark(hash)
				read[hash] = now
			}
			d := time.Duration(rapid.IntRange(0, int(within)).Draw(t, "d"))
			at, known := read[hash]
			switch got := r.Within(hash, d); {
			case known && now-at <= d && !got:
				t.Fatalf("read %v ago, and not within %v", now-at, d)
			case inTime && got && (!known || now-at > within*5/3+9):
				t.Fatalf("told as read within %v, after %v", within, now-at)
			}
		}
	})
}

func TestRecentForgets(t *testing.T) {
	r := hot.NewRecent(100, 3*time.Second, 0)
	require.Equal(t, time.Second/4, r.Every())
	r.Mark(1)
	for s := range 4 {
		require.True(t, r.Within(1, time.Hour), s)
		r.Rotate(time.Duration(s+1) * time.Second)
	}
	require.False(t, r.Within(1, time.Hour))
	r.Mark(2)
	r.Rotate(5*time.Second - 1)
	r.Rotate(5 * time.Second)
	r.Rotate(6 * time.Second)
	require.True(t, r.Within(2, 2*time.Second))
	require.False(t, r.Within(2, 0), "a shorter time has fewer generations")
	r.Mark(3)
	r.Rotate(7 * time.Second)
	require.True(t, r.Within(3, 0), "the last moment may be in the generation before")
}

func TestRecentIsMostlyRight(t *testing.T) {
	const keys = 50_000
	r := hot.NewRecent(keys, time.Minute, 0)
	require.Equal(t, 4*(1<<14)*8, r.Bytes())
	seed := maphash.MakeSeed()
	for i := range keys {
		r.Mark(maphash.Comparable(seed, i))
	}
	wrong := 0
	for i := range keys {
		require.True(t, r.Within(maphash.Comparable(seed, i), 0))
		if r.Within(maphash.Comparable(seed, keys+i), time.Minute) {
			wrong++
		}
	}
	require.Less(t, wrong, keys*3/100, "of %d keys that were not read", keys)
}

func TestRecentSizes(t *testing.T) {
	for keys, want := range map[int]int{-1: 64, 0: 64, 256: 64, 260: 128, 1 << 16: 1 << 14} {
		require.Equal(t, 4*want*8, hot.NewRecent(keys, time.Second, 0).Bytes(), keys)
	}
}

// The race detector looks on; a mark is seen whatever is rotated meanwhile.
func TestRecentConcurrently(t *testing.T) {
	r := hot.NewRecent(1000, 3*time.Hour, 0)
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for range 2000 {
				hash := rand.Uint64()
				r.Mark(hash)
				if !r.Within(hash, 2*time.Hour) {
					t.Errorf("%x was just read", hash)
				}
			}
		})
	}
	r.Rotate(time.Hour)
	r.Rotate(2 * time.Hour)
	readers.Wait()
}

func BenchmarkMark(b *testing.B) {
	r := hot.NewRecent(1<<16, time.Minute, 0)
	hashes := make([]uint64, 1<<10)
	for i := range hashes {
		hashes[i] = rand.Uint64()
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r.Mark(hashes[i%len(hashes)])
	}
}
