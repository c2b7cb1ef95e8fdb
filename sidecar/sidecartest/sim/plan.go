package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// action is one thing that a client does or a fault that begins. What follows
// from it is drawn from its own salt, so that a run without other actions does
// with it what the whole run did.
type action struct {
	at   time.Duration
	kind kind
	slot int
	key  string
	salt uint64
}

func (a action) String() string {
	return fmt.Sprintf("%10.4fs  %s s%d %s", a.at.Seconds(), kinds[a.kind].name, a.slot, a.key)
}

type kind int

// kinds are all that can happen, with how often: the first are clients' doings.
var kinds = []struct {
	name   string
	weight int
	do     func(*world, *actor, *slot, action, *rand.Rand)
}{
	{"plain read", 22, func(w *world, a *actor, s *slot, x action, r *rand.Rand) {
		if tagsOf(x.key) != nil || recipes[x.key] != nil || versioned(x.key) {
			w.readNear(a, s, x.key, r) // a SET could not say what its value hangs on
			return
		}
		w.readPlain(a, s, x.key, r)
	}},
	{"read", 26, func(w *world, a *actor, s *slot, x action, r *rand.Rand) { w.readNear(a, s, x.key, r) }},
	{"write", 18, func(w *world, a *actor, s *slot, x action, r *rand.Rand) { w.write(a, s, x.key, r) }},
	{"purge", 4, func(w *world, a *actor, s *slot, _ action, r *rand.Rand) { w.purge(a, s, r) }},
	{"barrier", 2, func(w *world, a *actor, s *slot, _ action, _ *rand.Rand) { w.barrier(a, s) }},
	{"expire", 4, func(w *world, a *actor, s *slot, x action, r *rand.Rand) { w.expire(a, s, x.key, r) }},
	{"restore", 1, func(w *world, a *actor, _ *slot, _ action, r *rand.Rand) { w.restore(a, r) }},
	{"storm", 1, func(w *world, a *actor, s *slot, _ action, r *rand.Rand) { w.storm(a, s, r) }},
	{"live messages lost", 4, onLink(func(l *link, r *rand.Rand) { l.drop = 1 + r.IntN(4) })},
	{"live messages twice", 1, onLink(func(l *link, r *rand.Rand) { l.double = 1 + r.IntN(4) })},
	{"live messages mixed", 2, onLink(func(l *link, r *rand.Rand) { l.mixed = 1 + r.IntN(6) })},
	{"live messages late", 2, onLink(func(l *link, r *rand.Rand) { l.slow = l.p.w.now + within(r, 0, 2*time.Second) })},
	{"silence", 2, onLink(func(l *link, r *rand.Rand) { l.mute = l.p.w.now + within(r, 0, 3*time.Second) })},
	{"reads of the log fail", 2, onLink(func(l *link, r *rand.Rand) { l.failCalls = 1 + r.IntN(5) })},
	{"publishes fail", 2, onLink(func(l *link, r *rand.Rand) { l.fail = 1 + r.IntN(5) })},
	{"acknowledgements lost", 2, onLink(func(l *link, r *rand.Rand) { l.loseAcks = 1 + r.IntN(3) })},
	{"connection lost", 4, (*world).cut},
	{"replicas lag", 1, (*world).lagBehind},
	{"leader change", 1, (*world).changeLeader},
	{"trim", 1, func(w *world, _ *actor, _ *slot, _ action, r *rand.Rand) {
		w.trace("the stream is trimmed")
		w.stream.trim(r.IntN(len(w.stream.messages) + 1))
	}},
	{"purge of the stream", 1, func(w *world, _ *actor, _ *slot, _ action, _ *rand.Rand) {
		w.trace("the stream is purged")
		w.stream.trim(len(w.stream.messages))
	}},
	{"deletion of the stream", 1, (*world).deleteStream},
	{"rollback", 3, func(w *world, _ *actor, _ *slot, _ action, r *rand.Rand) {
		n := 1 + r.IntN(4)
		if r.IntN(4) == 0 {
			n = r.IntN(40)
		}
		w.trace("the stream loses its last %d messages", min(n, len(w.stream.messages)))
		w.stream.rollBack(n)
	}},
	{"restart", 2, (*world).restart},
	{"power loss", 1, (*world).losePower},
	{"pause", 2, func(w *world, _ *actor, s *slot, _ action, r *rand.Rand) {
		if p := s.process; p != nil {
			d := within(r, 0, 3*time.Second)
			if r.IntN(3) == 0 {
				d = within(r, time.Second, 30*time.Second)
			}
			w.trace("%v: pauses for %v", p, d)
			p.paused = w.now + d
		}
	}},
	{"origin down", 2, func(w *world, _ *actor, _ *slot, _ action, r *rand.Rand) {
		w.originDown = w.now + within(r, 0, 4*time.Second)
		w.trace("loads fail until %v", w.originDown)
	}},
	{"origin slow", 2, func(w *world, _ *actor, _ *slot, _ action, r *rand.Rand) {
		w.originSlow = w.now + within(r, 0, 4*time.Second)
		w.trace("loads are slow until %v", w.originSlow)
	}},
	{"shared tier lost", 2, (*world).loseShared},
}

