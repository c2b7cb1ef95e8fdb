package sim

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/l2"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// sharing is how the namespaces with a shared tier use it.
var sharing = policy.L2{
	Timeout: 50 * time.Millisecond, LockExpiry: time.Second, Wait: 300 * time.Millisecond, Loaders: 1,
	TTL: 30 * time.Second, History: 4 * window,
}

// bucket is the shared tier of the domain. It promises less than a real one: whatever
// is stored last stays, be it older than what it replaces. Its revisions begin again
// when it is made anew.
type bucket struct {
	w        *world
	revision uint64
	shelves  map[string][]shelved // of a key, newest last
	locks    map[string]lock
	down     time.Duration // until then it gives no answer
}

// shelved is one revision of an entry.
type shelved struct {
	l2.Entry
	until time.Duration
}

type lock struct {
	fence uint64
	until time.Duration
}

func newBucket(w *world) *bucket {
	return &bucket{w: w, shelves: map[string][]shelved{}, locks: map[string]lock{}}
}

func (b *bucket) store(key string, x shelved) {
	b.revision++
	x.Revision = b.revision
	b.shelves[key] = append(b.shelves[key], x)
}

// newest is what the bucket's leader has of key.
func (b *bucket) newest(key string) (x shelved, found bool) {
	if list := b.shelves[key]; len(list) > 0 {
		x = list[len(list)-1]
	}
	return x, b.w.now < x.until
}

// some is what one of its replicas has.
func (b *bucket) some(key string) (x shelved, found bool) {
	list := b.shelves[key]
	if i := len(list) - 1 - b.w.rng.IntN(4); i >= 0 && b.w.chance(0.3) {
		return list[i], b.w.now < list[i].until
	}
	return b.newest(key)
}

// lose is a fault: everything, or all that is newer than a revision, whose numbers are
// then used again.
func (b *bucket) lose(after uint64) {
	b.w.trace("the shared tier loses all after revision %d", after)
	for key, list := range b.shelves {
		b.shelves[key] = slices.DeleteFunc(list, func(x shelved) bool { return x.Revision > after })
	}
	b.revision = min(b.revision, after)
	clear(b.locks)
}

// Of implements cache.Tiers.
func (p *process) Of(namespace string) cache.Tier {
	if policies.Of(namespace).L2 == nil {
		return nil
	}
	return tier{p}
}

// tier is the bucket as one process reaches it.
type tier struct{ p *process }

var errLost = errors.New("sim: lost on the way")

// call takes the time of a call and its answer's way.
func (t tier) call(answer func() error) error {
	p, w := t.p, t.p.w
	d := within(w.rng, 50*time.Microsecond, time.Millisecond)
	if w.chance(0.1) {
		d = within(w.rng, 0, 2*sharing.Timeout)
	}
	away := p.link.callsDown || w.now < w.bucket.down || !w.calm && w.chance(0.03) || d > sharing.Timeout
	if !p.pass(w.acting, min(d, sharing.Timeout)) {
		return errDead
	}
	if away {
		return l2.ErrAway
	}
	err := answer()
	if !p.pass(w.acting, within(w.rng, 0, time.Millisecond)) {
		return errDead
	}
	if !w.calm && w.chance(0.03) {
		return errLost
	}
	return err
}

// Get implements cache.Tier.
func (t tier) Get(_ context.Context, key string) (l2.Entry, bool, error) {
	return t.read(key, (*bucket).some)
}

func (t tier) read(key string, look func(*bucket, string) (shelved, bool)) (e l2.Entry, found bool, err error) {
	w := t.p.w
	var x shelved
	err = t.call(func() error {
		x, found = look(w.bucket, key)
		return nil
	})
	if err != nil || !found || w.now >= x.until {
		return e, false, err
	}
	e = x.Entry
	// What remains does not hang on the real clock.
	e.Stored, e.TTL = time.Now().Add(time.Hour), x.until-w.now
	ttl := e.TTL
	if n := policies.OfKey(key); n.TTL > 0 {
		ttl = min(ttl, n.TTL)
	}
	id, _ := w.contentOf(e.Value)
	w.trace("%v: finds %s in the shared tier, of seq %d, loaded at %d", t.p, w.describe(id), e.Position.Seq, e.Loaded)
	t.p.watch.stored(key, id, cache.TTL{For: ttl, Asked: true})
	w.check.counts.Shared++
	return e, true, nil
}

