package membus_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/bustest"
	"github.com/nearside-cache/nearside/bus/membus"
)

func TestBucketConformance(t *testing.T) {
	bustest.RunBuckets(t, func(t *testing.T) bustest.Harness {
		s, err := membus.NewStream("default")
		require.NoError(t, err)
		return harness{s}
	})
}

// bucketOf runs a test with one attachment's bucket, in virtual time.
func bucketOf(t *testing.T, test func(*testing.T, *membus.Stream, *membus.Bus, bus.Bucket)) {
	synctest.Test(t, func(t *testing.T) {
		s, err := membus.NewStream("default")
		require.NoError(t, err)
		a := s.Attach(membus.Options{})
		b, err := a.Bucket(t.Context(), "shelf", bus.BucketConfig{})
		require.NoError(t, err)
		test(t, s, a, b)
		require.NoError(t, a.Close())
		_, _, err = b.Get(t.Context(), "a")
		require.ErrorContains(t, err, "closed")
	})
}

func TestBucketFaults(t *testing.T) {
	bucketOf(t, func(t *testing.T, s *membus.Stream, a *membus.Bus, b bus.Bucket) {
		first, err := b.Put(t.Context(), "a", []byte("1"), 0)
		require.NoError(t, err)
		brief := func() context.Context {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			t.Cleanup(cancel)
			return ctx
		}

		a.DelayBuckets(100 * time.Millisecond)
		begun := time.Now()
		_, _, err = b.Get(brief(), "a")
		require.NoError(t, err)
		require.Equal(t, 100*time.Millisecond, time.Since(begun))
		a.DelayBuckets(0)

		a.MuteBuckets(true)
		begun = time.Now()
		_, err = b.Put(brief(), "a", []byte("2"), 0)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(begun))
		a.MuteBuckets(false)
		_, revision, err := b.Get(brief(), "a")
		require.NoError(t, err)
		require.Equal(t, first, revision, "it was not done")

		a.LoseBucketAcks(1)
		_, err = b.Put(brief(), "a", []byte("3"), 0)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		value, second, err := b.Get(brief(), "a")
		require.NoError(t, err)
		require.Equal(t, "3", string(value), "it was done")

		a.LagBuckets(1)
		value, revision, err = b.Get(brief(), "a")
		require.NoError(t, err)
		require.Equal(t, "1", string(value))
		require.Equal(t, first, revision)
		_, revision, err = b.Latest(brief(), "a")
		require.NoError(t, err)
		require.Equal(t, second, revision, "the leader lacks nothing")
		require.NoError(t, b.Delete(brief(), "a", second))
		value, _, err = b.Get(brief(), "a")
		require.NoError(t, err, "a replica may lack a deletion")
		require.Equal(t, "3", string(value))
		a.LagBuckets(0)

		s.WipeBucket("shelf")
		s.WipeBucket("unheard-of")
		_, _, err = b.Get(brief(), "a")
		require.ErrorIs(t, err, bus.ErrKeyNotFound)
		third, err := b.Create(brief(), "a", nil, 0)
		require.NoError(t, err)
		require.Greater(t, third, second, "revisions go on")
	})
}

func TestBucketExpiryIsExact(t *testing.T) {
	bucketOf(t, func(t *testing.T, _ *membus.Stream, a *membus.Bus, b bus.Bucket) {
		begun := time.Now()
		revision, err := b.Create(t.Context(), "a", nil, 1500*time.Millisecond)
		require.NoError(t, err)
		_, _, err = b.Wait(t.Context(), "a", revision)
		require.ErrorIs(t, err, bus.ErrKeyNotFound)
		require.Equal(t, 2*time.Second, time.Since(begun))
		capped, err := a.Bucket(t.Context(), "capped", bus.BucketConfig{TTL: 3 * time.Second})
		require.NoError(t, err)
		begun = time.Now()
		revision, err = capped.Put(t.Context(), "a", nil, time.Hour)
		require.NoError(t, err)
		_, _, err = capped.Wait(t.Context(), "a", revision)
		require.ErrorIs(t, err, bus.ErrKeyNotFound)
		require.Equal(t, 3*time.Second, time.Since(begun), "the bucket's own TTL is the longest")
	})
}
