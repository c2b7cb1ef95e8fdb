package l2

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

const (
	// writers is how many entries are stored at once.
	writers = 4
	// queueJobs and queueBytes bound what waits to be stored.
	queueJobs  = 1024
	queueBytes = 16 << 20
	// maxTries bounds the compare and set of one entry, and conflictPause the pause
	// before the second try, which grows with the tries.
	maxTries      = 8
	conflictPause = 5 * time.Millisecond
)

// errContended says that others wrote the key at every try.
var errContended = errors.New("l2: the key is written by too many at once")

// job is what a writer does: store an entry, or free a right; or the latter where the
// former fails.
type job struct {
	key   string
	entry Entry // without its value
	data  []byte
	seen  *Entry // what the bucket held lately; nil: it was not asked
	right *Right
}

// size is the memory that j holds on to, in bytes.
func (j job) size() int64 {
	n := len(j.data)
	if j.right != nil {
		n += j.right.before.size()
	}
	return int64(n)
}

// queue is what waits for the writers, bounded in jobs and bytes.
type queue struct {
	jobs  chan job
	bytes *atomic.Int64
}

func newQueue() queue { return queue{jobs: make(chan job, queueJobs), bytes: new(atomic.Int64)} }

func (q queue) add(j job) bool {
	if q.bytes.Add(j.size()) <= queueBytes {
		select {
		case q.jobs <- j:
			return true
		default:
		}
	}
	q.taken(j)
	return false
}

func (q queue) taken(j job) { q.bytes.Add(-j.size()) }

// drain empties the queue and returns how many entries were in it.
func (q queue) drain() (entries int) {
	for {
		select {
		case j := <-q.jobs:
			q.taken(j)
			if j.data != nil {
				entries++
			}
		default:
			return entries
		}
	}
}

// Put has e stored in the background, unless the tier holds a newer entry of the
// key. It does not wait and keeps nothing of e. ErrFull, ErrAway and ErrClosed say
// that it was dropped; other errors what is wrong with e.
func (t *Tier) Put(key string, e Entry) error {
	j, err := t.newJob(key, e)
	if err != nil {
		return err
	}
	return t.enqueue(j)
}

func (t *Tier) newJob(key string, e Entry) (job, error) {
	if err := bus.CheckBucketKey(entryPrefix + key); err != nil {
		return job{}, fmt.Errorf("put: %w", err)
	}
	if e.TTL <= 0 || e.TTL > t.policy.TTL {
		e.TTL = t.policy.TTL
	}
	if e.Stored.IsZero() {
		e.Stored = time.Now()
	}
	data, err := encode(e)
	if err != nil {
		return job{}, fmt.Errorf("put: %w", err)
	}
	return job{key: key, entry: e.head(), data: data}, nil
}

// enqueue hands j to the writers, or drops it.
func (t *Tier) enqueue(j job) (err error) {
	switch {
	case t.ctx.Err() != nil:
		err = ErrClosed
	case t.link.Load() == nil:
		err = ErrAway
	case !t.queue.add(j):
		err = ErrFull
	}
	if err != nil && j.data != nil {
		t.counts.dropped.Add(1)
	}
	return err
}

// write does jobs until Close.
func (t *Tier) write() {
	for {
		select {
		case j := <-t.queue.jobs:
			t.queue.taken(j)
			t.do(j)
		case <-t.ctx.Done():
			return
		}
	}
}

func (t *Tier) do(j job) {
	if j.data != nil && t.store(j) || j.right == nil {
		return
	}
	if err := t.call(t.ctx, writeTimeout, j.right.free); err != nil {
		t.log.Debug("a right to load was not released and must expire", "bucket", t.name, "error", err)
	}
}

// store reports whether the entry was stored, and counts it.
func (t *Tier) store(j job) (stored bool) {
	err := t.call(t.ctx, writeTimeout, func(ctx context.Context, b bus.Bucket) (err error) {
		stored, err = t.swap(ctx, b, j)
		return err
	})
	switch {
	case err != nil:
		t.counts.dropped.Add(1)
		t.trouble.Do(func() {
			t.log.Warn("an entry was not stored in the shared tier", "bucket", t.name, "error", err)
		})
	case stored:
		t.counts.stored.Add(1)
	default:
		t.counts.notNewer.Add(1)
	}
	return stored && err == nil
}

// swap writes the entry by compare and set, unless what is there is as new. What was
// seen lately spares a look: if it is gone, the write fails.
func (t *Tier) swap(ctx context.Context, b bus.Bucket, j job) (stored bool, err error) {
	key, seen := entryPrefix+j.key, j.seen
	for try := range maxTries {
		left := j.entry.Remaining(time.Now())
		if left <= 0 {
			return false, nil
		}
		if seen == nil {
			now, err := t.latest(ctx, b, j.key)
			if err != nil {
				return false, err
			}
			seen = &now
		}
		switch {
		case seen.Version != 0 && !j.entry.newer(*seen):
			return false, nil
		case seen.Revision == 0:
			_, err = b.Create(ctx, key, j.data, left)
		default:
			_, err = b.Update(ctx, key, j.data, seen.Revision, left)
		}
		if !errors.Is(err, bus.ErrConflict) {
			return err == nil, err
		}
		if err := pause(ctx, time.Duration(try+1)*conflictPause); err != nil {
			return false, err
		}
		seen = nil
	}
	return false, errContended
}

// pause waits for up to d, so that those who met once do not meet again.
func pause(ctx context.Context, d time.Duration) error {
	wait := time.NewTimer(rand.N(d))
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
