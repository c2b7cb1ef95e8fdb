package operation

import (
	"context"
	"errors"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/rights"
)

const (
	// DefaultWait is how long a read waits for the freshness that it asks for, where
	// it does not say.
	DefaultWait = time.Second
	// LoadRounds is how often a key is loaded for one reader: what was loaded may be
	// made stale before the reader comes to read it, and a miss would tell a client
	// that has no other source that there is nothing.
	LoadRounds = 3
)

// Read is a read under way: of one key, under a mode. Try and Await are called by
// turns, one at a time.
type Read struct {
	Key    string // a view, until Try says that it must wait
	Mode   cache.Mode
	holder *rights.Holder
	began  time.Duration
	fresh  time.Duration // how long it waits for the freshness that it asks for
	shared time.Duration // how long it waits for another's load

	due    due
	wait   time.Duration // how long for it, at most
	tried  bool          // to catch up, since it last waited for a load
	caught bool          // it did once
	alone  bool          // it waits for no load any more
	right  uint64        // to fill; 0 = none
	loads  int           // how often the key was loaded for it
	ended  bool          // that failed, or there is no value to load
	failed bool          // it failed
}

// due is what a Read waits for.
type due uint8

const (
	dueFreshness due = iota
	dueLoad
	dueRight
)

// NewRead begins a read at now, a moment of the cache's clock after its client asked.
// wait bounds all waiting; negative: as the policy says. h gets the right to fill; nil:
// nobody does, and the read waits for nobody who has it.
func (e *Env) NewRead(key string, m cache.Mode, wait, now time.Duration, h *rights.Holder) Read {
	r := Read{Key: key, Mode: m, holder: h, alone: h == nil, began: now, fresh: wait, shared: wait}
	if wait < 0 {
		r.fresh, r.shared = DefaultWait, e.Cache.Policies().OfKey(key).Lease.Patience()
	}
	return r
}

// Try reads at now and appends what it finds to dst. When it must wait first, it says
// so and dst is as it was: then Await, and Try again: the answer is never that of a
// flight (C2).
func (e *Env) Try(r *Read, now time.Duration, dst []byte) (_ []byte, a cache.Answer, waits bool) {
	for {
		var value []byte
		value, a = e.Cache.NearAt(r.Key, r.Mode, now, r.caught, r.failed, dst)
		switch a.Status {
		case cache.Miss:
			switch e.missed(r, now, &a) {
			case rights.Again:
				continue
			case rights.Busy:
				return dst, a, true
			default:
			}
		case cache.Bypassed, cache.Behind:
			e.Cache.Unneeded(r.Key, r.right, false)
			r.right = 0
			if left := r.left(now, r.fresh); !r.tried && left > 0 {
				r.await(dueFreshness, left)
				return dst, a, true
			}
		default:
			if r.right != 0 {
				e.Cache.Unneeded(r.Key, r.right, true)
			} else if a.Status == cache.Stale && !e.Cache.Loads(r.Key) {
				// One reader is told of a miss instead and loads it anew.
				if o, lease := e.claim(r); o == rights.Granted {
					a.Status, a.Version, a.Lease, value = cache.Miss, 0, lease, dst
				}
			}
		}
		return value, a, false
	}
}

// missed says what a reader that misses does: read Again; wait, for a load or while
// another client is Busy with one; or answer a, whose lease may have come with the
// right.
func (e *Env) missed(r *Read, now time.Duration, a *cache.Answer) rights.Outcome {
	if left := r.left(now, r.fresh); left > 0 && !r.ended && r.loads < LoadRounds && e.Cache.Loads(r.Key) {
		r.await(dueLoad, left)
		return rights.Busy
	}
	if r.right != 0 {
		a.Lease.Right = r.right
		return rights.Granted
	}
	o, lease := e.claim(r)
	switch left := r.left(now, r.shared); {
	case o == rights.Granted:
		a.Lease = lease
	case o == rights.Busy && left > 0:
		r.await(dueRight, left)
	case o == rights.Busy:
		return rights.Alone
	}
	return o
}

// left is how much there is of a wait that began with r.
func (r *Read) left(now, wait time.Duration) time.Duration { return wait - (now - r.began) }

// await makes r wait for d. From now on it owns its key.
func (r *Read) await(d due, wait time.Duration) {
	r.Key, r.due, r.wait = strings.Clone(r.Key), d, wait
}

func (e *Env) claim(r *Read) (rights.Outcome, cache.Lease) {
	if r.alone {
		return rights.Alone, cache.Lease{}
	}
	return e.Cache.Claim(r.Key, r.Mode, r.holder, false)
}

// Await waits for what Try found missing, no longer than the read may wait or until
// ctx ends. Whatever comes of it, Try goes on.
func (e *Env) Await(ctx context.Context, r *Read) {
	ctx, cancel := context.WithTimeout(ctx, r.wait)
	defer cancel()
	switch r.due {
	case dueFreshness:
		r.tried = true
		if e.Cache.Catch(ctx, r.Mode, r.Key) == nil { // if not, the answer says so
			r.caught = true
		}
	case dueLoad:
		e.awaitLoad(ctx, r)
	case dueRight:
		r.tried = false
		var o rights.Outcome
		r.right, o = e.Cache.AwaitRight(ctx, r.Key, r.holder, false)
		r.alone = o == rights.Alone
	}
}

// awaitedAtOnce bounds the goroutines of one AwaitAll.
const awaitedAtOnce = 64

// AwaitCost is how many goroutines an AwaitAll of n reads takes.
func AwaitCost(n int) int { return min(n, awaitedAtOnce) }

// AwaitAll is Await for reads that began together: it takes no longer than the one of
// them does that may wait longest.
func (e *Env) AwaitAll(ctx context.Context, reads []*Read) {
	wait := time.Duration(0)
	for _, r := range reads {
		wait = max(wait, r.wait)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var group errgroup.Group
	group.SetLimit(awaitedAtOnce)
	for _, r := range reads {
		group.Go(func() error {
			e.Await(ctx, r)
			return nil
		})
	}
	_ = group.Wait() // each read says what came of it
}

// awaitLoad has the key loaded, and what a STRONG read will find known everywhere
// (C12).
func (e *Env) awaitLoad(ctx context.Context, r *Read) {
	r.loads++
	if ctx.Err() != nil { // nobody is left who waits for it
		r.ended, r.failed = true, true
		return
	}
	err := e.Cache.Load(ctx, r.Key, r.Mode.AtLeast.Version)
	r.ended = err != nil || r.Mode.Kind == cache.AtLeast // what the origin has now may be too old for it
	if r.failed = err != nil && !errors.Is(err, cache.ErrAbsent); !r.failed && r.caught {
		r.caught = e.Cache.Catch(ctx, r.Mode, r.Key) == nil
	}
}
