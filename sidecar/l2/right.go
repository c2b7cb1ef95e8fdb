package l2

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// Right is the right to load a key, or what to wait for where others have it. It
// is safe for concurrent use.
//
// The right is a claim in the very place that the entry is to take. So one compare
// and set tells who got it, and that nobody has stored anything since the holder
// looked; and the entry that is stored takes the claim's place, which wakes all who
// wait for it, and hands it to them.
type Right struct {
	tier   *Tier
	key    string
	place  Entry  // as it is with our claim in it, or as it was seen with those of others
	before Entry  // as it was before our claim
	claim  uint64 // 0: not held
	done   atomic.Bool
}

// Acquire asks for the right to load key, which as many sidecars of the domain can
// hold at once as the policy says. seen is what Get or Wait returned, found or not; the
// place of an entry that is of the past for good, and must not keep lower versions
// out, is its Empty. It does not wait for others: where held is false, the Right is
// for waiting. It returns within the policy's timeout; who gets an error loads without a
// right. A holder must call Put or Release in the end. The right passes on
// LockExpiry after it was given, and with it goes what was seen; a load that ends
// later may be stored all the same: it cannot replace a newer entry.
func (t *Tier) Acquire(ctx context.Context, key string, seen Entry) (r *Right, held bool, err error) {
	r = &Right{tier: t, key: key, place: seen}
	if t.full(seen) {
		t.counts.refused.Add(1)
		return r, false, nil
	}
	if err = t.call(ctx, t.policy.Timeout, r.acquire); err != nil {
		return nil, false, fmt.Errorf("acquire: %w", err)
	}
	if r.claim == 0 {
		t.counts.refused.Add(1)
	} else {
		t.counts.acquired.Add(1)
	}
	return r, r.claim != 0, nil
}

// full reports whether as many load as may.
func (t *Tier) full(e Entry) bool { return len(e.Claims) >= t.policy.Loaders }

// acquire adds a claim to the place that was seen, or looks what is there now.
func (r *Right) acquire(ctx context.Context, b bus.Bucket) error {
	claim := rand.Uint64() | 1
	claimed := r.place
	claimed.Claims = append(slices.Clone(r.place.Claims), claim)
	revision, err := write(ctx, b, r.key, claimed, r.tier.policy.LockExpiry)
	switch {
	case errors.Is(err, bus.ErrConflict):
		if r.place, err = r.tier.latest(ctx, b, r.key); err == nil {
			r.tier.recent.note(r.key, r.place)
		}
	case err == nil:
		claimed.Revision = revision
		r.before, r.place, r.claim = r.place, claimed, claim
	}
	return err
}

// write writes e in its place, if that is at e.Revision.
func write(ctx context.Context, b bus.Bucket, key string, e Entry, ttl time.Duration) (uint64, error) {
	data, err := encode(e)
	if err != nil {
		return 0, err
	}
	if e.Revision == 0 {
		return b.Create(ctx, entryPrefix+key, data, ttl)
	}
	return b.Update(ctx, entryPrefix+key, data, e.Revision, ttl)
}

// Put has e stored as Tier.Put does, in the place of the claim. All claims on the key
// end with it. Of a right that is not held it is Tier.Put.
func (r *Right) Put(e Entry) error {
	j, err := r.tier.newJob(r.key, e)
	if err == nil && r.claim != 0 && !r.done.Swap(true) {
		j.right, j.seen = r, &r.place
	}
	if err == nil {
		err = r.tier.enqueue(j)
	}
	if err != nil {
		r.Release()
	}
	return err
}

// Release lets others load, and puts back what was there. It does not wait, and does
// nothing after Put, when called again, or when the right is not held. A release that
// is lost costs others their wait until the right expires.
func (r *Right) Release() {
	if r.claim == 0 || r.done.Swap(true) {
		return
	}
	if err := r.tier.enqueue(job{key: r.key, right: r}); err != nil {
		r.tier.log.Debug("a right to load was not released and must expire", "error", err)
	}
}

// free takes the claim out of its place, unless it is not there any more.
func (r *Right) free(ctx context.Context, b bus.Bucket) error {
	now := r.before
	now.Revision = r.place.Revision
	for range maxTries {
		err := putBack(ctx, b, r.key, now, r.tier.policy.LockExpiry)
		if !errors.Is(err, bus.ErrConflict) {
			return err
		}
		if now, err = r.tier.latest(ctx, b, r.key); err != nil {
			return err
		}
		i := slices.Index(now.Claims, r.claim)
		if i < 0 {
			return nil
		}
		now.Claims = slices.Delete(now.Claims, i, i+1)
	}
	return errContended
}

// putBack writes what a place holds without a claim.
func putBack(ctx context.Context, b bus.Bucket, key string, e Entry, expiry time.Duration) (err error) {
	left := e.Remaining(time.Now())
	switch {
	case len(e.Claims) > 0:
		_, err = write(ctx, b, key, e, expiry)
	case e.Version == 0 || left <= 0:
		err = b.Delete(ctx, entryPrefix+key, e.Revision)
	default:
		_, err = write(ctx, b, key, e, left)
	}
	return err
}

// Wait waits until fewer load than may, as when one of them has stored the entry, has
// failed, or has died and its right has expired, and returns what is there then. Where
// that is not good the caller asks for the right again, or loads without it. ErrHeld
// says that it took longer than the policy lets a read wait. It is for those who do not
// hold the right.
func (r *Right) Wait(ctx context.Context) (Entry, bool, error) {
	t := r.tier
	l, err := t.reach()
	if err != nil {
		return Entry{}, false, fmt.Errorf("wait: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, t.policy.Wait)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	e := r.place
	for err == nil && t.full(e) {
		e, err = t.place(l.Wait(limited, entryPrefix+r.key, e.Revision))
	}
	switch {
	case err == nil:
		t.recent.note(r.key, e)
		return t.counted(e)
	case errors.Is(limited.Err(), context.DeadlineExceeded) && ctx.Err() == nil:
		return Entry{}, false, ErrHeld // the holder is slow, and the tier need not be
	}
	return Entry{}, false, fmt.Errorf("wait: %w", t.settle(ctx, l, err))
}
