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

// Right is the right to load a key, or what to wait for where others have it. It
// is safe for concurrent use.
type Right struct {
	tier *Tier
	key  string // of the entry
	lock string
	held bool
	done atomic.Bool              // the lock is being freed, or will be once the entry is stored
	seen atomic.Pointer[resident] // by the holder, before it loads

	// Fence is the revision of the lock: a right that was given later has a higher
	// one. Of a right that others hold, it is theirs.
	Fence uint64
	// Expires is when the right passes on to others at the earliest, by this
	// process's monotonic clock. A load that ends later may be stored all the same:
	// it cannot replace a newer entry.
	Expires time.Time
}

// Acquire asks for the right to load key, which as many sidecars of the domain can
// hold at once as the policy says. It does not wait for others: where held is
// false, the Right is for waiting. It returns within the policy's timeout; who gets
// an error loads without a right. A holder should look with Latest first, since the
// one before it may have stored the entry, and must call Put or Release in the end.
func (t *Tier) Acquire(ctx context.Context, key string) (r *Right, held bool, err error) {
	err = t.call(ctx, t.policy.Timeout, func(ctx context.Context, b bus.Bucket) (err error) {
		r, err = t.acquire(ctx, b, key)
		return err
	})
	if err != nil {
		return nil, false, fmt.Errorf("acquire: %w", err)
	}
	if r.held {
		t.counts.acquired.Add(1)
	} else {
		t.counts.refused.Add(1)
	}
	return r, r.held, nil
}

// acquire tries all slots, from a random one on, so that those who get none wait
// for different ones.
func (t *Tier) acquire(ctx context.Context, b bus.Bucket, key string) (*Right, error) {
	begin := rand.IntN(t.policy.Loaders)
	for i := range t.policy.Loaders {
		r := &Right{tier: t, key: key, lock: lockKey(key, (begin+i)%t.policy.Loaders)}
		err := t.take(ctx, b, r)
		if !errors.Is(err, bus.ErrConflict) {
			return r, err
		}
	}
	r := &Right{tier: t, key: key, lock: lockKey(key, begin)}
	_, fence, err := b.Latest(ctx, r.lock)
	if errors.Is(err, bus.ErrKeyNotFound) {
		// Released since. If it is taken again meanwhile, then there is nothing
		// to wait for that could not be over at once: revision 0 tells it.
		if err = t.take(ctx, b, r); errors.Is(err, bus.ErrConflict) {
			return r, nil
		}
		return r, err
	}
	r.Fence = fence
	return r, err
}

// take creates the lock of r. The clock is read before: the lock's time begins when
// it is stored, so that it never ends before Expires.
func (t *Tier) take(ctx context.Context, b bus.Bucket, r *Right) error {
	expires := time.Now().Add(t.policy.LockExpiry)
	fence, err := b.Create(ctx, r.lock, []byte(t.config.Process), t.policy.LockExpiry)
	if err == nil {
		r.held, r.Fence, r.Expires = true, fence, expires
	}
	return err
}

func lockKey(key string, slot int) string {
	return lockPrefix + string(rune('a'+slot)) + key
}

// Put has e stored as Tier.Put does, and then releases the right, so that those who
// wait for it find e. Of a right that is not held it is Tier.Put.
func (r *Right) Put(e Entry) error {
	j, err := r.tier.newJob(r.key, e)
	j.seen = r.seen.Load()
	if err == nil {
		err = r.tier.enqueue(j.releasing(r))
	}
	if err != nil {
		r.release()
	}
	return err
}

// Release lets others load. It does not wait, and does nothing after Put, when
// called again, or when the right is not held. A release that is lost costs others
// their wait until the right expires.
func (r *Right) Release() {
	if !r.done.Load() {
		r.release()
	}
}

// release has the lock freed, unless it was never ours.
func (r *Right) release() {
	r.done.Store(true)
	if !r.held {
		return
	}
	if err := r.tier.enqueue(job{release: r}); err != nil {
		r.tier.log.Debug("a right to load was not released and must expire", "error", err)
	}
}

// free deletes the lock, unless it expired: then it may be another one's.
func (r *Right) free(ctx context.Context, b bus.Bucket) error {
	if err := b.Delete(ctx, r.lock, r.Fence); !errors.Is(err, bus.ErrConflict) {
		return err
	}
	return nil
}

// Wait waits until the sidecar that holds the right is done or its right has
// expired, for as long as the policy says, and then reads the entry. Where that is
// not found, the caller asks for the right again, or loads without it. A holder
// waits for nothing: it is Latest.
func (r *Right) Wait(ctx context.Context) (Entry, bool, error) {
	t := r.tier
	if !r.held {
		l, err := t.reach()
		if err != nil {
			return Entry{}, false, fmt.Errorf("wait: %w", err)
		}
		limited, cancel := context.WithTimeout(ctx, t.policy.Wait)
		defer cancel()
		defer context.AfterFunc(t.ctx, cancel)()
		err = l.Wait(limited, r.lock, r.Fence)
		passed := errors.Is(limited.Err(), context.DeadlineExceeded) && ctx.Err() == nil
		// Where the bound has passed, the holder is slow, and the tier need not be.
		if err != nil && !passed {
			return Entry{}, false, fmt.Errorf("wait: %w", t.settle(ctx, l, err))
		}
	}
	e, found, err := t.Latest(ctx, r.key)
	if err == nil && r.held {
		r.seen.Store(&resident{found: found, revision: e.Revision, entry: e.head()})
	}
	return e, found, err
}
