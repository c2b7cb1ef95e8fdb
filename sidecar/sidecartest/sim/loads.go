package sim

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/loader"
)

// background runs what a process's cache does in the background as an actor.
func (p *process) background(f func()) {
	p.running++
	p.w.spawn(func(*actor) {
		f()
		p.running--
		for _, a := range p.waiting {
			a.wake()
		}
		p.waiting = nil
		p.close()
	})
}

// wait is cache.Config's.
func (p *process) wait(_ context.Context, done <-chan struct{}, atMost time.Duration) bool {
	for end := p.w.now + atMost; ; {
		select {
		case <-done:
			return true
		default:
		}
		if p.w.now >= end || !p.pass(p.w.acting, time.Millisecond) {
			return false
		}
	}
}

// close gives the memory back once the process has ended and nothing runs any more.
func (p *process) close() {
	if p.ended && p.running == 0 {
		_ = p.cache.Close() // reads miss from now on
	}
}

// load is Cache.Load, for a reader with some patience.
func (p *process) load(a *actor, key string) error {
	loading, err := p.cache.BeginLoad(key)
	if err != nil {
		return err
	}
	for end := p.w.now + within(p.w.rng, 50*time.Millisecond, time.Second); p.w.now < end; {
		select {
		case <-loading.Done():
			return loading.Err()
		default:
		}
		p.waiting = append(p.waiting, a)
		if !a.wait(end-p.w.now) || p.dead {
			return errDead
		}
	}
	return loader.ErrSlow
}

// source is the origin as the loaders of one process ask it.
type source struct{ p *process }

// tries is how often a loader asks for a version that it knows of.
const tries = 3

// Load implements cache.Origins as loader.Set does, and answers now and then what that
// would never: a version older than the one that is wanted at least.
func (s source) Load(_ context.Context, _ string, r loader.Request) (loader.Result, error) {
	p, w := s.p, s.p.w
	if p.loading[r.Key] {
		w.check.fail("I13", "%v loads %s twice at once", p, r.Key)
	}
	p.loading[r.Key] = true
	defer delete(p.loading, r.Key)
	for range tries {
		id, err := s.ask(r)
		if err != nil {
			w.trace("%v: loading %s fails: %v", p, r.Key, err)
			return loader.Result{}, err
		}
		v := w.contents[id].version
		if r.AtLeast == 0 || v == 0 || v >= r.AtLeast || w.chance(0.1) {
			w.check.counts.Loads++
			return s.answer(id, r), nil
		}
	}
	return loader.Result{}, loader.ErrTooOld
}

// ask has the origin, or its replica, make the value of a key now, or find that it is
// what the request's ETag says.
func (s source) ask(r loader.Request) (id int, err error) {
	p, w, a := s.p, s.p.w, s.p.w.acting
	if !p.pass(a, loadTime(w.rng)) || w.now < w.originSlow && !p.pass(a, within(w.rng, 0, 2*time.Second)) {
		return 0, errDead
	}
	if w.now < w.originDown || !w.calm && w.chance(0.05) {
		return 0, loader.ErrFailed
	}
	m, ok := w.load(a, p, r.Key, policies.OfKey(r.Key).ReplicaLag == 0, w.rng)
	if !ok {
		return 0, errDead
	}
	c := content{key: r.Key, parts: m.parts, tags: m.tags, depends: m.depends, absent: w.origin.absent(r.Key, m.parts[0].n)}
	if n := m.parts[0].n; mayVersion(r.Key, w.rng) && !(c.absent && w.chance(0.5)) { // few 404 have a version
		c.version = w.origin.version(r.Key, n)
	}
	id = w.tagged(r.ETag)
	if id == 0 || !slices.Equal(w.contents[id].parts, c.parts) {
		id = w.value(c)
	}
	w.trace("%v: the origin reads %s", p, w.describe(id))
	if !p.pass(a, loadTime(w.rng)) {
		return 0, errDead
	}
	return id, nil
}

// answer is what the origin says of a value. From here on the process may hold it.
func (s source) answer(id int, r loader.Request) loader.Result {
	w, c := s.p.w, s.p.w.contents[id]
	ttl := ttlOf(w.rng)
	s.p.watch.stored(c.key, id, ttl)
	if w.tagged(r.ETag) == id {
		w.check.counts.Confirmed++
		return loader.Result{NotModified: true, Version: r.Version, ETag: r.ETag, TTL: ttl.For, Tags: c.tags}
	}
	result := loader.Result{
		Value: c.text, Version: c.version, TTL: ttl.For, Tags: c.tags, Depends: c.depends, Negative: c.absent,
	}
	if w.chance(0.7) {
		result.ETag = fmt.Sprintf("#%d", id)
	}
	return result
}

// tagged is the number of the value that an ETag stands for, 0 for none.
func (w *world) tagged(etag string) (id int) {
	_, _ = fmt.Sscanf(etag, "#%d", &id)
	return id
}

// find looks at what the cache of p holds for a plain reader.
func (p *process) find(key string, failed bool) ([]byte, cache.Found) {
	if failed {
		return p.cache.ReadStale(key, nil, p.cache.Now())
	}
	return p.cache.Read(key, nil, p.cache.Now())
}
