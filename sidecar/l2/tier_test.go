package l2_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/membus"
	"github.com/nearside-cache/nearside/sidecar/l2"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const key = "product:42"

// fleet is some pods on one broker, in virtual time. shelf is the bucket, seen
// over a connection without faults.
type fleet struct {
	t      *testing.T
	stream *membus.Stream
	shelf  bus.Bucket
	pods   []pod
}

type pod struct {
	*l2.Tier
	bus *membus.Bus
}

func run(t *testing.T, pods int, p policy.L2, test func(*testing.T, *fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		stream, err := membus.NewStream("default")
		require.NoError(t, err)
		f := &fleet{t: t, stream: stream}
		for range pods {
			f.start(p)
		}
		watch := stream.Attach(membus.Options{})
		t.Cleanup(func() {
			for _, p := range f.pods {
				require.NoError(t, p.Close())
				require.NoError(t, p.Close(), "Close may be called twice")
				require.NoError(t, p.bus.Close())
			}
			require.NoError(t, watch.Close())
		})
		f.shelf, err = watch.Bucket(t.Context(), f.pods[0].Stats().Bucket, p.BucketConfig())
		require.NoError(t, err)
		test(t, f)
	})
}

func (f *fleet) start(p policy.L2) pod {
	b := f.stream.Attach(membus.Options{})
	tier, err := l2.New(b, l2.Config{Domain: "default", Namespace: "product", Policy: p})
	require.NoError(f.t, err)
	synctest.Wait()
	require.True(f.t, tier.Stats().Up)
	f.pods = append(f.pods, pod{tier, b})
	return f.pods[len(f.pods)-1]
}

// entry is one of the creation, version and seq that a test cares about.
func entry(created int64, version, seq uint64) l2.Entry {
	return l2.Entry{Version: version, Position: at(created, 0, seq), Value: []byte("value")}
}

// put stores and waits until that is done.
func (f *fleet) put(p pod, e l2.Entry) {
	f.t.Helper()
	require.NoError(f.t, p.Put(key, e))
	synctest.Wait()
}

// finds wants an entry of this version and seq.
func (f *fleet) finds(p pod, version, seq uint64) l2.Entry {
	f.t.Helper()
	e, found, err := p.Get(f.t.Context(), key)
	require.NoError(f.t, err)
	require.True(f.t, found)
	require.Equal(f.t, version, e.Version)
	require.Equal(f.t, seq, e.Position.Seq)
	return e
}

func (f *fleet) lacks(p pod) {
	f.t.Helper()
	_, found, err := p.Get(f.t.Context(), key)
	require.NoError(f.t, err)
	require.False(f.t, found)
}

func TestEntriesAreShared(t *testing.T) {
	run(t, 2, policy.L2{}, func(t *testing.T, f *fleet) {
		a, b := f.pods[0], f.pods[1]
		f.lacks(b)
		e := l2.Entry{
			Version: 7, Position: at(5, 3, 9), Value: []byte("value"), ETag: `"7"`,
			Tags: []string{"shop:3"}, Depends: []string{"shop:3"}, TTL: time.Minute,
		}
		f.put(a, e)
		got := f.finds(b, 7, 9)
		require.NotZero(t, got.Revision)
		require.Equal(t, time.Minute, got.Remaining(time.Now()))
		e.Revision, e.Stored = got.Revision, got.Stored
		require.Equal(t, e, got)
		latest, found, err := b.Latest(t.Context(), key)
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, got, latest)
		time.Sleep(time.Minute)
		f.lacks(b)
	})
}

