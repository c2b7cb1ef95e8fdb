package sim

import (
	"context"
	"fmt"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// link is the connection of one process to the broker, and its faults. It is the
// process's bus.Log; its calls take virtual time.
type link struct {
	p *process

	liveDown, callsDown                     bool
	drop, double, failCalls, fail, loseAcks int
	mute                                    time.Duration // until then live messages are lost
	slow                                    time.Duration // until then live messages are late
	order                                   time.Duration // when the last live message arrives, for order
	mixed                                   int           // so many live messages may overtake others
}

// deliver sends one live message on its way.
func (l *link) deliver(m bus.Message) {
	w := l.p.w
	d := within(w.rng, 50*time.Microsecond, 1500*time.Microsecond)
	switch {
	case l.liveDown || w.now < l.mute:
		w.trace("%v: live seq %d is lost", l.p, m.Seq)
		return
	case l.drop > 0:
		l.drop--
		w.trace("%v: live seq %d is lost", l.p, m.Seq)
		return
	case l.mixed > 0:
		l.mixed--
		d = within(w.rng, 0, 40*time.Millisecond)
	case w.now < l.slow:
		d = l.slow - w.now
		fallthrough
	default:
		l.order = max(l.order, w.now+d)
		d = l.order - w.now
	}
	l.send(d, m)
	if l.double > 0 {
		l.double--
		l.send(d+within(w.rng, 0, 50*time.Millisecond), m)
	}
}

func (l *link) send(d time.Duration, m bus.Message) {
	l.p.w.after(d, func() { l.p.tell(input{message: &m}) })
}

// trip takes the time of a call's way there and fails as its connection does.
func (l *link) trip() error {
	a := l.p.w.acting
	if !l.p.pass(a, within(l.p.w.rng, 50*time.Microsecond, 2*time.Millisecond)) {
		return errDead
	}
	if l.callsDown {
		if !l.p.pass(a, within(l.p.w.rng, 20*time.Millisecond, 300*time.Millisecond)) {
			return errDead
		}
		return errAway
	}
	if l.failCalls > 0 {
		l.failCalls--
		return errInjected
	}
	return nil
}

// back takes the time of an answer's way, mostly none that matters.
func (l *link) back() error {
	if !l.p.w.chance(0.3) {
		return nil
	}
	if !l.p.pass(l.p.w.acting, within(l.p.w.rng, 50*time.Microsecond, 2*time.Millisecond)) {
		return errDead
	}
	if l.callsDown {
		return errAway
	}
	return nil
}

func ask[T any](l *link, answer func() (T, error)) (none T, err error) {
	if err := l.trip(); err != nil {
		return none, err
	}
	v, err := answer()
	if err != nil {
		return none, err
	}
	return v, l.back()
}

// State implements bus.Log, as the others do.
func (l *link) State(context.Context) (bus.LogState, error) {
	return ask(l, l.p.w.stream.state)
}

// At implements bus.Log.
func (l *link) At(_ context.Context, seq uint64) (bus.Message, error) {
	return ask(l, func() (bus.Message, error) {
		s := l.p.w.stream
		if !s.exists {
			return bus.Message{}, errNoStream
		}
		m, ok := s.at(seq)
		if !ok {
			return m, fmt.Errorf("seq %d: %w", seq, bus.ErrNotFound)
		}
		return m, nil
	})
}

// Range implements bus.Log.
func (l *link) Range(_ context.Context, from uint64, n int) ([]bus.Message, error) {
	return ask(l, func() ([]bus.Message, error) {
		return l.p.w.stream.read(n, func(m bus.Message) bool { return m.Seq >= from })
	})
}

// Since implements bus.Log.
func (l *link) Since(_ context.Context, t time.Time, n int) ([]bus.Message, error) {
	return ask(l, func() ([]bus.Message, error) {
		return l.p.w.stream.read(n, func(m bus.Message) bool { return !m.Time.Before(t) })
	})
}

// Last implements bus.Log.
func (l *link) Last(_ context.Context, subject string) (bus.Message, error) {
	return ask(l, func() (bus.Message, error) { return l.p.w.stream.newest(subject) })
}

// Append implements bus.Log.
func (l *link) Append(_ context.Context, subject, id string, data []byte) (uint64, error) {
	return ask(l, func() (uint64, error) {
		if l.fail > 0 {
			l.fail--
			return 0, errInjected
		}
		seq, err := l.p.w.stream.append(subject, id, data)
		if l.loseAcks > 0 {
			l.loseAcks--
			l.p.w.trace("%v: the acknowledgement of seq %d is lost", l.p, seq)
			return 0, errInjected
		}
		return seq, err
	})
}
