package l2_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/l2"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

func (f *fleet) acquire(p pod) (*l2.Right, bool) {
	f.t.Helper()
	r, held, err := p.Acquire(f.t.Context(), key)
	require.NoError(f.t, err)
	return r, held
}

// gets wants the right.
func (f *fleet) gets(p pod) *l2.Right {
	f.t.Helper()
	r, held := f.acquire(p)
	require.True(f.t, held)
	return r
}

// load is what a sidecar does on a miss, with a load that takes d.
func (f *fleet) load(p pod, d time.Duration, version uint64) (e l2.Entry, loads int) {
	for {
		r, held := f.acquire(p)
		e, found, err := r.Wait(f.t.Context()) // for a holder: reads again
		require.NoError(f.t, err)
		if found {
			r.Release()
			return e, 0
		}
		if held {
			time.Sleep(d)
			require.NoError(f.t, r.Put(entry(1, version, 1)))
			return entry(1, version, 1), 1
		}
	}
}

func TestOneLoadsAndTheOthersFindIt(t *testing.T) {
	run(t, 10, policy.L2{}, func(t *testing.T, f *fleet) {
		for _, p := range f.pods {
			p.bus.DelayBuckets(time.Millisecond)
		}
		var mu sync.Mutex
		loads := 0
		var group sync.WaitGroup
		begun := time.Now()
		for i, p := range f.pods {
			group.Go(func() {
				e, n := f.load(p, 100*time.Millisecond, uint64(i+1))
				mu.Lock()
				defer mu.Unlock()
				loads += n
				require.NotZero(t, e.Version)
			})
		}
		group.Wait()
		require.Equal(t, 1, loads, "one load for the fleet")
		require.Less(t, time.Since(begun), 130*time.Millisecond, "nobody waits longer than it takes")
	})
}

// A pod whose miss was before another one's Put, and whose right is after its
// release, must not load again: Latest tells it.
func TestHolderLooksAgain(t *testing.T) {
	run(t, 2, policy.L2{}, func(t *testing.T, f *fleet) {
		a, b := f.pods[0], f.pods[1]
		b.bus.LagBuckets(100)
		f.lacks(b)
		require.NoError(t, f.gets(a).Put(entry(1, 1, 1)))
		synctest.Wait()
		_, loads := f.load(b, 0, 1)
		require.Zero(t, loads)
	})
}

// Whoever is woken by the release finds the entry, however slow the holder's way is.
func TestStoredBeforeReleased(t *testing.T) {
	run(t, 2, policy.L2{}, func(t *testing.T, f *fleet) {
		mine := f.gets(f.pods[0])
		theirs, held := f.acquire(f.pods[1])
		require.False(t, held)
		f.pods[0].bus.DelayBuckets(20 * time.Millisecond)
		require.NoError(t, mine.Put(entry(1, 1, 1)))
		_, found, err := theirs.Wait(t.Context())
		require.NoError(t, err)
		require.True(t, found)
	})
}

func TestReleaseWakesWaiters(t *testing.T) {
	run(t, 2, policy.L2{Wait: time.Minute}, func(t *testing.T, f *fleet) {
		a, b := f.pods[0], f.pods[1]
		mine := f.gets(a)
		theirs, held := f.acquire(b)
		require.False(t, held)
		require.Equal(t, mine.Fence, theirs.Fence)
		begun := time.Now()
		go func() {
			time.Sleep(123 * time.Millisecond)
			mine.Release()
			mine.Release()
		}()
		_, found, err := theirs.Wait(t.Context())
		require.NoError(t, err)
		require.False(t, found, "the load failed")
		require.Equal(t, 123*time.Millisecond, time.Since(begun))
		next := f.gets(b)
		require.Greater(t, next.Fence, mine.Fence)
		theirs.Release()
		mine.Release()
		synctest.Wait()
		_, held = f.acquire(a)
		require.False(t, held, "who holds nothing releases nothing")
	})
}