func TestEntriesExpireToTheMillisecond(t *testing.T) {
	run(t, 1, policy.L2{TTL: 2 * time.Second}, func(t *testing.T, f *fleet) {
		e := entry(1, 1, 1)
		e.TTL = 1500 * time.Millisecond
		f.put(f.pods[0], e)
		time.Sleep(1499 * time.Millisecond)
		f.finds(f.pods[0], 1, 1)
		time.Sleep(time.Millisecond)
		f.lacks(f.pods[0])
		e.TTL = time.Hour
		f.put(f.pods[0], e)
		require.Equal(t, 2*time.Second, f.finds(f.pods[0], 1, 1).TTL, "the policy's TTL is the longest")
		e.Version, e.Stored = 2, time.Now().Add(-time.Minute)
		f.put(f.pods[0], e)
		f.finds(f.pods[0], 1, 1)
	})
}

func TestOlderNeverReplacesNewer(t *testing.T) {
	run(t, 2, policy.L2{}, func(t *testing.T, f *fleet) {
		a, b := f.pods[0], f.pods[1]
		f.put(a, entry(2, 5, 10))
		revision := f.finds(b, 5, 10).Revision
		for _, older := range []l2.Entry{entry(2, 4, 99), entry(2, 5, 9), entry(2, 5, 10), entry(1, 99, 99)} {
			f.put(b, older)
			require.Equal(t, revision, f.finds(b, 5, 10).Revision)
		}
		require.EqualValues(t, 4, b.Stats().NotNewer)
		for _, newer := range []l2.Entry{entry(2, 5, 11), entry(2, 6, 1), entry(3, 1, 1)} {
			f.put(b, newer)
			f.finds(a, newer.Version, newer.Position.Seq)
		}
		require.EqualValues(t, 3, b.Stats().Stored)
	})
}

// A lagging replica, and an acknowledgement that is lost, change nothing of it.
func TestOlderNeverReplacesNewerBehindALaggingReplica(t *testing.T) {
	run(t, 2, policy.L2{}, func(t *testing.T, f *fleet) {
		a, b := f.pods[0], f.pods[1]
		b.bus.LagBuckets(100)
		f.put(a, entry(1, 5, 1))
		f.lacks(b)
		f.put(b, entry(1, 4, 1))
		f.finds(a, 5, 1)
		require.EqualValues(t, 1, b.Stats().NotNewer, "at the first try")
		e, found, err := b.Latest(t.Context(), key)
		require.NoError(t, err)
		require.True(t, found, "the leader lacks nothing")
		require.EqualValues(t, 5, e.Version)

		a.bus.LoseBucketAcks(1)
		f.put(a, entry(1, 6, 1))
		f.put(b, entry(1, 5, 9))
		time.Sleep(l2.WriteTimeout)
		synctest.Wait()
		f.finds(a, 6, 1)
		require.EqualValues(t, 1, a.Stats().Dropped, "who knows")
		f.put(a, entry(1, 6, 1))
		require.EqualValues(t, 1, a.Stats().NotNewer)
	})
}

func TestWhatCannotBeRead(t *testing.T) {
	run(t, 1, policy.L2{}, func(t *testing.T, f *fleet) {
		p := f.pods[0]
		write := func(body string) {
			_, err := f.shelf.Put(t.Context(), l2.EntryPrefix+key, []byte(body), 0)
			require.NoError(t, err)
		}
		write("garbage")
		f.lacks(p)
		f.put(p, entry(1, 1, 1))
		f.finds(p, 1, 1)
		write("\x9c\x02\x00")
		newer := func() {
			_, _, err := p.Get(t.Context(), key)
			require.ErrorIs(t, err, l2.ErrNewer)
		}
		newer()
		f.put(p, entry(1, 1, 1))
		newer()
		require.EqualValues(t, 5, p.Stats().Unreadable, "writers count it too")
		require.EqualValues(t, 1, p.Stats().Dropped, "what a newer version stored stays")
		require.True(t, p.Stats().Up)
	})
}

