package natsbus_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/bustest"
)

func TestBucketConformance(t *testing.T) {
	bustest.RunBuckets(t, func(t *testing.T) bustest.Harness { return newHarness(t) })
}

// The broker's own tools can read a bucket, and open it.
func TestBucketIsAKeyValueBucket(t *testing.T) {
	b := newBroker(t)
	ctx := within(t, patience)
	bucket, err := b.open(t, b.config()).Bucket(ctx, "shelf", bus.BucketConfig{TTL: time.Minute, MaxBytes: 1 << 20})
	require.NoError(t, err)
	told := make(chan *nats.Msg, 64)
	_, err = b.admin.Conn().ChanSubscribe("nearside-kv.shelf.>", told)
	require.NoError(t, err)
	require.NoError(t, b.admin.Conn().Flush())
	revision, err := bucket.Put(ctx, "product:42", []byte("value"), 0)
	require.NoError(t, err)
	require.Equal(t, "\x0aproduct:42value", string((<-told).Data), "who waits is told the value")
	require.Greater(t, revision, uint64(1)<<40, "a bucket made anew does not reuse revisions")
	kv, err := b.admin.KeyValue(ctx, "shelf")
	require.NoError(t, err)
	keys, err := kv.Keys(ctx)
	require.NoError(t, err)
	require.Len(t, keys, 1)
	e, err := kv.Get(ctx, keys[0])
	require.NoError(t, err)
	require.Equal(t, "\x0aproduct:42value", string(e.Value()), "the key stands in front of the value")
	require.Equal(t, revision, e.Revision())

	require.NoError(t, kv.Delete(ctx, keys[0]))
	_, _, err = bucket.Latest(ctx, "product:42")
	require.ErrorIs(t, err, bus.ErrKeyNotFound, "nor do we take their markers for values")
	_, err = bucket.Create(ctx, "product:42", nil, 0)
	require.NoError(t, err)
	require.NoError(t, kv.Purge(ctx, keys[0]))
	_, _, err = bucket.Get(ctx, "product:42")
	require.ErrorIs(t, err, bus.ErrKeyNotFound)
	for _, foreign := range []string{"", "foreign", "\x0aproduct", "\x0aproduct:43value", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		_, err = kv.Put(ctx, keys[0], []byte(foreign))
		require.NoError(t, err)
		_, _, err = bucket.Get(ctx, "product:42")
		require.ErrorIs(t, err, bus.ErrForeign)
		_, _, err = bucket.Latest(ctx, "product:42")
		require.ErrorIs(t, err, bus.ErrForeign)
	}
}

func TestUnfitBuckets(t *testing.T) {
	b := newBroker(t)
	ctx := within(t, patience)
	a := b.open(t, b.config())
	for name, c := range map[string]struct {
		change func(*jetstream.StreamConfig)
		says   string
	}{
		"subjects":  {func(c *jetstream.StreamConfig) { c.Subjects = []string{"other.>"} }, "no key-value bucket"},
		"history":   {func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 5 }, "history is 5, wants 1"},
		"ttl":       {func(c *jetstream.StreamConfig) { c.AllowMsgTTL = false }, "rights to load would never expire"},
		"direct":    {func(c *jetstream.StreamConfig) { c.AllowDirect = false }, "allow_direct"},
		"retention": {func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy }, "retention"},
		"acks":      {func(c *jetstream.StreamConfig) { c.NoAck = true }, "no_ack"},
		"sources": {func(c *jetstream.StreamConfig) {
			c.Sources = []*jetstream.StreamSource{{Name: "KV_other"}}
		}, "sources"},
		"transform": {func(c *jetstream.StreamConfig) {
			c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: "$KV.transform.>", Destination: "x.>"}
		}, "subject_transform"},
	} {
		config := jetstream.StreamConfig{
			Name: "KV_" + name, Subjects: []string{"$KV." + name + ".>"}, MaxMsgsPerSubject: 1, AllowMsgTTL: true, AllowDirect: true,
			Storage: jetstream.MemoryStorage,
		}
		fit := config
		if name == "direct" {
			fit.RePublish = &jetstream.RePublish{Source: "$KV.fit-direct.>", Destination: "nearside-kv.fit-direct.>", HeadersOnly: true}
		}
		fit.Name, fit.Subjects = "KV_fit-"+name, []string{"$KV.fit-" + name + ".>"}
		c.change(&config)
		_, err := b.admin.CreateStream(ctx, config)
		require.NoError(t, err, name)
		_, err = a.Bucket(ctx, name, bus.BucketConfig{})
		require.ErrorIs(t, err, bus.ErrBucketUnfit, name)
		require.ErrorContains(t, err, c.says)
		_, err = b.admin.CreateStream(ctx, fit)
		require.NoError(t, err)
		bucket, err := a.Bucket(ctx, "fit-"+name, bus.BucketConfig{})
		require.NoError(t, err)
		// Nothing is republished there, or headers alone: a wait looks by itself.
		woken := make(chan error, 1)
		waits := func() {
			value, _, err := bucket.Wait(ctx, "a", 0)
			if string(value) != "value" {
				err = fmt.Errorf("%q: %w", value, err)
			}
			woken <- err
		}
		go waits()
		_, err = bucket.Put(ctx, "a", []byte("value"), 0)
		require.NoError(t, err)
		require.NoError(t, <-woken)
	}
}

// A bucket that somebody deletes answers no more, until it is opened again.
func TestDeletedBucket(t *testing.T) {
	b := newBroker(t)
	ctx := within(t, patience)
	a := b.open(t, b.config())
	bucket, err := a.Bucket(ctx, "shelf", bus.BucketConfig{})
	require.NoError(t, err)
	before, err := bucket.Put(ctx, "a", nil, 0)
	require.NoError(t, err)
	require.NoError(t, b.admin.DeleteKeyValue(ctx, "shelf"))
	_, _, err = bucket.Get(ctx, "a")
	require.ErrorIs(t, err, nats.ErrNoResponders)
	_, _, err = bucket.Latest(ctx, "a")
	require.Error(t, err)
	require.NotErrorIs(t, err, bus.ErrKeyNotFound)
	_, err = bucket.Create(ctx, "a", nil, 0)
	require.ErrorIs(t, err, jetstream.ErrNoStreamResponse)

	_, err = a.Bucket(ctx, "shelf", bus.BucketConfig{})
	require.NoError(t, err)
	_, _, err = bucket.Get(ctx, "a")
	require.ErrorIs(t, err, bus.ErrKeyNotFound)
	_, err = bucket.Update(ctx, "a", nil, before, 0)
	require.ErrorIs(t, err, bus.ErrConflict)
	after, err := bucket.Create(ctx, "a", nil, 0)
	require.NoError(t, err)
	require.Greater(t, after, before)
}

func TestClosedBusHasNoBuckets(t *testing.T) {
	b := newBroker(t)
	a := b.open(t, b.config())
	bucket, err := a.Bucket(within(t, patience), "shelf", bus.BucketConfig{})
	require.NoError(t, err)
	waiting := make(chan error, 1)
	go func() {
		_, _, err := bucket.Wait(context.Background(), "a", 0)
		waiting <- err
	}()
	require.NoError(t, a.Close())
	require.Error(t, <-waiting)
	_, _, err = bucket.Get(context.Background(), "a")
	require.ErrorContains(t, err, "closed")
	_, err = a.Bucket(context.Background(), "shelf", bus.BucketConfig{})
	require.ErrorContains(t, err, "closed")
}
