package nemesis

import (
	"context"

	"github.com/nearside-cache/nearside/bus"
)

// modeOf is what a read of the key is to be judged by that asks for a mode: without
// versions STRONG promises less.
func modeOf(key string, m mode) mode {
	if m == strong && !versioned(key) {
		return regular
	}
	return m
}

// classMode is what a read of a loaded key is to be judged by that asks for no mode.
func classMode(key string) mode {
	if spaceOf(key).bound == 0 {
		return critical
	}
	return plain
}

// readLoaded reads what sidecars load: as a Redis client, by NEAR.GET with a mode or as
// the class says, or as one that waits for no load and loads by itself.
func (w *worker) readLoaded(ctx context.Context, s *sidecar, c *client, key string, eager bool) error {
	m := modeOf(key, w.mode(eager))
	switch w.rng.IntN(6) {
	case 0, 1:
		return w.readThrough(ctx, s, c, key)
	case 2:
		m = classMode(key)
	}
	return w.readNear(ctx, c, key, m, !m.linear() && m != regular && (eager || w.chance(4)))
}

// readStrong reads STRONG, where the class makes that of a plain GET half of the time by
// one.
func (w *worker) readStrong(ctx context.Context, s *sidecar, c *client, key string) error {
	if space := spaceOf(key); space != nil && space.bound == 0 && w.chance(2) {
		return w.readThrough(ctx, s, c, key)
	}
	return w.readNear(ctx, c, key, modeOf(key, strong), false)
}

// readThrough is a Redis client's GET. Of null it cannot tell whether there is no value
// or the load failed; in a namespace without versions it then loads and offers a SET.
func (w *worker) readThrough(ctx context.Context, s *sidecar, c *client, key string) error {
	space := spaceOf(key)
	if !space.versioned {
		return w.readPlain(ctx, c, s, key)
	}
	m := classMode(key)
	r := w.judge.reading(key, m, c.life, space.bound, false)
	value, ok, applied, err := c.plainGet(ctx, key, m == plain && w.chance(3))
	if err != nil {
		w.judge.dropped(r)
		w.failed("GET", err)
		return err
	}
	if !ok {
		w.counts.add("GET of what is loaded: miss", 1)
		w.judge.dropped(r)
		return nil
	}
	w.counts.add("GET of what is loaded: hit", 1)
	w.told(r, value, applied)
	return nil
}

// writeLoaded commits a new version of a key that sidecars load, or deletes it, and
// publishes that in some way.
func (w *worker) writeLoaded(ctx context.Context, s *space, key string, home int) {
	if s.shared && s.tagged && w.chance(60) {
		w.purge(ctx, home, "PREFIX of what is shared", s.keys(), []string{"PREFIX", s.name + ":"})
		return
	}
	c := change{versioned: s.versioned}
	c.add(w.judge.writing(key, c.versioned))
	x, absent := &c.writes[0], w.chance(3)
	if absent {
		x.version = w.origin.remove(key)
	} else {
		x.version = w.origin.commit(key)
	}
	words := w.words(&c, s, *x, absent)
	if c.send == nil {
		c.send = func(ctx context.Context, to *client) (bus.Position, string, error) {
			return to.acknowledged(ctx, words)
		}
	}
	if absent {
		c.name += " of a deletion"
	}
	w.announce(ctx, home, c)
}

// words chooses how a write is told, names that, and returns the command, or sets the
// change's own way to send it.
func (w *worker) words(c *change, s *space, x write, absent bool) []string {
	told := x.version
	if !s.versioned {
		told = 0
	}
	invalidate := []string{"NEAR.INVALIDATE", "KEYS", "1", x.key, formatUint(told)}
	switch n := w.rng.IntN(10); {
	case n == 0:
		c.name = "DEL"
		c.send = func(ctx context.Context, to *client) (bus.Position, string, error) {
			p, err := to.del(ctx, x.key)
			return p, "", err
		}
		return nil
	case n == 1 && s.tagged:
		c.name = "TAGS"
		return []string{"NEAR.INVALIDATE", "TAGS", "1", tagOf(x.key)}
	case n < 4 && !absent:
		c.name = "UPDATE"
		return []string{"NEAR.UPDATE", x.key, formatUint(x.version), valueOf(found{key: x.key, version: x.version})}
	case n < 7:
		c.name = "REFRESH"
		return append(invalidate, "REFRESH")
	}
	c.name = "INVALIDATE"
	return invalidate
}
