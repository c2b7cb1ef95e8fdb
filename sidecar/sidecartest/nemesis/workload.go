package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

const (
	nearKeys  = 24                     // read and written by NEAR commands, with versions
	plainKeys = 8                      // by GET, SET and DEL
	tight     = 200 * time.Millisecond // staleness that MAXSTALE reads take
	shortLife = 400 * time.Millisecond // of some entries, at most

	latePublish = 200 * time.Millisecond // after the commit, of some writes, at most
)

func keyNames() (near, plain []string) {
	for i := range nearKeys {
		near = append(near, fmt.Sprintf("near:%d", i))
	}
	for i := range plainKeys {
		plain = append(plain, fmt.Sprintf("plain:%d", i))
	}
	return near, plain
}

// worker is one client of the application. It is for one goroutine.
type worker struct {
	*run
	rng *rand.Rand
}

// chance is true once in n times.
func (w *worker) chance(n int) bool { return w.rng.IntN(n) == 0 }

// span returns a duration below d.
func (w *worker) span(d time.Duration) time.Duration { return time.Duration(w.rng.Int64N(int64(d))) }

// key prefers low numbers, so that clients meet, and the hot key while there is
// one.
func (w *worker) key(of []string) string {
	if hot := w.hot.Load(); hot != nil && strings.HasPrefix(*hot, of[0][:4]) && !w.chance(5) {
		return *hot
	}
	return of[min(w.rng.IntN(len(of)), w.rng.IntN(len(of)))]
}

// reader reads through one sidecar until ctx ends. An eager one never waits for
// the freshness that it asks for: most of what is served while NATS is away is
// served to these.
func (w *worker) reader(ctx context.Context, s *sidecar, eager bool) {
	var c *client
	for ctx.Err() == nil {
		err := error(nil)
		if c == nil {
			c, err = s.dial(ctx)
		}
		if err == nil {
			err = w.readOne(ctx, c, w.key(w.near), eager)
		}
		if !answered(err) {
			w.counts.add("unreachable", 1)
			closed(c)
			c = nil
			wait(pause, ctx.Done())
		}
		wait(w.span(6*time.Millisecond), ctx.Done())
	}
	closed(c)
}

// hopper reads the same key STRONG through one sidecar after the other until ctx
// ends, as a user does whose requests go to different pods (C12).
func (w *worker) hopper(ctx context.Context) {
	clients := make([]*client, len(w.sidecars))
	for ctx.Err() == nil {
		key := w.key(w.near)
		for _, i := range w.rng.Perm(len(w.sidecars)) {
			err := error(nil)
			if clients[i] == nil {
				clients[i], err = w.sidecars[i].dial(ctx)
			}
			if err == nil {
				err = w.readNear(ctx, clients[i], key, strong, false)
			}
			if !answered(err) {
				closed(clients[i])
				clients[i] = nil
			}
		}
		wait(w.span(6*time.Millisecond), ctx.Done())
	}
	for _, c := range clients {
		closed(c)
	}
}

// closed closes a client, if there is one. Errors of closing a broken connection
// are no news.
func closed(c *client) {
	if c != nil {
		_ = c.close()
	}
}

// readOne reads in some mode.
func (w *worker) readOne(ctx context.Context, c *client, key string, eager bool) error {
	if w.chance(25) { // a local drop, which like an eviction must leave a fence (C4)
		if _, err := c.do(ctx, "PEXPIRE", key, "-1"); err != nil {
			w.failed("PEXPIRE", err)
			return err
		}
	}
	switch n := w.rng.IntN(10); {
	case n == 0:
		return w.readPlain(ctx, c, w.key(w.plain))
	case n < 3:
		return w.readNear(ctx, c, key, anyFresh, eager)
	case n < 6:
		return w.readNear(ctx, c, key, maxStale, eager)
	case n < 8 || eager:
		return w.readNear(ctx, c, key, atLeast, eager)
	default:
		return w.readNear(ctx, c, key, strong, false)
	}
}

// readNear reads a versioned key, and loads and fills it on a miss.
func (w *worker) readNear(ctx context.Context, c *client, key string, m mode, eager bool) error {
	bound := time.Duration(0)
	if m == maxStale {
		bound = tight
	}
	r := w.judge.reading(key, m, c.life, bound, w.chance(2))
	if m == atLeast && r.token.text == "" {
		return nil
	}
	if eager {
		r.wait = 0
	}
	a, applied, err := c.get(ctx, r, m != strong && w.chance(3))
	if err != nil {
		w.drop(r)
		w.failed(string(m), err)
		return err
	}
	w.counts.add(string(m)+" "+a.status, 1)
	switch a.status {
	case "HIT":
		return w.hit(r, a, applied)
	case "MISS":
		return w.load(ctx, c, r, a.lease)
	case "REGULAR":
		w.judge.broken("I6", "%v answers REGULAR for %s, whose fills all carry versions", c.life, key)
	}
	w.drop(r)
	return nil
}

