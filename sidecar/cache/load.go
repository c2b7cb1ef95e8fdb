package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/localstore"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/loader"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// Origins are where values come from; see loader.Set.
type Origins interface {
	Load(ctx context.Context, namespace string, r loader.Request) (loader.Result, error)
}

// Errors of loads; compare with errors.Is.
var (
	// ErrOvertaken says that whatever was loaded was refused, because the key
	// changed meanwhile, again and again. What was refused is never served.
	ErrOvertaken = errors.New("cache: what was loaded was out of date, again and again")
	// ErrNotKept says that what was loaded cannot be kept, and so not be served.
	ErrNotKept = errors.New("cache: what was loaded cannot be kept")
	// ErrAbsent says that the source has no value, and that the policy does not keep
	// that. It is no failure.
	ErrAbsent = errors.New("cache: the source has no value, and the policy does not keep that")
	// ErrTooManyLoads says that too many keys are being loaded.
	ErrTooManyLoads = errors.New("cache: too many keys are being loaded")
	// ErrClosed says that the cache is closed.
	ErrClosed = errors.New("cache: closed")
)

const (
	// loadTries is how often a value that was overtaken is loaded again.
	loadTries = 3
	maxLoads  = 4096 // at once
	// restAfterFailure is how long a key whose load failed is not loaded in the
	// background again. Readers that must wait load whenever they come.
	restAfterFailure = time.Second
)

// loads are the loads under way, one a key (I13).
type loads struct {
	ctx  context.Context // ends at close
	stop context.CancelFunc
	run  func(func()) // Config.Go

	mu      sync.Mutex
	byKey   map[string]*Loading
	resting map[string]time.Duration // until when, of keys whose load failed
	running sync.WaitGroup
	closed  bool
}

// Loading is one load under way. Those who wait for it are told that it is over and
// read again: what it brought may be out of date by then, or refused (C2).
type Loading struct {
	done chan struct{}
	err  error // once done is closed
}

// Done is closed when the load is over.
func (l *Loading) Done() <-chan struct{} { return l.done }

// Err says why the load failed, once Done is closed; nil: it did not.
func (l *Loading) Err() error { return l.err }

func newLoads(run func(func())) *loads {
	ctx, stop := context.WithCancel(context.Background())
	if run == nil {
		run = func(f func()) { go f() }
	}
	return &loads{ctx: ctx, stop: stop, run: run, byKey: map[string]*Loading{}, resting: map[string]time.Duration{}}
}

// start runs f in the background; close waits for it.
func (l *loads) start(f func()) {
	l.running.Add(1)
	l.run(func() {
		defer l.running.Done()
		f()
	})
}

// close ends all loads and returns when none is under way.
func (l *loads) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.stop()
	l.running.Wait()
}

// begin returns the load of key that is under way, or starts run as one.
func (l *loads) begin(key string, run func(context.Context) error) (*Loading, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if under := l.byKey[key]; under != nil {
		return under, nil
	}
	switch {
	case l.closed:
		return nil, ErrClosed
	case len(l.byKey) >= maxLoads:
		return nil, fmt.Errorf("%w: %d", ErrTooManyLoads, maxLoads)
	}
	begun := &Loading{done: make(chan struct{})}
	l.byKey[key] = begun
	l.start(func() {
		begun.err = run(l.ctx)
		l.mu.Lock()
		delete(l.byKey, key)
		l.mu.Unlock()
		close(begun.done)
	})
	return begun, nil
}

// mayRest reports whether key is not to be loaded in the background now: it is
// being loaded, or its load has just failed.
func (l *loads) mayRest(key string, now time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	until, resting := l.resting[key]
	if resting && now >= until {
		delete(l.resting, key)
	}
	return l.byKey[key] != nil || now < until
}

func (l *loads) rest(key string, now time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.resting) >= maxLoads {
		clear(l.resting) // they may be loaded again sooner
	}
	l.resting[key] = now + restAfterFailure
}

// Loads reports whether misses of a key are loaded here. Where nothing is served
// nothing is loaded: clients load what they miss.
func (c *Cache) Loads(key string) bool { return c.loadsBy(c.Policies().OfKey(key)) }

func (c *Cache) loadsBy(p *policy.Namespace) bool {
	return c.origins != nil && p.Loader != nil && p.Enforces()
}

// Wanting reports whether a read of key would find nothing that may be served, and
// could if it were loaded.
func (c *Cache) Wanting(key string, now time.Duration) bool {
	p := c.Policies().OfKey(key)
	if c.State(p, now) == Bypass {
		return false
	}
	m, ok := c.store.Head(key)
	return !ok || c.judge(key, m, p, now, boundOf(p), false) == Nothing
}

