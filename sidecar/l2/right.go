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

// clockSlack is by how much sidecars' clocks may differ for their claims to count.
const clockSlack = time.Second

// claimValue is up to which size a value stays in its place while the key is loaded
// anew: it is written once more with the claim.
const claimValue = 64 << 10

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
	news   bool   // of place: it holds another entry than was seen
	before Entry  // as it was before our claim
	claim  uint64 // barren: not held
	done   atomic.Bool
}

// Acquire asks for the right to load key, which as many sidecars of the domain can
// hold at once as the policy says. seen is what Get or Wait returned, found or not; the
// place of an entry that is of the past for good, and must not keep lower versions
// out, is its Empty. It does not wait for others: where held is false, the Right is
// for waiting. It returns within the policy's timeout; who gets an error loads without a
// right. A holder must call Put, Release or Barren in the end. The right passes on
// LockExpiry after it was given, by the sidecars' wall clocks; a load that ends later
// may be stored all the same: it cannot replace a newer entry.
func (t *Tier) Acquire(ctx context.Context, key string, seen Entry) (r *Right, held bool, err error) {
	r = &Right{tier: t, key: key, place: seen.valid(time.Now(), t.policy.LockExpiry+clockSlack)}
	if !t.full(r.place) && r.place.has(barren) < 0 {
		err = t.call(ctx, t.policy.Timeout, r.acquire)
	}
	if err == nil && !r.news && r.place.has(barren) >= 0 {
		err = ErrBarren
	}
	switch {
	case err != nil:
		return nil, false, fmt.Errorf("acquire: %w", err)
	case r.claim == barren:
		t.counts.refused.Add(1)
	default:
		t.counts.acquired.Add(1)
	}
	return r, r.claim != barren, nil
}

// claims is how many load.
func (t *Tier) claims(e Entry) int {
	n := len(e.Claims)
	if e.has(barren) >= 0 {
		n--
	}
	return n
}

// full reports whether as many load as may.
func (t *Tier) full(e Entry) bool { return t.claims(e) >= t.policy.Loaders }

// acquire adds a claim to the place that was seen. Where others were quicker it tries
// again, unless as many load as may, or there is something new to look at.
func (r *Right) acquire(ctx context.Context, b bus.Bucket) error {
	t, claim := r.tier, rand.Uint64()|1
	for range maxTries {
		claimed := r.place
		if len(claimed.Value) > claimValue {
			claimed = claimed.Empty()
		}
		until := time.Now().Add(t.policy.LockExpiry + time.Millisecond) // stored in whole ones
		claimed.Claims = append(slices.Clone(r.place.Claims), Claim{ID: claim, Until: until})
		revision, err := t.replace(ctx, b, r.key, claimed)
		if err == nil {
			claimed.Revision = revision
			r.before, r.place, r.claim = r.place, claimed, claim
		}
		if !errors.Is(err, bus.ErrConflict) {
			return err
		}
		now, err := t.latest(ctx, b, r.key)
		if err != nil {
			return err
		}
		r.news, r.place = !now.same(r.place), now
		if r.news || t.full(now) || now.has(barren) >= 0 {
			t.recent.note(r.key, now)
			return nil
		}
	}
	return errContended
}

// replace writes e in its place, if that is at e.Revision, for as long as e or a claim on
// it lives.
func (t *Tier) replace(ctx context.Context, b bus.Bucket, key string, e Entry) (uint64, error) {
	data, err := encode(e)
	if err != nil {
		return 0, err
	}
	ttl := e.Remaining(time.Now())
	if len(e.Claims) > 0 {
		ttl = max(ttl, t.policy.LockExpiry)
	}
	if e.Revision == 0 {
		return b.Create(ctx, entryPrefix+key, data, ttl)
	}
	return b.Update(ctx, entryPrefix+key, data, e.Revision, ttl)
}

// Put has e stored as Tier.Put does, in the place of the claim. All claims on the key
// end with it.
func (r *Right) Put(e Entry) error {
	j, err := r.tier.newJob(r.key, e)
	if err == nil && r.claim != barren && !r.done.Load() {
		j.right, j.seen = r, &r.place
	}
	if err == nil {
		err = r.tier.enqueue(j)
	}
	if err != nil {
		r.Release()
		return err
	}
	r.done.Store(true)
	return nil
}

// Release lets others load, and puts back what was there. It does not wait, and does
// nothing after Put or Barren, when called again, or when the right is not held. A
// release that is lost costs others their wait until the right expires.
func (r *Right) Release() {
	if r.claim == barren || r.done.Swap(true) {
		return
	}
	err := r.tier.enqueue(job{key: r.key, right: r})
	if errors.Is(err, ErrFull) && r.before.Version != 0 { // then what was there gives way
		r.before = r.before.Empty()
		err = r.tier.enqueue(job{key: r.key, right: r})
	}
	if err != nil {
		r.tier.log.Debug("a right to load was not released and must expire", "error", err)
	}
}

// Barren is Release of one who has loaded something that cannot be shared. Until the
// right would have expired nobody waits for others to load the key, unless somebody
// finds something to share.
func (r *Right) Barren() {
	if r.claim != barren && !r.done.Load() {
		r.before.Claims = append(slices.Clone(r.before.Claims), Claim{ID: barren, Until: time.Now().Add(r.tier.policy.LockExpiry)})
		r.Release()
	}
}

// free takes the claim out of its place, unless it is not there any more.
func (r *Right) free(ctx context.Context, b bus.Bucket) error {
	now := r.before
	now.Revision = r.place.Revision
	for range maxTries {
		err := r.tier.putBack(ctx, b, r.key, now)
		if !errors.Is(err, bus.ErrConflict) {
			return err
		}
		if now, err = r.tier.latest(ctx, b, r.key); err != nil {
			return err
		}
		i := now.has(r.claim)
		if i < 0 {
			return nil
		}
		now.Claims = slices.Delete(now.Claims, i, i+1)
	}
	return errContended
}

// putBack writes what a place holds when a claim on it has ended.
func (t *Tier) putBack(ctx context.Context, b bus.Bucket, key string, e Entry) error {
	if len(e.Claims) == 0 && e.Remaining(time.Now()) <= 0 {
		return b.Delete(ctx, entryPrefix+key, e.Revision)
	}
	_, err := t.replace(ctx, b, key, e)
	return err
}

// Wait waits until fewer load than may, as when one of them has failed, or has died and
// its right has expired, or until there is another entry than the one that was seen, and
// returns what is there then. Where that is not good the caller asks for the right again,
// or loads without it. ErrHeld says that it took longer than the policy lets a read wait.
// It is for those who do not hold the right.
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
	for err == nil && t.full(e) && !r.news && e.same(r.place) {
		e, err = t.waitAt(limited, l, r.key, e)
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

// waitAt returns what comes into the place after e, or e when a claim on it has ended.
func (t *Tier) waitAt(ctx context.Context, l *link, key string, e Entry) (Entry, error) {
	until := slices.MinFunc(e.Claims, func(a, b Claim) int { return a.Until.Compare(b.Until) }).Until
	claimed, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	now, err := t.place(l.Wait(claimed, entryPrefix+key, e.Revision))
	if err != nil && ctx.Err() == nil && claimed.Err() != nil {
		return e.valid(time.Now(), t.policy.LockExpiry+clockSlack), nil
	}
	return now, err
}
