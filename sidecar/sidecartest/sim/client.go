package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/coherence"
)

// tokensKept is how many of the newest tokens clients hold.
const tokensKept = 16

func (w *world) keepToken(t token) {
	w.tokens = append(w.tokens, t)
	if len(w.tokens) > tokensKept {
		w.tokens = w.tokens[1:]
	}
}

// up returns the slot's process once it can answer, or nil.
func (s *slot) up(a *actor) *process {
	p := s.process
	if p == nil || !p.pass(a, 0) {
		return nil
	}
	return p
}

// readPlain is a GET, on a miss a load, and a SET within the window (C3).
func (w *world) readPlain(a *actor, s *slot, key string, r *rand.Rand) {
	p, home := s.up(a), s.machine
	if p == nil {
		return
	}
	read := reading{at: w.now, bound: policies.OfKey(key).Bound(), strong: policies.OfKey(key).Critical()}
	if read.strong { // as a session does it (C6)
		err := p.cache.Catch(context.Background(), cache.Mode{Kind: cache.Strong}, key)
		if p.dead || w.over {
			return
		}
		if err != nil {
			p.cache.Missed(key, p.cache.Now())
			w.set(a, s, home, key, r)
			return
		}
	}
	if !w.lookup(a, p, key, read, r) {
		w.check.counts.Misses++
		w.set(a, s, home, key, r)
	}
}

// lookup is GET as a session does it: at once, or after a load. False says that the
// client learned of no value.
func (w *world) lookup(a *actor, p *process, key string, read reading, r *rand.Rand) bool {
	for loads := p.cache.Loads(key) && r.IntN(8) > 0; ; loads = false {
		read.looked = w.now
		value, found := p.find(key, read.failed)
		switch {
		case found == cache.Value || found == cache.Old:
			read.old = found == cache.Old
			w.found(p, key, value, read)
			return true
		case found == cache.Absence:
			w.check.counts.Absent++
			w.check.absence(p, key, 0, false, read)
		case loads:
			read.failed = p.load(a, key) != nil
			if read.strong && p.pass(a, 0) && p.cache.Catch(context.Background(), cache.Mode{Kind: cache.Strong}, key) != nil {
				read.failed = true
			}
			if !p.pass(a, 0) {
				return true // nobody hears of it
			}
			continue
		}
		p.cache.Missed(key, p.cache.Now())
		return false
	}
}

// set loads what was missed just now and SETs it.
func (w *world) set(a *actor, s *slot, home int, key string, r *rand.Rand) {
	missed := w.now
	if !a.sleep(loadTime(r)) {
		return
	}
	n := w.origin.load(key, policies.OfKey(key).Critical())
	w.trace("a reader of s%d loaded %s %d", s.number, key, n)
	if w.origin.absent(key, n) {
		return
	}
	if !a.sleep(loadTime(r)) {
		return
	}
	// Its socket may be another process's by now.
	p := s.up(a)
	if p == nil || s.machine != home || w.now-missed > window*9/10 {
		return
	}
	ttl := ttlOf(r)
	ttl.Keep = !ttl.Asked && r.IntN(8) == 0
	id := w.value(content{key: key, parts: []part{{key: key, n: n}}})
	l := p.watch.term(key, id, ttl, 0)
	v := p.cache.Set(key, w.contents[id].text, ttl)
	w.verdict(p, "SET", id, v, l)
}

// ttlOf is mostly that of the namespace.
func ttlOf(r *rand.Rand) cache.TTL {
	if r.IntN(4) > 0 {
		return cache.TTL{}
	}
	return cache.TTL{Asked: true, For: within(r, time.Millisecond, 4*time.Second)}
}

func (w *world) verdict(p *process, what string, id int, v coherence.Verdict, l term) {
	w.trace("%v: %s %s: %v", p, what, w.describe(id), v)
	if v == coherence.Stored {
		p.watch.keeps(w.contents[id].key, id, l)
		w.check.counts.Stored++
		if len(w.contents[id].parts) > 1 {
			w.check.counts.Derived++
		}
	} else {
		w.check.counts.Rejected++
	}
	w.check.audit(p)
}