// Load has key loaded from its namespace's origin, together with whoever wants it
// at the same time, and waits until that is over, the loader's soft timeout passes
// (loader.ErrSlow) or ctx ends; the load goes on. The caller then reads again. The
// key is copied. Of those who miss together some come when the load is over: what it
// brought is not loaded again for them, unless it is of a version below atLeast.
func (c *Cache) Load(ctx context.Context, key string, atLeast uint64) error {
	p := c.Policies().OfKey(key) // once: it may change at any time
	if !c.loadsBy(p) {
		return loader.ErrNoLoader
	}
	key = strings.Clone(key)
	l, err := c.loads.begin(key, func(ctx context.Context) error {
		if m, ok := c.store.Head(key); ok && m.Version >= atLeast && c.isGood(key, m) {
			return nil // of the load before, which ended since the reader looked
		}
		return c.load(ctx, key, atLeast)
	})
	if err != nil {
		return err
	}
	soft := time.NewTimer(p.Loader.WithDefaults().SoftTimeout)
	defer soft.Stop()
	select {
	case <-l.done:
		return l.err
	case <-soft.C:
		return loader.ErrSlow
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// isGood reports whether an entry may be served to all but STRONG readers and is not
// past its soft TTL.
func (c *Cache) isGood(key string, m localstore.Meta) bool {
	p, now := c.Policies().OfKey(key), c.now()
	if c.State(p, now) == Bypass {
		return false
	}
	found := c.judge(key, m, p, now, none, false)
	return found == Value || found == Absence
}

// BeginLoad is Load that does not wait, and loads whatever there is.
func (c *Cache) BeginLoad(key string) (*Loading, error) {
	if !c.Loads(key) {
		return nil, loader.ErrNoLoader
	}
	key = strings.Clone(key)
	return c.loads.begin(key, func(ctx context.Context) error { return c.load(ctx, key, 0) })
}

// renew has key loaded in the background, unless that is under way. It does not
// block.
func (c *Cache) renew(key string, now time.Duration) {
	if !c.Loads(key) || c.loads.mayRest(key, now) {
		return
	}
	key = strings.Clone(key)
	_, _ = c.loads.begin(key, func(ctx context.Context) error { // of an error nobody need know here: a later read finds it again
		m, ok := c.store.Head(key)
		if ok && c.isGood(key, m) && (m.Extra.Renew == 0 || c.now() < m.Extra.Renew) {
			return nil // it was renewed since
		}
		err := c.load(ctx, key, 0)
		if err != nil {
			c.loads.rest(key, c.now())
		}
		return err
	})
}

// load loads key until what was loaded is kept. Less than the version atLeast is not
// asked for.
func (c *Cache) load(ctx context.Context, key string, atLeast uint64) error {
	var v coherence.Verdict
	for range loadTries {
		var err error
		if v, err = c.fetch(ctx, key, atLeast); err != nil {
			return err
		}
		switch v {
		case coherence.Stored:
			return nil
		case coherence.Absent:
			return ErrAbsent
		case coherence.TooLarge, coherence.Bypass, coherence.Off, coherence.NotReady, coherence.Blind:
			return notKept(v)
		}
	}
	return fmt.Errorf("%w: %s", ErrOvertaken, v.Words())
}

func notKept(v coherence.Verdict) error { return fmt.Errorf("%w: %s", ErrNotKept, v.Words()) }

// offer is what a load knows from before it began.
type offer struct {
	refused coherence.Verdict // Stored, unless nothing would be kept
	lease   Lease             // taken before the load, on every path (C2)
	digest  uint64            // of the message at the lease's position
	atLeast uint64            // the newest version that is known
	held    known             // what is resident, if it may be revalidated
}

// shareable reports whether others can judge what was loaded.
func (o offer) shareable() bool { return o.digest != 0 }

// known is a resident entry that the origin may confirm.
type known struct {
	version uint64
	tick    uint64
	etag    string
	hangs   coherence.Hangs
}

func (c *Cache) beginOffer(key string, atLeast uint64) offer {
	p := c.Policies().OfKey(key)
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	o := offer{atLeast: max(atLeast, c.core.Newest(key))}
	o.lease.Lease = c.core.Lease(now, p.ReplicaLag)
	o.digest, _ = c.core.Digest(o.lease.Position.Seq)
	var refused bool
	if o.refused, refused = c.refuses(p, now); !refused {
		o.refused = c.core.Futile(key, o.lease.Lease)
	}
	if m, ok := c.store.Head(key); ok && c.horizon.Load().Alive(key, stampOf(m)) {
		o.atLeast = max(o.atLeast, m.Version)
		if m.Extra.ETag != "" && !m.Extra.Negative { // an absence has no value that could be confirmed
			o.held = known{m.Version, m.Tick, m.Extra.ETag, m.Hangs}
		}
	}
	return o
}

// fetch loads once, from the shared tier or from the origin, and has it judged.
// Nothing is asked in vain.
func (c *Cache) fetch(ctx context.Context, key string, atLeast uint64) (coherence.Verdict, error) {
	o := c.beginOffer(key, atLeast)
	if o.refused != coherence.Stored {
		return o.refused, notKept(o.refused)
	}
	if tier, n := c.tier(key), c.Policies().OfKey(key).L2; tier != nil && n != nil {
		return c.throughTier(ctx, tier, key, atLeast, n.WithDefaults().Wait)
	}
	_, v, err := c.fromOrigin(ctx, key, o)
	return v, err
}

func (c *Cache) fromOrigin(ctx context.Context, key string, o offer) (loader.Result, coherence.Verdict, error) {
	if o.refused != coherence.Stored {
		return loader.Result{}, o.refused, notKept(o.refused)
	}
	r, err := c.origins.Load(ctx, bus.NamespaceOf(key), loader.Request{
		Key: key, AtLeast: o.atLeast, ETag: o.held.etag, Version: o.held.version,
	})
	if err != nil {
		c.metrics.Loads.WithLabelValues(loadFailed).Inc()
		return r, 0, err
	}
	v := c.Offer(key, o.lease, o.held, r, 0)
	c.metrics.load(v)
	return r, v, nil
}