// Put implements cache.Tier: it stores later, or not.
func (t tier) Put(key string, e l2.Entry) error {
	w, b := t.p.w, t.p.w.bucket
	if t.p.link.callsDown || w.now < b.down {
		return l2.ErrAway
	}
	x := shelved{Entry: e}
	if x.TTL <= 0 || x.TTL > sharing.TTL {
		x.TTL = sharing.TTL
	}
	x.until = w.now + x.TTL
	w.after(w.delay(), func() {
		if w.now >= b.down && !(!w.calm && w.chance(0.05)) {
			b.store(key, x)
		}
	})
	return nil
}

// delay is how long what nobody waits for takes.
func (w *world) delay() time.Duration {
	if w.rng.IntN(8) == 0 {
		return within(w.rng, 0, 2*time.Second)
	}
	return within(w.rng, 0, 5*time.Millisecond)
}

// Vouch implements cache.Tier.
func (t tier) Vouch(_ context.Context, key string, e l2.Entry, at bus.Position, digest uint64) error {
	w := t.p.w
	return t.call(func() error {
		x, found := w.bucket.newest(key)
		switch {
		case !found || x.Revision != e.Revision || !bytes.Equal(x.Value, e.Value) || x.Position != e.Position:
			return bus.ErrConflict
		case x.Position.Epoch != at.Epoch:
			return l2.ErrOtherEpoch
		case x.Position.Seq >= at.Seq:
			return nil
		}
		w.trace("%v: vouches for %s at seq %d", t.p, x.Value, at.Seq)
		w.check.counts.Vouched++
		x.Position, x.Digest = at, digest
		w.bucket.store(key, x)
		return nil
	})
}

// right is the right to load a key.
type right struct {
	tier
	key   string
	fence uint64
	held  bool
	done  bool
}

// Acquire implements cache.Tier. The locks are apart from the entries, so that more
// load than may, and later than they should.
func (t tier) Acquire(_ context.Context, key string, seen l2.Entry) (cache.Right, bool, error) {
	w := t.p.w
	r := &right{tier: t, key: key}
	err := t.call(func() error {
		if x, found := w.bucket.newest(key); found && seen.Version == 0 && x.Revision == seen.Revision {
			delete(w.bucket.shelves, key)
		}
		l := w.bucket.locks[key]
		if w.now >= l.until {
			w.bucket.revision++
			l = lock{fence: w.bucket.revision, until: w.now + sharing.LockExpiry}
			w.bucket.locks[key], r.held = l, true
		}
		r.fence = l.fence
		return nil
	})
	return r, r.held, err
}

// Wait implements cache.Right.
func (r *right) Wait(context.Context) (l2.Entry, bool, error) {
	w := r.p.w
	for end := w.now + sharing.Wait; ; {
		if l := w.bucket.locks[r.key]; l.fence != r.fence || w.now >= l.until {
			return r.read(r.key, (*bucket).newest)
		}
		if w.now >= end {
			return l2.Entry{}, false, l2.ErrHeld
		}
		if !r.p.pass(w.acting, 20*time.Millisecond) {
			return l2.Entry{}, false, errDead
		}
	}
}

// Put implements cache.Right.
func (r *right) Put(e l2.Entry) error {
	err := r.tier.Put(r.key, e)
	r.Release()
	return err
}

// Barren implements cache.Right.
func (r *right) Barren() { r.Release() }

// Release implements cache.Right.
func (r *right) Release() {
	w, b := r.p.w, r.p.w.bucket
	if !r.held || r.done {
		return
	}
	r.done = true
	if w.chance(0.9) {
		w.after(w.delay(), func() {
			if b.locks[r.key].fence == r.fence {
				delete(b.locks, r.key)
			}
		})
	}
}