func (w *worker) hit(r read, a answer, applied bus.Position) error {
	version, err := versionOf(r.key, a.value)
	if err == nil && version != a.version {
		err = fmt.Errorf("the value of %s is that of version %d, the answer says %d", r.key, version, a.version)
	}
	if err != nil {
		w.judge.broken("I10", "%v: %v", r.life, err)
		w.drop(r)
		return nil
	}
	w.judge.served(r, a.version, a.token, applied)
	return nil
}

// drop ends a read that returned nothing.
func (w *worker) drop(r read) {
	if r.mode == strong {
		w.judge.dropped(r)
	}
}

// load reads the origin, takes its time, and offers what it read.
func (w *worker) load(ctx context.Context, c *client, r read, lease string) error {
	version := w.origin.read(r.key)
	w.linger(ctx, time.Duration(w.hold.Load()))
	var ttl time.Duration
	if w.chance(2) { // entries that end soon make one sidecar load what another still holds
		ttl = w.span(shortLife)
	}
	stored, err := c.fill(ctx, r.key, lease, version, ttl)
	if err != nil {
		w.drop(r)
		w.failed("FILL", err)
		return err
	}
	outcome := "rejected"
	if stored {
		outcome = "stored"
	}
	w.counts.add("FILL "+outcome, 1)
	if r.mode == strong {
		w.judge.loaded(r, version)
	}
	return nil
}

// linger is how long a load is on its way back from the origin: the worst time
// for events to come. Some take up to hold.
func (w *worker) linger(ctx context.Context, hold time.Duration) {
	d := 3 * time.Millisecond
	switch {
	case hold > 0 && w.chance(4):
		d = hold
	case w.chance(20):
		d = 300 * time.Millisecond
	}
	wait(w.span(d), ctx.Done())
}

// readPlain is cache-aside code: GET, on a miss load and SET.
func (w *worker) readPlain(ctx context.Context, c *client, key string) error {
	r := w.judge.reading(key, plain, c.life, plainBound, false)
	value, ok, applied, err := c.plainGet(ctx, key, w.chance(3))
	switch {
	case err != nil:
		w.failed("GET", err)
		return err
	case ok:
		w.counts.add("GET hit", 1)
		version, err := versionOf(key, value)
		if err != nil {
			w.judge.broken("I10", "%v: %v", c.life, err)
			return nil
		}
		w.judge.served(r, version, "", applied)
		return nil
	}
	w.counts.add("GET miss", 1)
	version := w.origin.read(key)
	w.linger(ctx, 0) // with what a sidecar's pause adds it must stay below the fill window (C3)
	_, err = c.do(ctx, "SET", key, valueOf(key, version))
	if err != nil {
		w.failed("SET", err)
	}
	return err
}

// failed counts an error by what it says first.
func (w *worker) failed(what string, err error) {
	code := "no answer"
	if answered(err) {
		code, _, _ = strings.Cut(err.Error(), " ")
	}
	w.counts.add(what+" failed: "+code, 1)
}

// writer writes until ctx ends, at home if it can. What it has begun it goes on
// trying until grace ends.
func (w *worker) writer(ctx, grace context.Context, home int) {
	for ctx.Err() == nil {
		if w.chance(4) {
			w.write(grace, w.key(w.plain), home, false)
		} else {
			w.write(grace, w.key(w.near), home, true)
		}
		if w.hot.Load() == nil {
			wait(w.span(40*time.Millisecond), ctx.Done())
		}
	}
}

// write commits and publishes, through whatever sidecar, until one has
// acknowledged it.
func (w *worker) write(ctx context.Context, key string, home int, versioned bool) {
	x := w.judge.writing(key, versioned)
	x.version = w.origin.commit(key)
	update := versioned && w.chance(6)
	if w.chance(3) { // slow between commit and publish: others load what nobody knows of
		wait(w.span(latePublish), ctx.Done())
	}
	for i := home; ; i = w.rng.IntN(len(w.sidecars)) {
		p, token, err := w.publish(ctx, w.sidecars[i], x, versioned, update)
		if err == nil {
			w.judge.wrote(x, p, token, versioned)
			w.counts.add("writes", 1)
			return
		}
		w.failed("write", err)
		if !wait(pause, ctx.Done()) {
			w.unknown.add(x)
			return
		}
	}
}

// publish tries a write once, on a connection of its own.
func (w *worker) publish(ctx context.Context, s *sidecar, x write, versioned, update bool) (p bus.Position, token string, err error) {
	c, err := s.dial(ctx)
	if err != nil {
		return p, "", err
	}
	defer closed(c)
	if !versioned && w.chance(2) {
		if _, err = c.do(ctx, "DEL", x.key); answered(err) {
			w.judge.tried(x, c.life)
		}
		if err == nil { // a DEL is answered when it is applied: then it is at or below this
			if st, err := c.status(ctx); err == nil {
				p = st.applied
			}
		}
		return p, "", err
	}
	version := x.version
	if !versioned {
		version = 0
	}
	token, err = c.invalidate(ctx, x.key, version, update)
	if answered(err) {
		w.judge.tried(x, c.life)
	}
	if err != nil {
		return p, "", err
	}
	p, err = bus.ParseToken(token)
	return p, token, err
}
