package bus

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// pingTimeout bounds one question for a clock.
const pingTimeout = time.Second

// beats runs what Drive does beside applying: at most one role pulse (B4) and one
// question for a clock (B5) at a time, each in a goroutine that is waited for.
type beats struct {
	f     *Follower
	peers Peers
	timer *time.Timer
	plans uint64 // f.replan when the timer was set

	pulsed chan RolePulse // capacity 1, as there is one at most
	pinged chan clockAnswer
	group  sync.WaitGroup
}

type clockAnswer struct {
	process         string
	asked, answered time.Duration
	err             error
}

func newBeats(f *Follower, peers Peers) *beats {
	return &beats{
		f: f, peers: peers, timer: time.NewTimer(time.Hour), plans: f.replan - 1,
		pulsed: make(chan RolePulse, 1), pinged: make(chan clockAnswer, 1),
	}
}

// changed reports whether plan has something to do.
func (b *beats) changed() bool { return b.plans != b.f.replan }

// plan sets the timer where something changed that it depends on.
func (b *beats) plan() {
	if !b.changed() {
		return
	}
	b.plans = b.f.replan
	b.timer.Stop()
	wait, ok := b.f.PulseDue()
	if _, w, due := b.pingDue(); due && (!ok || w < wait) {
		wait, ok = w, true
	}
	if ok {
		b.timer.Reset(max(wait, 0))
	}
}

func (b *beats) pingDue() (process string, wait time.Duration, ok bool) {
	if b.peers == nil {
		return "", 0, false
	}
	return b.f.PingDue()
}

// start begins what is due.
func (b *beats) start(ctx context.Context) {
	if wait, ok := b.f.PulseDue(); ok && wait <= 0 {
		p := b.f.TakePulse()
		b.group.Go(func() { b.pulsed <- b.f.PublishPulse(ctx, p) })
	}
	if process, wait, ok := b.pingDue(); ok && wait <= 0 {
		a := clockAnswer{process: process, asked: b.f.TakePing()}
		b.group.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, pingTimeout)
			defer cancel()
			a.answered, a.err = b.peers.Ping(ctx, process)
			b.pinged <- a
		})
	}
	b.plans = b.f.replan - 1 // the timer has fired
}

// mapped takes an answer, and returns what failed.
func (b *beats) mapped(a clockAnswer) error {
	b.f.Mapped(a.process, a.asked, a.answered, a.err)
	if a.err != nil {
		return fmt.Errorf("ask the pulser for its clock: %w", a.err)
	}
	return nil
}