// loadTime is mostly short, and sometimes nearly as long as plain SETs bear.
func loadTime(r *rand.Rand) time.Duration {
	if r.IntN(5) == 0 {
		return within(r, 0, window*8/10)
	}
	return within(r, 0, 30*time.Millisecond)
}

func found(a cache.Answer) bool {
	return a.Status == cache.Hit || a.Status == cache.Regular || a.Status == cache.Stale
}

// found takes an answer to a client.
func (w *world) found(p *process, key string, value []byte, read reading) (id int) {
	w.check.counts.Hits++
	if read.old {
		w.check.counts.Old++
	}
	if read.strong {
		w.check.counts.Strong++
	}
	id = w.check.hit(p, key, value, read)
	if w.own(id).update {
		w.check.counts.Updated++
	}
	return id
}

// asked is what one NEAR.GET asks for.
func (w *world) asked(key string, r *rand.Rand) (string, cache.Mode, reading) {
	read := reading{at: w.now, bound: -1}
	mode := cache.Mode{Kind: cache.Any}
	switch r.IntN(8) {
	case 0, 1: // below and above the interval of pulses
		read.bound = []time.Duration{1, 100, 200, 300, 500, 1000, 4000}[r.IntN(7)] * time.Millisecond
		mode = cache.Mode{Kind: cache.MaxStale, MaxStale: read.bound}
	case 2, 3:
		if len(w.tokens) == 0 {
			break
		}
		t := w.tokens[r.IntN(len(w.tokens))]
		if t.since == 0 {
			key = t.key
		}
		read.token = &t
		mode = cache.Mode{Kind: cache.AtLeast, AtLeast: t.text}
		w.check.counts.AtLeast++
	case 4, 5:
		read.bound, read.strong = 0, true
		mode = cache.Mode{Kind: cache.Strong}
	case 6:
		mode.Kind = cache.Class
		read.bound, read.strong = policies.OfKey(key).Bound(), policies.OfKey(key).Critical()
	}
	return key, mode, read
}

// asks names a mode for people.
func asks(m cache.Mode) string {
	switch m.Kind {
	case cache.MaxStale:
		return fmt.Sprintf("MAXSTALE %v", m.MaxStale)
	case cache.AtLeast:
		return fmt.Sprintf("ATLEAST seq %d, fork %d, version %d", m.AtLeast.Position.Seq, m.AtLeast.Position.Epoch.Fork, m.AtLeast.Version)
	case cache.Strong:
		return "STRONG"
	case cache.Class:
		return "class"
	}
	return "ANY"
}

// readNear is NEAR.GET in some mode.
func (w *world) readNear(a *actor, s *slot, key string, r *rand.Rand) {
	if s.up(a) != nil {
		key, mode, read := w.asked(key, r)
		w.get(a, s, key, mode, read, r)
	}
}

// get is NEAR.GET as a session does it: at once, or when what the mode asks for
// holds; and on a miss a load and a fill, held for as long as it may be.
func (w *world) get(a *actor, s *slot, key string, mode cache.Mode, read reading, r *rand.Rand) {
	p, home := s.up(a), s.machine
	if p == nil {
		return
	}
	var tried, loaded, caught bool
	for {
		read.looked = w.now
		value, answer, ok := p.near(a, key, mode, caught, read.failed, r)
		switch {
		case !ok:
			return
		case (answer.Status == cache.Bypassed || answer.Status == cache.Behind) && !tried && r.IntN(5) > 0:
			tried, caught = true, w.catch(a, p, mode, key)
		case answer.Status == cache.Miss && !loaded && p.cache.Loads(key) && r.IntN(8) > 0:
			loaded, read.failed = true, p.load(a, key) != nil
			if caught && !read.failed && p.pass(a, 0) {
				caught = w.catch(a, p, mode, key)
			}
		default:
			w.answered(a, p, home, key, mode, value, answer, read, r)
			return
		}
		if !p.pass(a, 0) {
			return
		}
	}
}

