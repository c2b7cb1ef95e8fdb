package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
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
	p := s.up(a)
	if p == nil {
		return
	}
	value, ok := p.cache.Get(key, nil, p.cache.Now())
	if ok {
		w.check.counts.Hits++
		w.check.hit(p, key, value, reading{at: w.now, bound: policies.OfKey(key).Bound()})
		return
	}
	w.check.counts.Misses++
	missed := w.now
	if !a.sleep(loadTime(r)) {
		return
	}
	n := w.origin.load(key, false)
	w.trace("a reader of %v loaded %s %d", p, key, n)
	if !a.sleep(loadTime(r)) {
		return
	}
	// Its socket may be another process's by now.
	if p = s.up(a); p == nil || w.now-missed > window*9/10 {
		return
	}
	v := p.cache.Set(key, valueOf(key, n, plain), cache.TTL{})
	w.verdict(p, "SET", key, n, v)
}

func (w *world) verdict(p *process, what, key string, n int, v coherence.Verdict) {
	w.trace("%v: %s %s %d: %v", p, what, key, n, v)
	if v == coherence.Stored {
		w.check.counts.Stored++
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

// readNear is NEAR.GET in some mode, and on a miss a load and a fill, held for as
// long as it may be.
func (w *world) readNear(a *actor, s *slot, key string, r *rand.Rand) {
	p := s.up(a)
	if p == nil {
		return
	}
	read := reading{at: w.now, bound: -1}
	mode, caught := cache.Mode{Kind: cache.Any}, false
	switch r.IntN(8) {
	case 0, 1:
		read.bound = []time.Duration{200, 500, 1000, 4000}[r.IntN(4)] * time.Millisecond
		mode = cache.Mode{Kind: cache.MaxStale, MaxStale: read.bound}
	case 2, 3:
		if len(w.tokens) == 0 {
			return
		}
		t := w.tokens[r.IntN(len(w.tokens))]
		key, read.token = t.key, &t
		mode = cache.Mode{Kind: cache.AtLeast, AtLeast: t.text}
		for range 20 {
			if p.cache.Applied().Satisfies(t.text.Position) {
				break
			}
			if !p.pass(a, 20*time.Millisecond) {
				return
			}
		}
		w.check.counts.AtLeast++
	case 4, 5:
		read.bound, read.strong = 0, true
		mode = cache.Mode{Kind: cache.Strong}
		caught = p.cache.Catch(context.Background(), mode, key) == nil
		if p.dead || w.over {
			return
		}
	case 6:
		mode.Kind = cache.Class
		read.bound = policies.OfKey(key).Bound()
	}
	value, answer := p.cache.Near(key, mode, caught, nil)
	switch answer.Status {
	case cache.Hit, cache.Regular:
		w.check.counts.Hits++
		if read.strong {
			w.check.counts.Strong++
		}
		n := w.check.hit(p, key, value, read)
		w.trace("%v: %v read of %s: %d, version %d", p, mode.Kind, key, n, answer.Version)
		if answer.Version != 0 {
			w.keepToken(token{text: answer.Token, key: key, n: n})
		}
	case cache.Miss:
		w.check.counts.Misses++
		w.fillNear(a, p, s, key, answer.Lease, read, r)
	}
}

func (w *world) fillNear(a *actor, p *process, s *slot, key string, lease cache.Lease, read reading, r *rand.Rand) {
	if !a.sleep(loadTime(r)) {
		return
	}
	n := w.origin.load(key, read.strong)
	w.trace("a reader of %v loaded %s %d under a lease", p, key, n)
	hold := within(r, 0, 20*time.Millisecond)
	if r.IntN(4) == 0 && !read.strong {
		hold = within(r, 0, 8*time.Second)
	}
	if !a.sleep(hold) {
		return
	}
	if p = s.up(a); p == nil {
		return
	}
	o := cache.FillOptions{Lease: lease, Tags: tagsOf(key)}
	if versioned(key) || strings.HasPrefix(key, "x:") && r.IntN(2) == 0 {
		o.Version = uint64(n)
	}
	if key == derived {
		o.Depends = []string{source}
	}
	if lease.Strong && o.Version != 0 {
		if p.cache.Confirm(context.Background(), key, o.Version) != nil || p.dead || w.over {
			return
		}
		w.check.linear(key, n, read.at)
	}
	w.verdict(p, "FILL", key, n, p.cache.Fill(key, valueOf(key, n, markOf(key)), o))
}

// write commits something and tells of it: through a sidecar or directly, soon or
// late, and again until it is acknowledged.
func (w *world) write(a *actor, s *slot, key string, r *rand.Rand) {
	c := w.origin.change(key, versioned(key) || strings.HasPrefix(key, "x:") && r.IntN(2) == 0)
	if kv := c.event.Keys[0]; kv.Version != 0 && r.IntN(4) == 0 {
		c.what = "up" + c.what
		c.event.Op, c.event.Value = bus.OpUpdate, valueOf(kv.Key, int(kv.Version), plain)
	}
	w.tell(a, s, c, r)
}

func (w *world) purge(a *actor, s *slot, r *rand.Rand) {
	w.tell(a, s, w.origin.purge(r.IntN(5)), r)
}

func (w *world) tell(a *actor, s *slot, c change, r *rand.Rand) {
	w.opens++
	defer func() { w.opens-- }()
	w.trace("committed: %s", c.what)
	delay := within(r, 0, 5*time.Millisecond)
	if r.IntN(6) == 0 {
		delay = within(r, 0, 4*time.Second)
	}
	if !a.sleep(delay) {
		return
	}
	if r.IntN(3) > 0 && !c.garbled {
		if p := s.up(a); p != nil && w.tellThrough(a, p, c) {
			return
		}
		if !a.sleep(within(r, 0, 2*time.Second)) {
			return
		}
	}
	w.tellStream(a, c, r)
}

// tellThrough is NEAR.INVALIDATE, NEAR.UPDATE and the flushes.
func (w *world) tellThrough(a *actor, p *process, c change) bool {
	e := w.newEvent(c.what, c.writes)
	// From now on its client is answered no less here, also if this fails (C8).
	p.watch.learn(e)
	w.trace("%v: publishes %s", p, c.what)
	a.event = e
	defer func() { a.event = nil }()
	var receipt cache.Receipt
	var err error
	if c.event.Op == bus.OpFlush {
		receipt, err = p.cache.Flush(context.Background(), c.namespace)
	} else {
		receipt, err = p.cache.Invalidate(context.Background(), cache.Write{
			Keys: c.event.Keys, Tags: c.event.Tags, Prefix: c.event.Prefix,
			Update: c.event.Op == bus.OpUpdate, Value: c.event.Value,
		})
	}
	if p.dead || w.over {
		return false
	}
	w.check.audit(p)
	if errors.Is(err, cache.ErrTimeout) {
		w.check.fail("I3", "%v says that %s was acknowledged, and waits for it: %v", p, c.what, err)
	}
	if err != nil {
		w.trace("%v: %s failed", p, c.what)
		return false
	}
	for _, x := range c.writes {
		if x.mark == plain {
			w.keepToken(token{text: cache.Token{Position: receipt.Position}, key: x.key, n: x.n, event: w.byID[e.id]})
		}
	}
	return true
}

// tellStream publishes as a foreign writer does.
func (w *world) tellStream(a *actor, c change, r *rand.Rand) {
	e := w.newEvent(c.what, c.writes)
	e.garbled = c.garbled
	data := []byte("{garbled")
	if !c.garbled {
		var err error
		if data, err = bus.Encode(c.event); err != nil {
			panic(fmt.Sprintf("encode %s: %v", c.what, err)) // only a fault of this package
		}
	}
	subject, err := subjects.For(c.namespace, c.event.Op)
	if err != nil {
		panic(err)
	}
	for a.sleep(within(r, 0, 3*time.Millisecond)) {
		if !w.calm && r.IntN(12) == 0 { // it does not arrive
			if !a.sleep(within(r, 0, time.Second)) {
				return
			}
			continue
		}
		_, err := w.stream.append(subject, e.id, data)
		lostAck := !w.calm && r.IntN(12) == 0
		if !a.sleep(within(r, 0, 3*time.Millisecond)) {
			return
		}
		if err == nil && !lostAck {
			w.check.acked(e)
			return
		}
		if !a.sleep(within(r, 0, 300*time.Millisecond)) {
			return
		}
	}
}

// evict makes a key's entry expire at once.
func (w *world) evict(a *actor, s *slot, key string) {
	if p := s.up(a); p != nil {
		w.trace("%v: %s expires", p, key)
		p.cache.Expire(key, cache.TTL{For: -time.Millisecond, Asked: true})
	}
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
