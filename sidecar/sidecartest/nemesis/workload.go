package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
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

func keyNames() (near, plain, pages, loaded []string) {
	for i := range nearKeys {
		near = append(near, fmt.Sprintf("%s:%d", nearSpace, i))
	}
	for i := range plainKeys {
		plain = append(plain, fmt.Sprintf("plain:%d", i))
	}
	return near, plain, pageNames(), loadedNames()
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
	if hot := w.hot.Load(); hot != nil && slices.Contains(of, *hot) && !w.chance(5) {
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
			err = w.readKey(ctx, s, c, w.any(), eager)
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
		if w.chance(2) {
			key = w.key(w.loaded)
		}
		for _, i := range w.rng.Perm(len(w.sidecars)) {
			err := error(nil)
			if clients[i] == nil {
				clients[i], err = w.sidecars[i].dial(ctx)
			}
			if err == nil {
				err = w.readStrong(ctx, w.sidecars[i], clients[i], key)
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

// any returns some key.
func (w *worker) any() string {
	switch n := w.rng.IntN(16); {
	case n == 0:
		return w.key(w.plain)
	case n < 3:
		return w.key(w.pages)
	case n < 6:
		return w.key(w.loaded)
	case n < 9: // those too that are seldom written: what is loaded of them grows old
		return w.loaded[w.rng.IntN(len(w.loaded))]
	}
	return w.key(w.near)
}

// readKey reads a key in some mode.
func (w *worker) readKey(ctx context.Context, s *sidecar, c *client, key string, eager bool) error {
	if w.chance(25) { // a local drop, which like an eviction must leave a fence (C4)
		if _, err := c.do(ctx, "PEXPIRE", key, "-1"); err != nil {
			w.failed("PEXPIRE", err)
			return err
		}
	}
	switch {
	case spaceOf(key) != nil:
		return w.readLoaded(ctx, s, c, key, eager)
	case isPage(key):
		return w.readPage(ctx, c, key, eager)
	case !isNear(key):
		return w.readPlain(ctx, c, s, key)
	}
	m := w.mode(eager)
	return w.readNear(ctx, c, key, m, eager && m != strong)
}

// mode returns some mode of NEAR.GET.
func (w *worker) mode(eager bool) mode {
	switch n := w.rng.IntN(9); {
	case n < 2:
		return anyFresh
	case n < 5:
		return maxStale
	case n < 7 || eager:
		return atLeast
	}
	return strong
}

// reader is a client that says how fresh a read must be.
type reader interface {
	of() life
	// get reads. With rest it says what was applied before, if that is known.
	get(ctx context.Context, r read, rest bool) (a answer, applied bus.Position, err error)
	fill(ctx context.Context, o offer) (stored bool, err error)
}

// readNear reads a key by NEAR.GET, and loads and fills it on a miss.
func (w *worker) readNear(ctx context.Context, c reader, key string, m mode, eager bool) error {
	bound := time.Duration(0)
	switch m {
	case maxStale:
		bound = tight
	case regular:
		bound = 1 // acknowledged before the call is all that it asks for
	case plain:
		bound = plainBound(key)
	}
	r := w.judge.reading(key, m, c.of(), bound, w.chance(2))
	if m == atLeast && r.token.text == "" {
		return nil
	}
	if eager {
		r.wait = 0
	}
	a, applied, err := c.get(ctx, r, !m.linear() && w.chance(3))
	if err != nil {
		w.judge.dropped(r)
		w.failed(string(m), err)
		return err
	}
	if a.byL0 {
		w.counts.add(answersByL0, 1)
		w.counts.add(string(m)+" by L0 "+a.status, 1)
	} else {
		w.counts.add(string(m)+" "+a.status, 1)
	}
	switch a.status {
	case "HIT", "STALE", "NEGATIVE", "REGULAR":
		if w.now.harms() > 0 {
			w.counts.add(string(m)+" "+a.status+" while a server or a sidecar was harmed", 1)
		}
		if a.status == "REGULAR" && m != regular {
			w.judge.broken("I6", "%v answers REGULAR for %s, whose fills all carry versions", c.of(), key)
		}
		return w.hit(r, a, applied)
	case "MISS":
		return w.load(ctx, c, r, a.lease)
	}
	w.judge.dropped(r)
	return nil
}

func (w *worker) hit(r read, a answer, applied bus.Position) error {
	x := seen{version: a.version, absent: a.status == "NEGATIVE", old: a.status == "STALE", token: a.token, byL0: a.byL0}
	if !x.absent {
		f, err := foundIn(r.key, a.value)
		if err == nil && f.version != a.version && (a.version != 0 || versioned(r.key)) {
			err = fmt.Errorf("the value of %s is that of version %d, the answer says %d", r.key, f.version, a.version)
		}
		if err != nil {
			w.judge.broken("I10", "%v: %v", r.life, err)
			w.judge.dropped(r)
			return nil
		}
		x.version, x.serial = f.version, f.serial
	}
	if a.version == 0 {
		x.token = "" // it promises nothing of what has no version (I2)
	}
	w.served(r, x, applied)
	return nil
}

// served has an answer judged and counts what it is an example of.
func (w *worker) served(r read, x seen, applied bus.Position) {
	if s := spaceOf(r.key); s != nil {
		switch {
		case x.absent:
			w.counts.add(negativeAnswers, 1)
		case x.old && s.onError == 0:
			w.counts.add(whileRevalidating, 1)
		case x.old && s.revalidate == 0:
			w.counts.add(whileFailing, 1)
		}
		if s.shared && w.judge.fromElsewhere(r, x) {
			w.counts.add(sharedAnswers, 1)
		}
	}
	w.judge.served(r, x, applied)
}

// load reads the origin, takes its time, and offers what it read.
func (w *worker) load(ctx context.Context, c reader, r read, lease string) error {
	f := w.origin.read(r.key)
	w.linger(ctx, time.Duration(w.hold.Load()))
	var ttl time.Duration
	if w.chance(2) { // entries that end soon make one sidecar load what another still holds
		ttl = w.span(shortLife)
	}
	w.judge.given(f, c.of().name) // others may read it before the answer is here
	stored, err := c.fill(ctx, offer{
		found: f, lease: lease, ttl: ttl, hangs: hangsOn(r.key),
		unversioned: !versioned(r.key) && (r.mode == regular || w.chance(2)),
	})
	if err != nil {
		w.judge.dropped(r)
		w.failed("FILL", err)
		return err
	}
	if stored {
		w.judge.given(f, c.of().name)
		w.counts.add("FILL stored", 1)
	} else {
		w.judge.refused(f, c.of())
		w.counts.add(rejectedFills, 1)
	}
	if r.mode.linear() {
		w.judge.loaded(r, f.version)
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
	r := w.judge.reading(key, plain, c.life, plainBound(key), false)
	value, ok, applied, err := c.plainGet(ctx, key, w.chance(3))
	switch {
	case err != nil:
		w.failed("GET", err)
		return err
	case ok:
		w.counts.add("GET hit", 1)
		w.told(r, value, applied)
		return nil
	}
	w.counts.add("GET miss", 1)
	f := w.origin.read(key)
	w.linger(ctx, 0) // with what a sidecar's pause adds it must stay below the fill window (C3)
	if f.absent {
		return nil
	}
	if _, err = c.do(ctx, "SET", key, valueOf(f)); err != nil {
		w.failed("SET", err)
		return err
	}
	w.judge.given(f, c.life.name)
	return nil
}

// told judges the value of a GET.
func (w *worker) told(r read, value string, applied bus.Position) {
	f, err := foundIn(r.key, value)
	if err != nil {
		w.judge.broken("I10", "%v: %v", r.life, err)
		w.judge.dropped(r)
		return
	}
	w.served(r, seen{version: f.version, serial: f.serial}, applied)
}

// failed counts an error by what it says first.
func (w *worker) failed(what string, err error) {
	code := "no answer"
	if answered(err) {
		code, _, _ = strings.Cut(err.Error(), " ")
	}
	w.counts.add(what+" failed: "+code, 1)
}
