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
	nearSpace = "near"                 // namespace of near keys
	nearKeys  = 24                     // read and written by NEAR commands, with versions
	plainKeys = 8                      // by GET, SET and DEL
	tight     = 200 * time.Millisecond // staleness that MAXSTALE reads take
	shortLife = 400 * time.Millisecond // of some entries, at most

	latePublish = 200 * time.Millisecond // after the commit, of some writes, at most
)

func isNear(key string) bool { return strings.HasPrefix(key, nearSpace+":") }

func keyNames() (near, plain, pages []string) {
	for i := range nearKeys {
		near = append(near, fmt.Sprintf("%s:%d", nearSpace, i))
	}
	for i := range plainKeys {
		plain = append(plain, fmt.Sprintf("plain:%d", i))
	}
	return near, plain, pageNames()
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
			err = w.readOne(ctx, s, c, w.key(w.near), eager)
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
func (w *worker) readOne(ctx context.Context, s *sidecar, c *client, key string, eager bool) error {
	if w.chance(25) { // a local drop, which like an eviction must leave a fence (C4)
		if _, err := c.do(ctx, "PEXPIRE", key, "-1"); err != nil {
			w.failed("PEXPIRE", err)
			return err
		}
	}
	switch n := w.rng.IntN(12); {
	case n == 0:
		return w.readPlain(ctx, c, s, w.key(w.plain))
	case n > 9:
		return w.readPage(ctx, c, w.key(w.pages), eager)
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

// readNear reads a key by NEAR.GET, and loads and fills it on a miss.
func (w *worker) readNear(ctx context.Context, c *client, key string, m mode, eager bool) error {
	bound := time.Duration(0)
	switch m {
	case maxStale:
		bound = tight
	case regular:
		bound = 1 // acknowledged before the call is all that it asks for
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
	case "HIT", "REGULAR":
		if w.now.harms() > 0 {
			w.counts.add(string(m)+" "+a.status+" while a server or a sidecar was harmed", 1)
		}
		if a.status == "REGULAR" && m != regular {
			w.judge.broken("I6", "%v answers REGULAR for %s, whose fills all carry versions", c.life, key)
		}
		return w.hit(r, a, applied)
	case "MISS":
		return w.load(ctx, c, r, a.lease)
	}
	w.drop(r)
	return nil
}

func (w *worker) hit(r read, a answer, applied bus.Position) error {
	version, err := versionOf(r.key, a.value)
	if err == nil && version != a.version && (a.version != 0 || !isPage(r.key)) {
		err = fmt.Errorf("the value of %s is that of version %d, the answer says %d", r.key, version, a.version)
	}
	if err != nil {
		w.judge.broken("I10", "%v: %v", r.life, err)
		w.drop(r)
		return nil
	}
	if a.version == 0 {
		a.token = "" // it promises nothing of values that have no version (I2)
	}
	w.judge.served(r, version, a.token, applied)
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
	stored, err := c.fill(ctx, offer{
		key: r.key, lease: lease, version: version, ttl: ttl, hangs: hangsOn(r.key),
		unversioned: isPage(r.key) && (r.mode == regular || w.chance(2)),
	})
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

// readPlain is cache-aside code: GET, on a miss load and SET. It leaves a sidecar
// alone that is about to be paused for longer than the fill window.
func (w *worker) readPlain(ctx context.Context, c *client, s *sidecar, key string) error {
	if !s.loads.TryRLock() {
		return nil
	}
	defer s.loads.RUnlock()
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
