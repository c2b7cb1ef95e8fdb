package sim

import (
	"math/rand/v2"
	"time"
)

// onLink is a fault of one process's connection.
func onLink(f func(*link, *rand.Rand)) func(*world, *actor, *slot, action, *rand.Rand) {
	return func(_ *world, _ *actor, s *slot, _ action, r *rand.Rand) {
		if s.process != nil {
			f(s.process.link, r)
		}
	}
}

// cut breaks a connection for a while: the live feed, the calls, or both. Who
// talks to a leaf node may not be told.
func (w *world) cut(a *actor, s *slot, _ action, r *rand.Rand) {
	p := s.process
	if p == nil {
		return
	}
	which := r.IntN(3)
	p.link.liveDown = p.link.liveDown || which != 0
	p.link.callsDown = p.link.callsDown || which != 1
	w.trace("%v: loses its connection, live %t, calls %t", p, p.link.liveDown, p.link.callsDown)
	d := within(r, 0, 500*time.Millisecond)
	if r.IntN(3) == 0 {
		d = within(r, 0, 8*time.Second)
	}
	if a.sleep(d) && !w.calm {
		w.mend(p, which == 2 || r.IntN(2) == 0)
	}
}

func (w *world) mend(p *process, told bool) {
	w.trace("%v: has its connection again, told %t", p, told)
	p.link.liveDown, p.link.callsDown = false, false
	if told {
		p.tell(input{disturbed: true})
	}
}

func (w *world) lagBehind(a *actor, _ *slot, _ action, r *rand.Rand) {
	w.stream.behind = uint64(r.IntN(12))
	w.trace("replicas lack %d messages", w.stream.behind)
	if a.sleep(within(r, 0, 2*time.Second)) {
		w.stream.behind = 0
	}
}

// changeLeader makes another server's clock stamp messages.
func (w *world) changeLeader(_ *actor, _ *slot, _ action, r *rand.Rand) {
	w.stream.skew = within(r, -500*time.Millisecond, 500*time.Millisecond)
	if r.IntN(4) == 0 {
		w.stream.skew = within(r, -time.Hour, time.Hour)
	}
	w.trace("another leader, whose clock is off by %v", w.stream.skew)
	for _, s := range w.slots {
		if s.process != nil {
			s.process.tell(input{disturbed: true})
		}
	}
}

// deleteStream removes the stream; another one comes later.
func (w *world) deleteStream(a *actor, _ *slot, _ action, r *rand.Rand) {
	if !w.stream.exists {
		return
	}
	w.trace("the stream is deleted")
	w.stream.exists = false
	d := within(r, 0, 50*time.Millisecond)
	if r.IntN(2) == 0 {
		d = within(r, 0, 3*time.Second)
	}
	if a.sleep(d) {
		w.recreate()
	}
}

func (w *world) recreate() {
	if !w.stream.exists {
		w.trace("the stream is created anew")
		w.stream.create()
		w.check.lives[w.stream.created.UnixNano()] = w.stream.life
	}
}

// restart ends a process, and begins another one, at once or after the window.
func (w *world) restart(a *actor, s *slot, _ action, r *rand.Rand) {
	if s.process == nil {
		return
	}
	s.process.kill()
	d := within(r, 0, 300*time.Millisecond)
	if r.IntN(3) == 0 {
		d = within(r, 0, 2*window)
	}
	if !a.sleep(d) || s.process != nil {
		return
	}
	switch r.IntN(6) {
	case 0, 1:
		w.place(s)
	case 2:
		s.record.readable = false
	}
	w.start(s)
}

// losePower ends all sidecars at once, and the broker, which loses what it had not
// written to its disk: nobody is left who knows of it, but for the shared tier.
func (w *world) losePower(a *actor, _ *slot, _ action, r *rand.Rand) {
	n := r.IntN(8)
	w.trace("power is lost, and the last %d messages", min(n, len(w.stream.messages)))
	w.stream.rollBack(n)
	for _, s := range w.slots {
		if s.process != nil {
			s.process.kill()
		}
	}
	if !a.sleep(within(r, 0, 300*time.Millisecond)) {
		return
	}
	for _, s := range w.slots {
		if s.process == nil {
			w.start(s)
		}
	}
}

// place puts a slot on another machine, where it never was and no reader of it is.
func (w *world) place(s *slot) {
	s.machine++
	s.record = record{}
	s.base = within(w.rng, time.Second, 1000*time.Hour)
	s.drift = w.rng.Int64N(199) - 99 // two clocks differ by less than 200 ppm
}

// loseShared is a fault of the shared tier: it gives no answer for a while, or it loses
// its newest entries or all.
func (w *world) loseShared(_ *actor, _ *slot, _ action, r *rand.Rand) {
	b := w.bucket
	switch r.IntN(3) {
	case 0:
		b.down = w.now + within(r, 0, 3*time.Second)
		w.trace("the shared tier is away until %v", b.down)
	case 1:
		b.lose(0)
	default:
		b.lose(b.revision - min(b.revision, uint64(1+r.IntN(8))))
	}
}

// heal ends all faults.
func (w *world) heal() {
	w.trace("all faults are over")
	w.calm = true
	w.recreate()
	w.stream.behind = 0
	w.originDown, w.originSlow, w.bucket.down = 0, 0, 0
	for _, s := range w.slots {
		if s.process == nil {
			w.start(s)
			continue
		}
		l := s.process.link
		l.drop, l.double, l.mixed, l.failCalls, l.fail, l.loseAcks = 0, 0, 0, 0, 0, 0
		l.mute, l.slow, s.process.paused = w.now, w.now, w.now
		if l.liveDown || l.callsDown {
			w.mend(s.process, w.chance(0.5))
		}
	}
}
