package membus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

const (
	// maxBucketValue is the largest value of a bucket: that of an event and more.
	maxBucketValue = 2 << 20
	// bucketPoll is how soon a Wait notices that its connection is cut.
	bucketPoll = 250 * time.Millisecond
)

// bucket is one attachment's handle of a bucket.
type bucket struct {
	bus   *Bus
	store *bucketStore
}

var _ bus.Buckets = (*Bus)(nil)

// Bucket implements bus.Buckets. The broker that keeps the stream keeps its
// buckets too.
func (b *Bus) Bucket(ctx context.Context, name string, c bus.BucketConfig) (bus.Bucket, error) {
	if err := c.Validate(name); err != nil {
		return nil, fmt.Errorf("membus: %w", err)
	}
	if err := b.bucketFaults.reach(ctx, b); err != nil {
		return nil, fmt.Errorf("membus: open bucket %s: %w", name, err)
	}
	s := b.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buckets == nil {
		s.buckets = map[string]*bucketStore{}
	}
	if s.buckets[name] == nil {
		s.buckets[name] = newBucketStore(c)
	}
	return &bucket{bus: b, store: s.buckets[name]}, nil
}

// Get implements bus.Bucket.
func (k *bucket) Get(ctx context.Context, key string) ([]byte, uint64, error) {
	return k.read(ctx, key, k.bus.bucketFaults.lacking())
}

// Latest implements bus.Bucket.
func (k *bucket) Latest(ctx context.Context, key string) ([]byte, uint64, error) {
	return k.read(ctx, key, 0)
}

func (k *bucket) read(ctx context.Context, key string, lag uint64) ([]byte, uint64, error) {
	if err := errors.Join(bus.CheckBucketKey(key), k.bus.bucketFaults.reach(ctx, k.bus)); err != nil {
		return nil, 0, fmt.Errorf("membus: read from the bucket: %w", err)
	}
	r, _ := k.store.read(key, lag)
	if r.revision == 0 {
		return nil, 0, bus.ErrKeyNotFound
	}
	return bytes.Clone(r.value), r.revision, nil
}

// Put implements bus.Bucket.
func (k *bucket) Put(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	return k.write(ctx, key, ttl, bytes.Clone(value), func(uint64) bool { return true })
}

// Create implements bus.Bucket.
func (k *bucket) Create(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	return k.write(ctx, key, ttl, bytes.Clone(value), func(now uint64) bool { return now == 0 })
}

// Update implements bus.Bucket.
func (k *bucket) Update(ctx context.Context, key string, value []byte, revision uint64, ttl time.Duration) (uint64, error) {
	return k.write(ctx, key, ttl, bytes.Clone(value), present(revision))
}

// Delete implements bus.Bucket.
func (k *bucket) Delete(ctx context.Context, key string, revision uint64) error {
	_, err := k.write(ctx, key, -1, nil, present(revision))
	return err
}

// present is the condition that a key is there at this revision.
func present(revision uint64) func(uint64) bool {
	return func(now uint64) bool { return now != 0 && now == revision }
}

// write writes if the key's revision is as ok wants it. A negative ttl deletes.
func (k *bucket) write(ctx context.Context, key string, ttl time.Duration, value []byte, ok func(uint64) bool) (uint64, error) {
	faults := &k.bus.bucketFaults
	if len(value) > maxBucketValue {
		return 0, fmt.Errorf("membus: write to the bucket: %w: %d bytes, at most %d", bus.ErrTooLarge, len(value), maxBucketValue)
	}
	if err := errors.Join(bus.CheckBucketKey(key), faults.reach(ctx, k.bus)); err != nil {
		return 0, fmt.Errorf("membus: write to the bucket: %w", err)
	}
	revision, err := k.store.write(key, ttl, value, ok)
	if faults.loseAck() {
		<-ctx.Done()
		return 0, fmt.Errorf("membus: write to the bucket: %w", ctx.Err())
	}
	return revision, err
}

// Wait implements bus.Bucket.
func (k *bucket) Wait(ctx context.Context, key string, revision uint64) ([]byte, uint64, error) {
	if err := bus.CheckBucketKey(key); err != nil {
		return nil, 0, err
	}
	for {
		if err := k.bus.bucketFaults.reach(ctx, k.bus); err != nil {
			return nil, 0, fmt.Errorf("membus: wait for a key of the bucket: %w", err)
		}
		r, changed := k.store.read(key, 0)
		switch r.revision {
		case revision:
		case 0:
			return nil, 0, bus.ErrKeyNotFound
		default:
			return bytes.Clone(r.value), r.revision, nil
		}
		pause := bucketPoll
		if !r.expires.IsZero() {
			pause = min(pause, time.Until(r.expires))
		}
		poll := time.NewTimer(pause)
		select {
		case <-changed:
		case <-poll.C:
		case <-ctx.Done():
		}
		poll.Stop()
	}
}
