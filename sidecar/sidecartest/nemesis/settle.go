package nemesis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// settle waits until every sidecar has applied everything, and compares (I3).
func (r *run) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	began := time.Now()
	w := r.worker(99)
	for _, x := range r.unknown.list() { // a write is done when it is published
		w.rewrite(ctx, x.key)
	}
	for _, s := range r.sidecars {
		if err := s.ready(ctx); err != nil {
			return err
		}
	}
	for _, s := range r.sidecars {
		if err := r.caughtUp(ctx, s); err != nil {
			return err
		}
	}
	r.healed = time.Since(began)
	for _, a := range r.apps {
		if err := r.compareApp(ctx, a); err != nil {
			return fmt.Errorf("comparing the L0 of the app of %s with the origin: %w", a.sidecar.name, err)
		}
	}
	for _, s := range r.sidecars {
		if err := r.compare(ctx, s); err != nil {
			return fmt.Errorf("comparing %s with the origin: %w", s.name, err)
		}
	}
	return nil
}

// caughtUp waits for a barrier of the sidecar's own.
func (r *run) caughtUp(ctx context.Context, s *sidecar) error {
	for {
		c, err := s.dial(ctx)
		if err == nil {
			_, err = c.do(ctx, "NEAR.BARRIER")
			_ = c.close()
		}
		if err == nil {
			return nil
		}
		if !wait(pause, ctx.Done()) {
			return fmt.Errorf("%s has no barrier though all is healed: %w: %s", s.name, err, s.tail())
		}
	}
}

// compare looks at every entry. Nothing is committed meanwhile.
func (r *run) compare(ctx context.Context, s *sidecar) (err error) {
	c, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	st, err := c.status(ctx)
	if err != nil {
		return err
	}
	for kind, n := range st.trouble {
		r.counts.add("bus "+kind+" in the sidecars' last lives", n)
	}
	for _, key := range slices.Concat(r.near, r.plain, r.pages) {
		value, ok, _, err := c.plainGet(ctx, key, false)
		if err != nil {
			return err
		}
		if ok {
			r.holds(c.life, key, value)
		}
	}
	for _, key := range r.loaded {
		if err := r.compareLoaded(ctx, c, key); err != nil {
			return err
		}
	}
	return nil
}

// holds compares a value.
func (r *run) holds(l life, key, value string) {
	r.entries++
	f, err := foundIn(key, value)
	if newest := r.origin.read(key); err != nil || newest.absent || f.version != newest.version {
		r.judge.broken("I3", "%v holds version %d of %s after everything was applied, the origin has %d (absent: %t; %v)",
			l, f.version, key, newest.version, newest.absent, err)
	}
}

// loadableWithin is how long it may take until a key can be loaded again.
const loadableWithin = 10 * time.Second

// compareLoaded compares what is held of a key that sidecars load, and then what is
// answered to a plain reader, for whom it is loaded.
func (r *run) compareLoaded(ctx context.Context, c *client, key string) error {
	a, _, err := c.get(ctx, read{key: key, mode: anyFresh}, false)
	if err != nil {
		return err
	}
	newest := r.origin.read(key)
	switch a.status {
	case "HIT", "STALE":
		r.holds(c.life, key, a.value)
	case "NEGATIVE":
		r.entries++
		if !newest.absent || a.version != 0 && a.version != newest.version {
			r.judge.broken("I3", "%v holds that there was no %s at version %d, after everything was applied; the origin has %d (absent: %t)",
				c.life, key, a.version, newest.version, newest.absent)
		}
	}
	limit, cancel := context.WithTimeout(ctx, loadableWithin)
	defer cancel()
	for {
		value, ok, _, err := c.plainGet(ctx, key, false)
		switch {
		case err != nil:
			return err
		case ok:
			r.holds(c.life, key, value)
			return nil
		case newest.absent:
			return nil
		case !wait(pause, limit.Done()): // a breaker may be open still
			why, err := c.do(ctx, "NEAR.EXPLAIN", key)
			r.judge.broken("I3", "%v loads no %s though all is healed: %v (%v)", c.life, key, fieldsOf(why), err)
			return nil
		}
	}
}