func TestPutRefuses(t *testing.T) {
	run(t, 1, policy.L2{}, func(t *testing.T, f *fleet) {
		p := f.pods[0]
		require.ErrorIs(t, p.Put(key, entry(1, 0, 1)), l2.ErrUnversioned)
		large := entry(1, 1, 1)
		large.Value = make([]byte, l2.MaxEntry)
		require.ErrorIs(t, p.Put(key, large), bus.ErrTooLarge)
		require.ErrorIs(t, p.Put(strings.Repeat("k", bus.MaxKey), entry(1, 1, 1)), bus.ErrBadKey)
		_, _, err := p.Get(t.Context(), strings.Repeat("k", bus.MaxKey))
		require.ErrorIs(t, err, bus.ErrBadKey)
		require.True(t, p.Stats().Up, "that says nothing about the tier")
	})
}

// A tier that does not answer costs a few reads their timeout, then nothing, and
// is found to be back without a reader.
func TestAwayCostsNothing(t *testing.T) {
	run(t, 1, policy.L2{Timeout: 50 * time.Millisecond, TTL: 24 * time.Hour}, func(t *testing.T, f *fleet) {
		p := f.pods[0]
		f.put(p, entry(1, 1, 1))
		p.bus.MuteBuckets(true)
		for range l2.TripAfter {
			begun := time.Now()
			_, _, err := p.Get(t.Context(), key)
			require.ErrorIs(t, err, l2.ErrAway)
			require.Equal(t, 50*time.Millisecond, time.Since(begun))
		}
		require.False(t, p.Stats().Up)
		require.Contains(t, p.Stats().Why, "deadline")
		begun := time.Now()
		for range 1000 {
			_, _, err := p.Get(t.Context(), key)
			require.ErrorIs(t, err, l2.ErrAway)
			_, _, err = p.Acquire(t.Context(), key, l2.Entry{})
			require.ErrorIs(t, err, l2.ErrAway)
			require.ErrorIs(t, p.Put(key, entry(1, 2, 1)), l2.ErrAway)
		}
		require.Zero(t, time.Since(begun))
		time.Sleep(time.Hour)
		p.bus.MuteBuckets(false)
		time.Sleep(2 * (l2.LongestPause + l2.WriteTimeout))
		f.finds(p, 1, 1)
	})
}

func TestSlowIsAway(t *testing.T) {
	run(t, 1, policy.L2{Timeout: 50 * time.Millisecond}, func(t *testing.T, f *fleet) {
		p := f.pods[0]
		f.put(p, entry(1, 1, 1))
		p.bus.DelayBuckets(49 * time.Millisecond)
		for range 100 {
			f.finds(p, 1, 1)
		}
		p.bus.DelayBuckets(60 * time.Millisecond)
		for range l2.TripAfter {
			_, _, err := p.Get(t.Context(), key)
			require.ErrorIs(t, err, l2.ErrAway)
		}
		time.Sleep(time.Minute)
		require.False(t, p.Stats().Up, "it opens, but is no faster")
		require.Contains(t, p.Stats().Why, "l2.timeout")
		p.bus.DelayBuckets(0)
		time.Sleep(2 * l2.LongestPause)
		f.finds(p, 1, 1)
	})
}

// Readers who give up by themselves do not make the tier look away.
func TestImpatientReaders(t *testing.T) {
	run(t, 1, policy.L2{Timeout: time.Second}, func(t *testing.T, f *fleet) {
		p := f.pods[0]
		p.bus.DelayBuckets(500 * time.Millisecond)
		for range 10 * l2.TripAfter {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			_, _, err := p.Get(ctx, key)
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NotErrorIs(t, err, l2.ErrAway)
		}
		require.True(t, p.Stats().Up)
		f.lacks(p)
	})
}