func TestWaitIsBounded(t *testing.T) {
	run(t, 2, policy.L2{Wait: 300 * time.Millisecond}, func(t *testing.T, f *fleet) {
		f.gets(f.pods[0])
		theirs, held := f.acquire(f.pods[1])
		require.False(t, held)
		begun := time.Now()
		_, found, err := theirs.Wait(t.Context())
		require.NoError(t, err)
		require.False(t, found)
		require.Equal(t, 300*time.Millisecond, time.Since(begun))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, _, err = theirs.Wait(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.True(t, f.pods[1].Stats().Up, "a slow load is not the tier's fault")

		f.pods[1].bus.Disconnect()
		_, _, err = theirs.Wait(t.Context())
		require.ErrorIs(t, err, l2.ErrAway)
	})
}

// A holder that dies is passed over when its right has expired, by all who wait.
func TestDeadHolderIsPassedOver(t *testing.T) {
	run(t, 5, policy.L2{Wait: time.Minute, LockExpiry: 3 * time.Second}, func(t *testing.T, f *fleet) {
		dead := f.gets(f.pods[0])
		begun := time.Now()
		f.pods[0].bus.Disconnect()
		loads := make(chan int, 4)
		for _, p := range f.pods[1:] {
			go func() {
				_, n := f.load(p, 10*time.Millisecond, 2)
				loads <- n
			}()
		}
		require.Equal(t, 1, <-loads+<-loads+<-loads+<-loads)
		require.Equal(t, 3010*time.Millisecond, time.Since(begun))
		require.Equal(t, begun.Add(3*time.Second), dead.Expires)
	})
}

// Fencing: who sleeps past the end of its right replaces no newer entry, and takes
// nobody's right away.
func TestPausedHolder(t *testing.T) {
	run(t, 3, policy.L2{LockExpiry: 2 * time.Second}, func(t *testing.T, f *fleet) {
		a, b, c := f.pods[0], f.pods[1], f.pods[2]
		paused := f.gets(a)
		_, held := f.acquire(b)
		require.False(t, held)
		time.Sleep(2 * time.Second)
		next := f.gets(b)
		require.Greater(t, next.Fence, paused.Fence)
		require.NoError(t, next.Put(entry(1, 2, 20)))
		synctest.Wait()
		last := f.gets(c)

		require.NoError(t, paused.Put(entry(1, 1, 10)), "what it loaded long ago")
		synctest.Wait()
		f.finds(c, 2, 20)
		_, held = f.acquire(b)
		require.False(t, held, "the right of the third is still its own")
		last.Release()
		synctest.Wait()
		f.gets(b)
	})
}

func TestSoManyLoadAtOnce(t *testing.T) {
	run(t, 8, policy.L2{Loaders: 3, LockExpiry: 2 * time.Second}, func(t *testing.T, f *fleet) {
		var rights []*l2.Right
		for _, p := range f.pods {
			if r, held := f.acquire(p); held {
				rights = append(rights, r)
			}
		}
		require.Len(t, rights, 3)
		rights[1].Release()
		synctest.Wait()
		f.gets(f.pods[7])
		_, held := f.acquire(f.pods[6])
		require.False(t, held)
		time.Sleep(2 * time.Second)
		for _, p := range f.pods[:3] {
			f.gets(p)
		}
		_, held = f.acquire(f.pods[0])
		require.False(t, held)
	})
}

// An entry that cannot be put frees the right all the same.
func TestFailedPutReleases(t *testing.T) {
	run(t, 2, policy.L2{}, func(t *testing.T, f *fleet) {
		require.ErrorIs(t, f.gets(f.pods[0]).Put(entry(1, 0, 1)), l2.ErrUnversioned)
		synctest.Wait()
		r := f.gets(f.pods[1])
		require.NoError(t, r.Put(entry(1, 1, 1)))
		r.Release()
		require.NoError(t, r.Put(entry(1, 2, 1)), "also once it is released")
		synctest.Wait()
		f.finds(f.pods[0], 2, 1)
		f.gets(f.pods[0])
	})
}

// A right whose answer was lost expires.
func TestLostRight(t *testing.T) {
	run(t, 2, policy.L2{LockExpiry: time.Second}, func(t *testing.T, f *fleet) {
		a, b := f.pods[0], f.pods[1]
		a.bus.LoseBucketAcks(1)
		_, _, err := a.Acquire(t.Context(), key)
		require.ErrorIs(t, err, l2.ErrAway)
		_, held := f.acquire(b)
		require.False(t, held)
		time.Sleep(time.Second)
		f.gets(b)
	})
}

// Rights of different keys have nothing to do with one another, nor with entries.
func TestLocksAreApart(t *testing.T) {
	run(t, 1, policy.L2{Loaders: 16}, func(t *testing.T, f *fleet) {
		seen := map[string]bool{}
		for _, k := range []string{"a", "aa", "b", ""} {
			for slot := range 16 {
				require.False(t, seen[l2.LockKey(k, slot)])
				seen[l2.LockKey(k, slot)] = true
			}
			require.False(t, seen[l2.EntryPrefix+k])
		}
	})
}

// Between the end of a load and its entry in the hands of those who wait for it lie
// four calls at most: it is stored, the right is freed, which is noticed, and it is read.
func TestWhatIsLoadedIsSoonWithTheOthers(t *testing.T) {
	run(t, 2, policy.L2{}, func(t *testing.T, f *fleet) {
		for _, version := range []uint64{1, 2} { // of an absent key, and of one that it replaces
			for _, p := range f.pods {
				p.bus.DelayBuckets(time.Millisecond)
			}
			holder := f.gets(f.pods[0])
			waiter, held := f.acquire(f.pods[1])
			require.False(t, held)
			_, _, err := holder.Wait(t.Context())
			require.NoError(t, err)
			woken := make(chan time.Time)
			go func() {
				_, _, _ = waiter.Wait(t.Context())
				woken <- time.Now()
			}()
			synctest.Wait()
			time.Sleep(10 * time.Millisecond)
			begun := time.Now()
			require.NoError(t, holder.Put(entry(1, version, 1)))
			require.LessOrEqual(t, (<-woken).Sub(begun), 4*time.Millisecond)
			f.finds(f.pods[1], version, 1)
		}
	})
}