// answered takes the answer of a NEAR.GET to its client.
func (w *world) answered(a *actor, p *process, home int, key string, mode cache.Mode, value []byte, answer cache.Answer, read reading, r *rand.Rand) {
	var id int
	switch {
	case found(answer):
		read.old = answer.Status == cache.Stale
		id = w.found(p, key, value, read)
		if answer.Version != w.contents[id].version {
			w.check.fail("I10", "%v answered %s with version %d", p, w.describe(id), answer.Version)
		}
	case answer.Status == cache.Negative:
		w.check.counts.Absent++
		id = w.check.absence(p, key, answer.Version, true, read)
	case answer.Status == cache.Miss:
		w.check.counts.Misses++
		w.fillNear(a, p, home, key, answer.Lease, read, r)
		return
	default:
		return
	}
	w.trace("%v: %s read answers %s", p, asks(mode), w.describe(id))
	if n := w.own(id).n; versioned(key) && n > 0 && answer.Version > 0 {
		w.carry(a, token{text: answer.Token, key: key, n: n, life: w.origin.life(key, n)}, read.strong, r)
	}
}

// carry keeps a token, and now and then presents it at once, anywhere; or has what
// a STRONG read answered read again there.
func (w *world) carry(a *actor, t token, strong bool, r *rand.Rand) {
	w.keepToken(t)
	if r.IntN(3) > 0 {
		return
	}
	mode := cache.Mode{Kind: cache.AtLeast, AtLeast: t.text}
	read := reading{at: w.now, bound: -1, token: &t}
	if strong {
		mode, read = cache.Mode{Kind: cache.Strong}, reading{at: w.now, strong: true}
	}
	w.get(a, w.slots[r.IntN(len(w.slots))], t.key, mode, read, r)
}

// ended has what would wait on the real clock give up.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// catch is Cache.Catch, which would wait for a token's position on the real clock.
func (w *world) catch(a *actor, p *process, mode cache.Mode, key string) bool {
	if mode.Kind != cache.AtLeast {
		return p.cache.Catch(context.Background(), mode, key) == nil
	}
	for range 20 {
		at := p.cache.Applied()
		if at.Satisfies(mode.AtLeast.Position) || at.Epoch.Created != mode.AtLeast.Position.Epoch.Created {
			return p.cache.Catch(ended, mode, key) == nil
		}
		if !p.pass(a, 20*time.Millisecond) {
			break
		}
	}
	return false
}

// near is Cache.Near, in which time may pass between what its answer rests on and
// the look at the entry. False says that nobody hears the answer.
func (p *process) near(a *actor, key string, m cache.Mode, caught, failed bool, r *rand.Rand) (value []byte, answer cache.Answer, ok bool) {
	if r.IntN(4) == 0 {
		p.hesitate = func() {
			d := within(r, 0, 10*time.Millisecond)
			if r.IntN(4) == 0 {
				d = within(r, 0, time.Second)
			}
			p.pass(a, d)
		}
	}
	value, answer = p.cache.Near(key, m, caught, failed, nil)
	p.hesitate = nil
	return value, answer, !p.dead && !p.w.over
}

