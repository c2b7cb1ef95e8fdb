package nemesis

import (
	"context"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// change is what one event makes known: writes that were committed.
type change struct {
	name      string // of its kind
	writes    []write
	versioned bool
	// send publishes it once. It returns the position if that is known, and the
	// token if there is one.
	send func(context.Context, *client) (bus.Position, string, error)
	// byApp publishes it once through the SDK. nil: it is not to be.
	byApp func(context.Context, *appClient) (bus.Position, string, error)
}

func (c *change) add(x write) { c.writes = append(c.writes, x) }

// writer writes until ctx ends, at home if it can. What it has begun it goes on
// trying until grace ends.
func (w *worker) writer(ctx, grace context.Context, home int) {
	for ctx.Err() == nil {
		switch n := w.rng.IntN(16); {
		case n < 4:
			w.write(grace, w.key(w.plain), home)
		case n < 6:
			w.writePages(grace, home)
		case n < 11 && (w.web.down.Load() == nil || w.chance(10)): // who cannot be read, can hardly be written
			w.write(grace, w.key(w.loaded), home)
		default:
			w.write(grace, w.key(w.near), home)
		}
		if w.hot.Load() == nil {
			wait(w.span(40*time.Millisecond), ctx.Done())
		}
	}
}

// write commits a new version of a key and publishes it in one of the ways that
// its namespace is written in.
func (w *worker) write(ctx context.Context, key string, home int) {
	if s := spaceOf(key); s != nil {
		w.writeLoaded(ctx, s, key, home)
		return
	}
	c := change{versioned: versioned(key)}
	c.add(w.judge.writing(key, c.versioned))
	x := &c.writes[0]
	x.version = w.origin.commit(key)
	version := x.version
	switch {
	case isPage(key) || c.versioned && w.chance(6):
		c.name = "UPDATE"
		c.send = func(ctx context.Context, to *client) (bus.Position, string, error) {
			return to.acknowledged(ctx, []string{"NEAR.UPDATE", key, formatUint(version), valueOf(found{key: key, version: version})})
		}
	case !c.versioned && w.chance(2):
		c.name = "DEL"
		c.send = func(ctx context.Context, to *client) (bus.Position, string, error) {
			p, err := to.del(ctx, key)
			return p, "", err
		}
	default:
		c.name = "INVALIDATE"
		if !c.versioned {
			version = 0
		}
		c.send = func(ctx context.Context, to *client) (bus.Position, string, error) {
			return to.acknowledged(ctx, []string{"NEAR.INVALIDATE", "KEYS", "1", key, formatUint(version)})
		}
		c.byApp = func(ctx context.Context, to *appClient) (bus.Position, string, error) {
			return to.invalidate(ctx, key, version)
		}
	}
	w.announce(ctx, home, c)
}

// announce publishes what was committed, through whatever sidecar, until one has
// acknowledged it.
func (w *worker) announce(ctx context.Context, home int, c change) {
	if w.chance(3) { // slow between commit and publish: others load what nobody knows of
		wait(w.span(latePublish), ctx.Done())
	}
	for i := home; ; i = w.rng.IntN(len(w.sidecars)) {
		p, token, err := w.publish(ctx, i, c)
		if err == nil {
			for _, x := range c.writes {
				w.judge.wrote(x, p, token, c.versioned)
			}
			w.counts.add("write "+c.name, 1)
			return
		}
		w.failed("write", err)
		if !wait(pause, ctx.Done()) {
			for _, x := range c.writes {
				w.unknown.add(x)
			}
			return
		}
	}
}

// publish tries once through the i-th sidecar, by its app or on a connection of its own.
func (w *worker) publish(ctx context.Context, i int, c change) (p bus.Position, token string, err error) {
	if c.byApp != nil && w.chance(3) {
		to, err := w.apps[i].client()
		if err != nil {
			return p, "", err
		}
		p, token, err = c.byApp(ctx, to)
		w.tried(c, to.life, err)
		return p, token, err
	}
	to, err := w.sidecars[i].dial(ctx)
	if err != nil {
		return p, "", err
	}
	defer closed(to)
	p, token, err = c.send(ctx, to)
	w.tried(c, to.life, err)
	return p, token, err
}

func (w *worker) tried(c change, l life, err error) {
	if answered(err) {
		for _, x := range c.writes {
			w.judge.tried(x, l)
		}
	}
}

// rewrite writes a key that somebody could not write.
func (w *worker) rewrite(ctx context.Context, key string) {
	if isPage(key) {
		w.purge(ctx, 0, "NAMESPACE", w.pages, []string{"NAMESPACE", pageSpace})
		return
	}
	w.write(ctx, key, 0)
}
