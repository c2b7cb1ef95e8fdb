package l2_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/l2"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

func (f *fleet) acquire(p pod) (*l2.Right, bool) {
	f.t.Helper()
	e, _, err := p.Get(f.t.Context(), key)
	require.NoError(f.t, err)
	r, held, err := p.Acquire(f.t.Context(), key, e)
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
	e, found, err := p.Get(f.t.Context(), key)
	require.NoError(f.t, err)
	for !found {
		r, held, err := p.Acquire(f.t.Context(), key, e)
		require.NoError(f.t, err)
		if held {
			time.Sleep(d)
			require.NoError(f.t, r.Put(entry(1, version, 1)))
			return entry(1, version, 1), 1
		}
		e, found, err = r.Wait(f.t.Context())
		require.NoError(f.t, err)
	}
	return e, 0
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

// A pod whose miss was before another one's Put does not load again: the right is not
// to be had in a place that is not what it saw.
func TestRightIsOfThePlaceThatWasSeen(t *testing.T) {
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

func TestReleaseWakesWaiters(t *testing.T) {
	run(t, 2, policy.L2{Wait: time.Minute}, func(t *testing.T, f *fleet) {
		a, b := f.pods[0], f.pods[1]
		mine := f.gets(a)
		theirs, held := f.acquire(b)
		require.False(t, held)
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
		require.Greater(t, next.At(), mine.At())
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
		_, _, err := theirs.Wait(t.Context())
		require.ErrorIs(t, err, l2.ErrHeld)
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
		f.gets(f.pods[0])
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
		require.Greater(t, next.At(), paused.At())
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
		_, _, err := a.Acquire(t.Context(), key, l2.Entry{})
		require.ErrorIs(t, err, l2.ErrAway)
		_, held := f.acquire(b)
		require.False(t, held)
		time.Sleep(time.Second)
		f.gets(b)
	})
}

// A miss costs two calls before the load, and one after it, with which the entry is in
// the hands of those who wait for it.
func TestWhatIsLoadedIsSoonWithTheOthers(t *testing.T) {
	run(t, 2, policy.L2{}, func(t *testing.T, f *fleet) {
		for _, version := range []uint64{1, 2} { // of an absent key, and of one that it replaces
			for _, p := range f.pods {
				p.bus.DelayBuckets(time.Millisecond)
			}
			begun := time.Now()
			holder := f.gets(f.pods[0])
			require.Equal(t, 2*time.Millisecond, time.Since(begun))
			waiter, held := f.acquire(f.pods[1])
			require.False(t, held)
			woken := make(chan l2.Entry)
			go func() {
				e, _, _ := waiter.Wait(t.Context())
				woken <- e
			}()
			synctest.Wait()
			time.Sleep(10 * time.Millisecond)
			begun = time.Now()
			require.NoError(t, holder.Put(entry(1, version, 1)))
			require.Equal(t, version, (<-woken).Version)
			require.LessOrEqual(t, time.Since(begun), 2*time.Millisecond) // that of the bus under test, and its answer
		}
	})
}

// Of a key that changes often those who wait know the place, and need one call before
// the load. Whoever knows an old one is told of the new one, without loading.
func TestRecentPlaceNeedNotBeAskedFor(t *testing.T) {
	run(t, 3, policy.L2{}, func(t *testing.T, f *fleet) {
		a, b, c := f.pods[0], f.pods[1], f.pods[2]
		for _, p := range []pod{b, c} {
			_, known := p.Recall(key)
			require.False(t, known)
		}
		holder := f.gets(a)
		var group sync.WaitGroup
		for _, p := range []pod{b, c} {
			waiter, held := f.acquire(p)
			require.False(t, held)
			group.Go(func() { _, _, _ = waiter.Wait(t.Context()) })
		}
		e := entry(1, 1, 1)
		e.TTL = time.Minute
		require.NoError(t, holder.Put(e))
		group.Wait()

		b.bus.DelayBuckets(time.Millisecond)
		begun := time.Now()
		seen, known := b.Recall(key)
		require.True(t, known)
		r, held, err := b.Acquire(t.Context(), key, seen)
		require.NoError(t, err)
		require.True(t, held)
		require.Equal(t, time.Millisecond, time.Since(begun))
		e.Version = 2
		require.NoError(t, r.Put(e))
		time.Sleep(time.Second)

		seen, _ = c.Recall(key)
		require.EqualValues(t, 1, seen.Version)
		r, held, err = c.Acquire(t.Context(), key, seen)
		require.NoError(t, err)
		require.False(t, held)
		got, found, err := r.Wait(t.Context())
		require.NoError(t, err)
		require.True(t, found)
		require.EqualValues(t, 2, got.Version)
		seen, _ = c.Recall(key)
		require.EqualValues(t, 2, seen.Version)
		time.Sleep(time.Minute)
		_, known = c.Recall(key)
		require.False(t, known, "it has expired")
	})
}

// While a key is loaded anew, what there was is there for those for whom it is still
// good; and again after a load that failed. What has expired is not put back.
func TestClaimKeepsWhatThereWas(t *testing.T) {
	run(t, 2, policy.L2{Loaders: 2}, func(t *testing.T, f *fleet) {
		a, b := f.pods[0], f.pods[1]
		e := entry(1, 5, 5)
		e.TTL = time.Minute
		f.put(a, e)
		stored := f.finds(b, 5, 5)
		first, second := f.gets(a), f.gets(b)
		_, held := f.acquire(a)
		require.False(t, held)
		claimed := f.finds(b, 5, 5)
		require.Len(t, claimed.Claims, 2)
		require.ErrorIs(t, b.Vouch(t.Context(), key, claimed, at(1, 0, 9), 9), bus.ErrConflict)
		for _, r := range []*l2.Right{first, second} {
			r.Release()
			synctest.Wait()
		}
		back := f.finds(b, 5, 5)
		require.Greater(t, back.Revision, stored.Revision)
		back.Revision = stored.Revision
		require.Equal(t, stored, back)
		time.Sleep(30 * time.Second)
		r := f.gets(a)
		time.Sleep(30 * time.Second)
		r.Release()
		synctest.Wait()
		f.lacks(b)
		_, _, err := f.shelf.Get(t.Context(), l2.EntryPrefix+key)
		require.ErrorIs(t, err, bus.ErrKeyNotFound)
	})
}

// What was loaded may be older than what is there: then it is that which stays, and
// the right is free.
func TestOlderThanWhatThereWas(t *testing.T) {
	run(t, 2, policy.L2{}, func(t *testing.T, f *fleet) {
		a, b := f.pods[0], f.pods[1]
		f.put(a, entry(1, 5, 5))
		r := f.gets(a)
		require.NoError(t, r.Put(entry(1, 4, 9)))
		synctest.Wait()
		require.Empty(t, f.finds(b, 5, 5).Claims)
		f.gets(b)
	})
}

// A claim lasts for lock_expiry, whatever others do in the same place meanwhile, and
// what there was outlives it.
func TestClaimEndsByItself(t *testing.T) {
	run(t, 3, policy.L2{Loaders: 2, LockExpiry: 2 * time.Second}, func(t *testing.T, f *fleet) {
		a, b, c := f.pods[0], f.pods[1], f.pods[2]
		f.put(a, entry(1, 5, 5))
		dead := f.gets(a)
		a.bus.Disconnect()
		for range 3 {
			f.gets(b).Release()
			time.Sleep(time.Second)
		}
		f.gets(b)
		f.gets(c)
		a.bus.Reconnect()
		f.finds(b, 5, 5)
		dead.Release()
		synctest.Wait()
		_, held := f.acquire(a)
		require.False(t, held, "it takes none but its own away")
	})
}

// A claim of a clock that is hours ahead counts for nothing.
func TestClaimOfAWrongClock(t *testing.T) {
	run(t, 1, policy.L2{}, func(t *testing.T, f *fleet) {
		for _, c := range []struct {
			ahead time.Duration
			held  bool
		}{{5 * time.Second, false}, {time.Hour, true}} {
			place := entry(1, 1, 1)
			place.Stored, place.TTL = time.Now(), time.Minute
			place.Claims = []l2.Claim{{ID: 7, Until: time.Now().Add(c.ahead)}}
			data, err := l2.Encode(place)
			require.NoError(t, err)
			_, err = f.shelf.Put(t.Context(), l2.EntryPrefix+key, data, 0)
			require.NoError(t, err)
			_, held := f.acquire(f.pods[0])
			require.Equal(t, c.held, held)
		}
	})
}

// A Put that the full queue refuses frees the right, if at the cost of what there was.
func TestFullQueueReleases(t *testing.T) {
	run(t, 2, policy.L2{}, func(t *testing.T, f *fleet) {
		a, b := f.pods[0], f.pods[1]
		e := entry(1, 2, 2)
		e.Value = make([]byte, 1<<20)
		f.put(a, entry(1, 1, 1))
		r := f.gets(a)
		a.bus.DelayBuckets(200 * time.Millisecond)
		for i := 0; ; i++ {
			if err := a.Put("other"+strconv.Itoa(i), e); err != nil {
				require.ErrorIs(t, err, l2.ErrFull)
				break
			}
		}
		require.ErrorIs(t, r.Put(e), l2.ErrFull)
		time.Sleep(5 * time.Second)
		f.gets(b)
	})
}

// What waits to be put back counts, too.
func TestReleasesAreBounded(t *testing.T) {
	run(t, 1, policy.L2{Timeout: time.Second}, func(t *testing.T, f *fleet) {
		a := f.pods[0]
		var rights []*l2.Right
		for i := range 2 * l2.QueueBytes >> 20 {
			e, k := entry(1, 1, 1), "k"+strconv.Itoa(i)
			e.Value = make([]byte, 1<<20)
			require.NoError(t, a.Put(k, e))
			synctest.Wait()
			seen, found, err := a.Get(t.Context(), k)
			require.NoError(t, err)
			require.True(t, found)
			r, held, err := a.Acquire(t.Context(), k, seen)
			require.NoError(t, err)
			require.True(t, held)
			require.Empty(t, seenBy(t, a, k).Value, "a large value is not written once more")
			rights = append(rights, r)
		}
		a.bus.DelayBuckets(900 * time.Millisecond)
		for _, r := range rights {
			r.Release()
		}
		require.LessOrEqual(t, a.QueuedBytes(), int64(l2.QueueBytes))
		a.bus.DelayBuckets(0)
		time.Sleep(time.Minute)
		back := 0
		for i := range rights {
			e := seenBy(t, a, "k"+strconv.Itoa(i))
			require.Empty(t, e.Claims)
			back += len(e.Value) >> 20
		}
		require.Greater(t, back, l2.QueueBytes>>21)
		require.Less(t, back, len(rights))
	})
}

func seenBy(t *testing.T, p pod, key string) l2.Entry {
	e, _, err := p.Get(t.Context(), key)
	require.NoError(t, err)
	return e
}

// Who is told of another entry than it has seen may judge that before it waits.
func TestNewerEntryUnderAClaim(t *testing.T) {
	run(t, 3, policy.L2{Wait: time.Minute}, func(t *testing.T, f *fleet) {
		a, b, c := f.pods[0], f.pods[1], f.pods[2]
		f.put(a, entry(1, 1, 1))
		seen := f.finds(b, 1, 1)
		f.put(a, entry(1, 2, 2))
		holder := f.gets(c)
		r, held, err := b.Acquire(t.Context(), key, seen)
		require.NoError(t, err)
		require.False(t, held)
		begun := time.Now()
		e, found, err := r.Wait(t.Context())
		require.NoError(t, err)
		require.True(t, found)
		require.EqualValues(t, 2, e.Version)
		require.Zero(t, time.Since(begun))
		r, held, err = b.Acquire(t.Context(), key, e)
		require.NoError(t, err)
		require.False(t, held)
		go func() {
			time.Sleep(5 * time.Second)
			holder.Release()
		}()
		_, _, err = r.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 5*time.Second, time.Since(begun), "that it has judged")
	})
}

// What cannot be shared nobody waits for.
func TestBarren(t *testing.T) {
	run(t, 2, policy.L2{LockExpiry: 10 * time.Second}, func(t *testing.T, f *fleet) {
		a, b := f.pods[0], f.pods[1]
		for _, before := range []uint64{0, 5} {
			if before != 0 {
				f.put(a, entry(1, before, before))
			}
			r := f.gets(a)
			waiter, held := f.acquire(b)
			require.False(t, held)
			r.Barren()
			r.Barren()
			e, found, err := waiter.Wait(t.Context())
			require.NoError(t, err)
			require.Equal(t, before != 0, found)
			for range 2 {
				_, _, err = b.Acquire(t.Context(), key, e)
				require.ErrorIs(t, err, l2.ErrBarren)
				e = seenBy(t, a, key)
			}
			require.True(t, b.Stats().Up)
			time.Sleep(10 * time.Second)
			r = f.gets(b)
			r.Barren()
			synctest.Wait()
			require.NoError(t, a.Put(key, entry(1, 3+before, 9)))
			synctest.Wait()
			r = f.gets(a)
			r.Release()
			synctest.Wait()
		}
	})
}