func (w *world) fillNear(a *actor, p *process, home int, key string, lease cache.Lease, read reading, r *rand.Rand) {
	s := p.slot
	if !a.sleep(loadTime(r)) {
		return
	}
	m, ok := w.load(a, p, key, read.strong, r)
	if !ok {
		return
	}
	w.trace("a reader of %v loaded %s under a lease: %v", p, key, m.parts)
	hold := within(r, 0, 20*time.Millisecond)
	if r.IntN(4) == 0 && !read.strong {
		hold = within(r, 0, 8*time.Second)
	}
	if !a.sleep(hold) {
		return
	}
	if p = s.up(a); p == nil || s.machine != home {
		return
	}
	n := m.parts[0].n
	if lease.Strong && versioned(key) {
		x := w.origin.versionWrite(key, n)
		a.event = w.newEvent(fmt.Sprintf("confirm %s %d", key, n), []write{x})
		err := p.cache.Confirm(context.Background(), key, w.origin.version(key, n))
		a.event = nil
		if err != nil || p.dead || w.over {
			return
		}
		w.check.linear(key, n, read.at)
	}
	w.fill(p, key, m, lease, r)
	switch r.IntN(9) {
	case 0, 1, 2: // what it was answered is worth a token
		w.get(a, s, key, cache.Mode{Kind: cache.Any}, reading{at: w.now, bound: -1}, r)
	case 3: // others may still hold what they loaded before
		w.expire(a, s, key, r)
	}
}

// fill offers what was loaded.
func (w *world) fill(p *process, key string, m made, lease cache.Lease, r *rand.Rand) {
	o := cache.FillOptions{Lease: lease, Tags: m.tags, Depends: m.depends, TTL: ttlOf(r), Negative: w.origin.absent(key, m.parts[0].n)}
	if r.IntN(6) == 0 && !o.Negative {
		o.Soft = within(r, time.Millisecond, time.Second)
	}
	if mayVersion(key, r) {
		o.Version = w.origin.version(key, m.parts[0].n)
	}
	id := w.value(content{key: key, version: o.Version, parts: m.parts, absent: o.Negative})
	l := p.watch.term(key, id, o.TTL, o.Soft)
	w.verdict(p, "FILL", id, p.cache.Fill(key, w.contents[id].text, o), l)
}

// barrier is NEAR.BARRIER: what was acknowledged before it is applied here, and
// wherever its token is presented.
func (w *world) barrier(a *actor, s *slot) {
	p := s.up(a)
	if p == nil {
		return
	}
	began, local := w.now, p.cache.Now()
	at, err := p.cache.Barrier(context.Background())
	if err != nil || p.dead || w.over {
		return
	}
	w.check.counts.Barriers++
	w.trace("%v: a barrier called at %.4fs is at seq %d", p, began.Seconds(), at.Seq)
	w.check.fresh(p.watch, local)
	w.keepToken(token{text: cache.Token{Position: at}, since: began})
}

// expire makes a key's entry expire at once, or sooner or later than it would.
func (w *world) expire(a *actor, s *slot, key string, r *rand.Rand) {
	p := s.up(a)
	if p == nil {
		return
	}
	ttl := cache.TTL{For: -time.Millisecond, Asked: true}
	if r.IntN(3) == 0 {
		ttl.For = within(r, 0, 3*time.Second)
	}
	w.trace("%v: %s expires in %v", p, key, ttl.For)
	if p.cache.Expire(key, ttl) && ttl.For > 0 {
		p.watch.extended(key, ttl)
	}
	w.check.audit(p)
}

// storm fills one of the tables with what nobody reads.
func (w *world) storm(a *actor, s *slot, r *rand.Rand) {
	p := s.up(a)
	if p == nil {
		return
	}
	switch r.IntN(4) {
	case 0:
		w.trace("a storm of fences")
		c := change{what: "storm", namespace: "junk"}
		for i := range 2400 {
			c.event.Keys = append(c.event.Keys, bus.KeyVersion{Key: fmt.Sprintf("junk:%d", i)})
		}
		w.tellStream(a, c, r)
	case 1:
		w.trace("%v: a storm of misses", p)
		for i := range 800 {
			p.cache.Missed(fmt.Sprintf("junk:%d", i), p.cache.Now())
		}
	default:
		w.trace("%v: a storm of fills", p)
		value := make([]byte, maxValue)
		for i := range 24 {
			key := fmt.Sprintf("junk:%d", i)
			p.cache.Fill(key, value, cache.FillOptions{Lease: p.cache.Lease(key, false)})
		}
	}
	w.check.sizes(p)
}