// A sidecar starts while the tier is away, and finds it later.
func TestStartWhileAway(t *testing.T) {
	run(t, 1, policy.L2{}, func(t *testing.T, f *fleet) {
		b := f.stream.Attach(membus.Options{})
		b.Disconnect()
		tier, err := l2.New(b, l2.Config{Domain: "default", Namespace: "product"})
		require.NoError(t, err)
		_, _, err = tier.Get(t.Context(), key)
		require.ErrorIs(t, err, l2.ErrAway)
		time.Sleep(time.Minute)
		require.Contains(t, tier.Stats().Why, "disconnected")
		b.Reconnect()
		time.Sleep(2 * l2.LongestPause)
		require.True(t, tier.Stats().Up)
		f.put(f.pods[0], entry(1, 1, 1))
		f.finds(pod{tier, b}, 1, 1)
		require.NoError(t, tier.Close())
		require.NoError(t, b.Close())
	})
}

func TestLostBucket(t *testing.T) {
	run(t, 1, policy.L2{}, func(t *testing.T, f *fleet) {
		p := f.pods[0]
		f.put(p, entry(1, 5, 5))
		before := f.finds(p, 5, 5)
		f.stream.WipeBucket(p.Stats().Bucket)
		f.lacks(p)
		require.ErrorIs(t, p.Vouch(t.Context(), key, before, at(1, 0, 9), 9), bus.ErrConflict)
		f.put(p, entry(1, 4, 4))
		require.Greater(t, f.finds(p, 4, 4).Revision, before.Revision)
	})
}

func TestVouch(t *testing.T) {
	run(t, 2, policy.L2{TTL: 10 * time.Second}, func(t *testing.T, f *fleet) {
		a, b := f.pods[0], f.pods[1]
		f.put(a, entry(1, 5, 5))
		old := f.finds(b, 5, 5)
		time.Sleep(6 * time.Second)
		require.NoError(t, b.Vouch(t.Context(), key, old, at(1, 0, 9), 99))
		got := f.finds(a, 5, 9)
		require.Equal(t, old.Stored, got.Stored)
		require.Equal(t, old.Value, got.Value)
		require.EqualValues(t, 99, got.Digest)
		require.EqualValues(t, 1, b.Stats().Vouched)

		for _, seq := range []uint64{8, 10} {
			require.ErrorIs(t, a.Vouch(t.Context(), key, old, at(1, 0, seq), 1), bus.ErrConflict, "it read another one")
			twin := old
			twin.Revision = got.Revision
			require.ErrorIs(t, a.Vouch(t.Context(), key, twin, at(1, 0, seq), 1), bus.ErrConflict, "of a bucket before this one")
		}
		for _, other := range []bus.Position{at(2, 0, 10), at(1, 3, 10)} {
			require.ErrorIs(t, a.Vouch(t.Context(), key, got, other, 1), l2.ErrOtherEpoch)
		}
		require.NoError(t, a.Vouch(t.Context(), key, got, at(1, 0, 8), 1))
		require.Equal(t, got.Revision, f.finds(a, 5, 9).Revision, "a position is never lowered")
		require.True(t, a.Stats().Up)

		time.Sleep(3999 * time.Millisecond)
		f.finds(a, 5, 9)
		time.Sleep(time.Millisecond)
		f.lacks(a)
		_, _, err := f.shelf.Get(t.Context(), l2.EntryPrefix+key)
		require.ErrorIs(t, err, bus.ErrKeyNotFound, "nor does it lie in the bucket any longer")
		require.ErrorIs(t, a.Vouch(t.Context(), "product:none", got, at(1, 0, 9), 1), bus.ErrConflict)
	})
}

// After a reset the source's versions begin again: the entry of before must not
// keep the new ones out.
func TestEmptyPlaceLetsLowerVersionsIn(t *testing.T) {
	run(t, 2, policy.L2{}, func(t *testing.T, f *fleet) {
		a, b := f.pods[0], f.pods[1]
		f.put(a, entry(1, 100, 5))
		judged := f.finds(b, 100, 5)
		f.put(b, entry(1, 1, 9))
		f.finds(b, 100, 5)
		r, held, err := b.Acquire(t.Context(), key, judged.Empty())
		require.NoError(t, err)
		require.True(t, held)
		f.lacks(a)
		require.NoError(t, r.Put(entry(1, 1, 9)))
		synctest.Wait()
		f.finds(a, 1, 9)
	})
}

