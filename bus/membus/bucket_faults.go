package membus

import (
	"context"
	"sync"
	"time"
)

// bucketFaults are those of one attachment's way to all buckets.
type bucketFaults struct {
	mu       sync.Mutex
	delay    time.Duration
	mute     bool
	loseAcks int
	lag      uint64
}

// reach fails as a call over this connection does, at once or when ctx ends.
func (f *bucketFaults) reach(ctx context.Context, b *Bus) error {
	f.mu.Lock()
	delay, mute := f.delay, f.mute
	f.mu.Unlock()
	if mute {
		<-ctx.Done()
	}
	if delay > 0 {
		late := time.NewTimer(delay)
		defer late.Stop()
		select {
		case <-late.C:
		case <-ctx.Done():
		}
	}
	var away bool
	b.feed.set(func(feed *feed) { away = feed.away })
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case b.closed.Err() != nil:
		return errClosed
	case away:
		return errAway
	}
	return nil
}

func (f *bucketFaults) loseAck() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.loseAcks == 0 {
		return false
	}
	f.loseAcks--
	return true
}

func (f *bucketFaults) lacking() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lag
}

func (f *bucketFaults) set(change func(*bucketFaults)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// DelayBuckets makes every call to a bucket take d longer.
func (b *Bus) DelayBuckets(d time.Duration) {
	b.bucketFaults.set(func(f *bucketFaults) { f.delay = d })
}

// MuteBuckets has no call to a bucket answered, nor done, from now on, until it
// is called with false. Calls end with their context.
func (b *Bus) MuteBuckets(on bool) { b.bucketFaults.set(func(f *bucketFaults) { f.mute = on }) }

// LoseBucketAcks has the next n writes to buckets done, but not answered.
func (b *Bus) LoseBucketAcks(n int) { b.bucketFaults.set(func(f *bucketFaults) { f.loseAcks = n }) }

// LagBuckets makes Get of all buckets ask a replica that lacks the newest n
// writes, of at most 256; 0 ends it.
func (b *Bus) LagBuckets(n uint64) {
	b.bucketFaults.set(func(f *bucketFaults) { f.lag = min(n, replicaKeeps) })
}

// WipeBucket restarts a bucket empty, as a broker does that keeps it in memory.
// Revisions go on.
func (s *Stream) WipeBucket(name string) {
	s.mu.Lock()
	store := s.buckets[name]
	s.mu.Unlock()
	if store != nil {
		store.wipe()
	}
}
