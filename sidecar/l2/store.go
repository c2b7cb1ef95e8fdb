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

// job is what a writer does: store an entry, release a right, or the one and then
// the other.
type job struct {
	key     string
	entry   Entry // without its value
	data    []byte
	seen    *resident // what the bucket held lately; nil: it was not asked
	release *Right
}

// resident is what the bucket holds of a key.
type resident struct {
	found    bool
	revision uint64
	entry    Entry // without its value
	err      error // it cannot be read
}

func residentAt(ctx context.Context, b bus.Bucket, key string) (r resident, err error) {
	data, revision, err := b.Latest(ctx, key)
	if errors.Is(err, bus.ErrKeyNotFound) {
		return resident{}, nil
	}
	if err != nil {
		return resident{}, err
	}
	r = resident{found: true, revision: revision}
	r.entry, r.err = decode(data)
	return r, nil
}

// releasing returns j with the release of r, unless that is under way.
func (j job) releasing(r *Right) job {
	if r.held && !r.done.Swap(true) {
		j.release = r
	}
	return j
}

// queue is what waits for the writers, bounded in jobs and bytes.
type queue struct {
	jobs  chan job
	bytes *atomic.Int64
}

func newQueue() queue { return queue{jobs: make(chan job, queueJobs), bytes: new(atomic.Int64)} }

func (q queue) add(j job) bool {
	if q.bytes.Add(int64(len(j.data))) <= queueBytes {
		select {
		case q.jobs <- j:
			return true
		default:
		}
	}
	q.taken(j)
	return false
}

func (q queue) taken(j job) { q.bytes.Add(-int64(len(j.data))) }

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

// do stores before it releases: whoever is woken by the release finds the entry.
func (t *Tier) do(j job) {
	if j.data != nil {
		stored := false
		err := t.call(t.ctx, writeTimeout, func(ctx context.Context, b bus.Bucket) (err error) {
			stored, err = j.store(ctx, b)
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
	}
	if j.release != nil {
		err := t.call(t.ctx, writeTimeout, j.release.free)
		if err != nil {
			t.log.Debug("a right to load was not released and must expire", "bucket", t.name, "error", err)
		}
	}
}

// replaces reports whether the entry may take the place of the resident one. One that
// has expired gives way, since the bucket removes it some seconds late; as does what
// nobody can read. One of a newer version of nearside, which cannot be compared, does
// not.
func (j job) replaces(r resident) bool {
	if r.err != nil {
		return !errors.Is(r.err, errNewer)
	}
	return r.entry.Remaining(time.Now()) <= 0 || j.entry.newer(r.entry)
}

// store writes the entry by compare and set, unless what is there is as new. What was
// seen lately spares a look where it gives way: if it is gone, the write fails.
func (j job) store(ctx context.Context, b bus.Bucket) (stored bool, err error) {
	key, seen := entryPrefix+j.key, j.seen
	for try := range maxTries {
		left := j.entry.Remaining(time.Now())
		if left <= 0 {
			return false, nil
		}
		if seen == nil || try == 0 && seen.found && !j.replaces(*seen) {
			now, err := residentAt(ctx, b, key)
			if err != nil {
				return false, err
			}
			seen = &now
		}
		switch {
		case !seen.found:
			_, err = b.Create(ctx, key, j.data, left)
		case !j.replaces(*seen):
			return false, nil
		default:
			_, err = b.Update(ctx, key, j.data, seen.revision, left)
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