// clients is how many of the kinds are no faults.
const clients = 8

// expiring is the kind of that name.
var expiring = kind(5)

// plan is all that is done in a run; the world does the rest by the seed.
type plan struct {
	seed    uint64
	slots   int  // sidecars
	late    bool // many writes are told late
	actions []action
}

func (p plan) span() time.Duration {
	if len(p.actions) == 0 {
		return 0
	}
	return p.actions[len(p.actions)-1].at
}

// planOf draws the plan of a seed.
func planOf(seed uint64) plan {
	r := rand.New(rand.NewPCG(seed, 1))
	p := plan{seed: seed, slots: 2 + r.IntN(3)}
	faults := [...]int{1, 1, 2, 4}[r.IntN(4)] // divides how often they come
	pool, seldom := keys, false
	switch r.IntN(6) {
	case 0, 1:
		pool = loaded
	case 2: // and with so few writes and forks that what is shared grows old
		pool, seldom, faults = shared, true, 16
		p.late = true
	}
	total := 0
	for k := range kinds {
		total += weight(kind(k), faults)
	}
	span := within(r, 6*time.Second, 20*time.Second)
	if p.late {
		span *= 3
	}
	hot := r.Perm(len(pool))
	for range 200 + r.IntN(200) {
		x := action{at: within(r, 0, span), slot: r.IntN(p.slots), salt: r.Uint64()}
		x.key = pool[hot[min(r.IntN(len(pool)), r.IntN(len(pool)))]]
		if len(p.actions) > 0 && r.IntN(2) == 0 { // right after another, maybe of the same
			other := p.actions[r.IntN(len(p.actions))]
			x.at = other.at + within(r, 0, 30*time.Millisecond)
			if r.IntN(2) == 0 {
				x.key = other.key
			}
			if r.IntN(2) == 0 {
				x.slot = other.slot
			}
		}
		for n := r.IntN(total); n >= 0; x.kind++ {
			n -= weight(x.kind, faults)
		}
		x.kind--
		if seldom && (kinds[x.kind].name == "write" || kinds[x.kind].name == "purge") && r.IntN(5) > 0 {
			x.kind = [...]kind{0, 1, expiring}[r.IntN(3)]
		}
		p.actions = append(p.actions, x)
	}
	slices.SortStableFunc(p.actions, func(a, b action) int { return int(a.at - b.at) })
	return p
}

// weight is in sixteenths, so that the rarest can be rarer still.
func weight(k kind, faults int) int {
	w := kinds[k].weight * 16
	if k >= clients {
		w /= faults
	}
	return w
}
