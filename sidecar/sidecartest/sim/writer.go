package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// write commits something and tells of it: through a sidecar or directly, soon or
// late, and again until it is acknowledged.
func (w *world) write(a *actor, s *slot, key string, r *rand.Rand) {
	if !w.unfrozen(a, bus.NamespaceOf(key)) {
		return
	}
	c := w.origin.change(key, mayVersion(key, r))
	switch lazy := slices.Contains(loaded, key); {
	case lazy && r.IntN(3) == 0:
		w.origin.remove(key, c.writes[0].n)
		c.what = strings.Replace(c.what, "write", "deletion of", 1)
	case c.event.Keys[0].Version != 0 && r.IntN(3) == 0:
		w.origin.update(&c, ttlOf(r).For)
	case lazy && r.IntN(2) == 0:
		c.event.Op = bus.OpRefresh
	}
	w.tell(a, s, c, r)
}

// unfrozen waits for a restore of the namespace to be over.
func (w *world) unfrozen(a *actor, namespace string) bool {
	for w.frozen[namespace] || namespace == "" && len(w.frozen) > 0 {
		if !a.sleep(50 * time.Millisecond) {
			return false
		}
	}
	return true
}

// restore puts the source of a namespace back to a backup, as an operator should:
// when all that was written is published, and before anybody writes again.
func (w *world) restore(a *actor, r *rand.Rand) {
	namespace := []string{"v", "x", "t", "l", "s", "m"}[r.IntN(6)]
	if w.frozen[namespace] {
		return
	}
	w.frozen[namespace] = true
	defer delete(w.frozen, namespace)
	for w.open[namespace]+w.open[""] > 0 {
		if !a.sleep(50 * time.Millisecond) {
			return
		}
	}
	c := w.origin.restore(namespace)
	w.check.counts.Restores++
	w.opened(c)
	defer w.closed(c)
	w.trace("restored: %s from a backup", namespace)
	if a.sleep(within(r, 0, 100*time.Millisecond)) {
		w.tellStream(a, c, r)
	}
}

func (w *world) opened(c change) { w.opens++; w.open[c.namespace]++ }
func (w *world) closed(c change) { w.opens--; w.open[c.namespace]-- }

func (w *world) purge(a *actor, s *slot, r *rand.Rand) {
	p := purges[r.IntN(len(purges))]
	if p.namespace == "" && r.IntN(3) > 0 || !w.unfrozen(a, p.namespace) { // rarer: it leaves nothing
		return
	}
	w.tell(a, s, w.origin.purge(p), r)
}

func (w *world) tell(a *actor, s *slot, c change, r *rand.Rand) {
	w.opened(c)
	defer w.closed(c)
	w.trace("committed: %s", c.what)
	delay := within(r, 0, 5*time.Millisecond)
	if r.IntN(6) == 0 || w.late && r.IntN(2) == 0 {
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

// eventOf registers the event that tells of c.
func (w *world) eventOf(c change) *event {
	e := w.newEvent(c.what, c.writes)
	e.garbled, e.update, e.restored, e.source = c.garbled, c.update, c.restored, c.namespace
	if c.update != 0 && policies.Of(c.namespace).Update.Store == policy.StoreAlways {
		e.until = c.since + window
	}
	return e
}

// tellThrough is NEAR.INVALIDATE, NEAR.UPDATE and the flushes.
func (w *world) tellThrough(a *actor, p *process, c change) bool {
	c = w.origin.prompt(c)
	e := w.eventOf(c)
	// From now on its client is answered no less here, also if this fails (C8).
	p.watch.learn(e, byFlush(c.writes))
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
			Refresh: c.event.Op == bus.OpRefresh,
			Update:  c.event.Op == bus.OpUpdate, Value: c.event.Value, TTL: c.event.TTL,
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
		w.keepToken(token{text: cache.Token{Position: receipt.Position}, key: x.key, n: x.n, mark: x.mark, life: x.life, event: w.byID[e.id]})
	}
	return true
}

// eventFor is c as a foreign writer sends it.
func (w *world) eventFor(c change) (subject string, e *event, data []byte) {
	e, data = w.eventOf(c), []byte("{garbled")
	var err error
	if !c.garbled {
		if data, err = bus.Encode(c.event); err != nil {
			panic(fmt.Sprintf("encode %s: %v", c.what, err)) // only a fault of this package
		}
	}
	if subject, err = subjects.For(c.namespace, c.event.Op); err != nil {
		panic(err)
	}
	return subject, e, data
}

// tellStream publishes as a foreign writer does.
func (w *world) tellStream(a *actor, c change, r *rand.Rand) {
	subject, e, data := w.eventFor(w.origin.prompt(c))
	for a.sleep(within(r, 0, 3*time.Millisecond)) {
		if !w.calm && r.IntN(12) == 0 { // it does not arrive
			if !a.sleep(within(r, 0, time.Second)) {
				return
			}
			continue
		}
		_, err := w.stream.append(subject, e.id, data)
		if errors.Is(err, errLate) {
			subject, e, data = w.eventFor(w.origin.prompt(c))
			continue
		}
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
