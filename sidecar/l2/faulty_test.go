package l2_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/l2"
)

var errLost = errors.New("no answer")

// faulty is the way of one pod to a bucket. It delays, loses calls and answers,
// and reads from a replica that lags. Every write that is done goes through the
// audit.
type faulty struct {
	bus.Bucket // without faults of its own
	audit      *audit
	random     *rand.Rand
	mu         *sync.Mutex // of random

	sick *bool
	old  map[string]lagging // what the replica has, by key
}

type lagging struct {
	value    []byte
	revision uint64
}

func newFaulty(b bus.Bucket, a *audit, seed uint64) *faulty {
	return &faulty{
		Bucket: b, audit: a, random: rand.New(rand.NewPCG(seed, 1)), mu: new(sync.Mutex), sick: new(bool), old: map[string]lagging{},
	}
}

// only offers this bucket, whatever is asked for.
type only struct{ f *faulty }

func (o only) Bucket(context.Context, string, bus.BucketConfig) (bus.Bucket, error) { return o.f, nil }

func (f *faulty) set(sick bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*f.sick = sick
}

// fate draws what happens to a call.
func (f *faulty) fate() (delay time.Duration, lost, unanswered, lag bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delay = time.Duration(f.random.IntN(int(5 * time.Millisecond)))
	if *f.sick {
		n := f.random.IntN(20)
		return delay, n == 0, n == 1, n < 8
	}
	return delay, false, false, false
}

// call does do as fate has it.
func (f *faulty) call(ctx context.Context, do func() error) error {
	delay, lost, unanswered, _ := f.fate()
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return ctx.Err()
	}
	if lost {
		<-ctx.Done()
		return errLost
	}
	err := do()
	if unanswered {
		<-ctx.Done()
		return errLost
	}
	return err
}

func (f *faulty) Get(ctx context.Context, key string) (value []byte, revision uint64, err error) {
	err = f.call(ctx, func() (err error) {
		_, _, _, lag := f.fate()
		value, revision, err = f.Bucket.Latest(ctx, key)
		f.mu.Lock()
		defer f.mu.Unlock()
		if r, ok := f.old[key]; ok && lag {
			value, revision, err = r.value, r.revision, nil
		} else if err == nil {
			f.old[key] = lagging{value, revision}
		}
		return err
	})
	return value, revision, err
}

func (f *faulty) Latest(ctx context.Context, key string) (value []byte, revision uint64, err error) {
	err = f.call(ctx, func() (err error) {
		value, revision, err = f.Bucket.Latest(ctx, key)
		return err
	})
	return value, revision, err
}

func (f *faulty) Create(ctx context.Context, key string, value []byte, ttl time.Duration) (revision uint64, err error) {
	err = f.write(ctx, key, func() (err error) {
		revision, err = f.Bucket.Create(ctx, key, value, ttl)
		return err
	})
	return revision, err
}

func (f *faulty) Update(ctx context.Context, key string, value []byte, at uint64, ttl time.Duration) (revision uint64, err error) {
	err = f.write(ctx, key, func() (err error) {
		revision, err = f.Bucket.Update(ctx, key, value, at, ttl)
		return err
	})
	return revision, err
}

func (f *faulty) Delete(ctx context.Context, key string, revision uint64) error {
	return f.write(ctx, key, func() error { return f.Bucket.Delete(ctx, key, revision) })
}

func (f *faulty) Put(ctx context.Context, key string, value []byte, ttl time.Duration) (revision uint64, err error) {
	err = f.write(ctx, key, func() (err error) {
		revision, err = f.Bucket.Put(ctx, key, value, ttl)
		return err
	})
	return revision, err
}

func (f *faulty) write(ctx context.Context, key string, do func() error) error {
	return f.call(ctx, func() error { return f.audit.write(key, do) })
}

// audit sees every write of an entry with what was there before and after it.
type audit struct {
	t       *testing.T
	shelf   bus.Bucket
	loaders int

	mu       sync.Mutex
	writes   int
	released map[uint64]bool // claims
}

func (a *audit) releases(claim uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.released[claim] = true
}

// write does do, which must not block, and checks that it did not put an older
// entry in the place of a newer one, nor take a right away.
func (a *audit) write(key string, do func() error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.resident(key)
	if err := do(); err != nil {
		return err
	}
	after := a.resident(key)
	if before.Version != 0 && after.Version != 0 {
		a.writes++
	}
	stored := after.Version != 0 && len(after.Claims) == 0 && after.Newer(before)
	switch {
	case before.Newer(after):
		a.t.Errorf("%q went back from version %d at %v to version %d at %v",
			key, before.Version, before.Position, after.Version, after.Position)
	case len(after.Claims) > a.loaders+1: // one may be the word of a barren load
		a.t.Errorf("%d load %q, at most %d may", len(after.Claims), key, a.loaders)
	}
	for _, claim := range before.Claims {
		if !stored && !slices.Contains(after.Claims, claim) && !a.released[claim.ID] && claim.ID != 0 {
			a.t.Errorf("the right %d to load %q was taken away", claim.ID, key)
		}
	}
	return nil
}

// resident is the zero entry where there is none, and where it has expired but for
// its claims.
func (a *audit) resident(key string) l2.Entry {
	data, _, err := a.shelf.Latest(context.Background(), key)
	if err != nil {
		return l2.Entry{}
	}
	e, err := l2.Decode(data)
	if err != nil {
		return l2.Entry{}
	}
	if e.Remaining(time.Now()) <= 0 {
		e = e.Empty()
	}
	return e.Valid(time.Now())
}