func TestQueueIsBounded(t *testing.T) {
	run(t, 1, policy.L2{}, func(t *testing.T, f *fleet) {
		p := f.pods[0]
		p.bus.DelayBuckets(time.Second) // each takes as long as writers have
		fill := func(size, most int) (kept int) {
			e := entry(1, 1, 1)
			e.Value = make([]byte, size)
			for kept <= most {
				if err := p.Put(key, e); err != nil {
					require.ErrorIs(t, err, l2.ErrFull)
					return kept
				}
				kept++
			}
			return kept
		}
		for range l2.Writers {
			require.NoError(t, p.Put(key, entry(1, 1, 1)))
			synctest.Wait()
		}
		require.Equal(t, l2.QueueJobs, fill(0, l2.QueueJobs))
		require.EqualValues(t, 1, p.Stats().Dropped)
		require.Equal(t, l2.QueueJobs, p.Stats().Queued)
	})
	run(t, 1, policy.L2{}, func(t *testing.T, f *fleet) {
		p := f.pods[0]
		p.bus.DelayBuckets(time.Second)
		e := entry(1, 1, 1)
		e.Value = make([]byte, 1<<20)
		kept := 0
		for p.Put(key, e) == nil {
			kept++
			synctest.Wait()
		}
		require.Equal(t, l2.QueueBytes>>20-1+l2.Writers, kept, "bytes are bounded too")
		require.NoError(t, p.Close())
		require.EqualValues(t, kept+1, p.Stats().Dropped, "what was waiting is dropped at Close")
	})
}

func TestClosed(t *testing.T) {
	run(t, 1, policy.L2{}, func(t *testing.T, f *fleet) {
		p := f.pods[0]
		r, held, err := p.Acquire(t.Context(), key, l2.Entry{})
		require.NoError(t, err)
		require.True(t, held)
		require.NoError(t, p.Close())
		_, _, err = p.Get(t.Context(), key)
		require.ErrorIs(t, err, l2.ErrClosed)
		_, _, err = p.Acquire(t.Context(), key, l2.Entry{})
		require.ErrorIs(t, err, l2.ErrClosed)
		require.ErrorIs(t, p.Put(key, entry(1, 1, 1)), l2.ErrClosed)
		require.ErrorIs(t, r.Put(entry(1, 1, 1)), l2.ErrClosed)
		r.Release()
		require.Equal(t, "l2: closed", p.Stats().Why)
	})
}

// Close ends what is under way.
func TestCloseEndsCalls(t *testing.T) {
	run(t, 1, policy.L2{Timeout: 10 * time.Second}, func(t *testing.T, f *fleet) {
		p := f.pods[0]
		p.bus.MuteBuckets(true)
		ended := make(chan error, 1)
		go func() {
			_, _, err := p.Get(t.Context(), key)
			ended <- err
		}()
		synctest.Wait()
		begun := time.Now()
		require.NoError(t, p.Close())
		require.ErrorIs(t, <-ended, l2.ErrClosed)
		require.Zero(t, time.Since(begun))
	})
}

func TestBucketNames(t *testing.T) {
	require.Equal(t, "nearside-default-product", l2.BucketName("default", "product"))
	require.Equal(t, "nearside-eu_1-a_2Eb_5F_FF", l2.BucketName("eu_1", "a.b_\xff"))
	_, err := l2.New(nil, l2.Config{Domain: "default", Namespace: strings.Repeat(".", 100)})
	require.ErrorIs(t, err, bus.ErrBucketUnfit)
	require.ErrorContains(t, err, "l2.bucket")
	run(t, 1, policy.L2{Bucket: "mine"}, func(t *testing.T, f *fleet) {
		require.Equal(t, "mine", f.pods[0].Stats().Bucket)
		require.Equal(t, policy.DefaultL2().TTL, f.pods[0].Policy().TTL)
	})
}
