package bus

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Pace of Drive.
const (
	reorderWait = 5 * time.Millisecond  // a gap may be messages that overtook each other
	ackedWait   = 50 * time.Millisecond // an acknowledgement may overtake its message
	retryFirst  = 20 * time.Millisecond
	retryMax    = time.Second
)

// Feed is what an implementation of Bus supplies to Drive. The channels are
// never closed.
type Feed struct {
	// Messages are the live ones. Its buffer bounds what waits while a gap is
	// repaired; a sender never blocks, but drops the message on overflow and
	// signals Disturbed.
	Messages <-chan Message
	// Disturbed is signalled (capacity 1, without blocking) on a reconnect, a
	// slow consumer, an overflow and a leader change.
	Disturbed <-chan struct{}
	// Acked are the positions that Publish and Barrier saw acknowledged; whoever
	// cannot send signals Disturbed instead. See Acks.
	Acked <-chan Ack
	// Peers are asked for their clocks (B5); nil: nobody can be.
	Peers Peers
	// Failed, when set, is told of each failure that will be retried.
	Failed func(error)
}

// Drive runs f until ctx ends, which is not an error, or until a step fails
// with ErrUnfit, which it returns. The live feed must be subscribed before.
//
// Beside it, role pulses are published and clocks asked for when they are due (B4,
// B5), without holding up what is applied.
//
// While the feed is silent nothing is asked of the log: that the last message
// before a silence was lost is revealed by a later message (pulses see to it),
// an acknowledgement of our own, or a disturbance.
func Drive(ctx context.Context, f *Follower, feed Feed) error {
	ctx, cancel := context.WithCancel(ctx)
	d := driver{f: f, feed: feed, timer: time.NewTimer(0), beats: newBeats(f, feed.Peers)}
	defer d.beats.group.Wait()
	defer cancel()
	defer d.timer.Stop()
	defer d.beats.timer.Stop()
	for {
		d.plan()
		d.beats.plan()
		select {
		case <-ctx.Done():
			return nil
		case m := <-feed.Messages:
			f.Receive(m)
		case <-feed.Disturbed:
			f.Disturbed()
			d.failed(nil) // the broker may be back: no pause
			d.due = time.Time{}
		case a := <-feed.Acked:
			f.Expect(a)
		case <-d.beats.timer.C:
			d.beats.start(ctx)
		case p := <-d.beats.pulsed:
			d.report(ctx, f.Pulsed(p))
		case a := <-d.beats.pinged:
			d.report(ctx, d.beats.mapped(a))
		case <-d.timer.C:
			d.due = time.Time{}
			expectAll(f, feed.Acked)
			err := f.Recover(ctx)
			if errors.Is(err, ErrUnfit) && ctx.Err() == nil {
				return err
			}
			d.failed(err)
			d.report(ctx, err)
		}
	}
}

// expectAll passes on what waits in acked. A start that follows must not meet
// acknowledgements of a former incarnation's seqs afterwards.
func expectAll(f *Follower, acked <-chan Ack) {
	for {
		select {
		case a := <-acked:
			f.Expect(a)
		default:
			return
		}
	}
}

// driver paces the calls of Recover.
type driver struct {
	f         *Follower
	feed      Feed
	beats     *beats
	timer     *time.Timer
	due       time.Time     // when the timer fires; zero = not set
	notBefore time.Time     // the end of the pause after a failure
	retry     time.Duration // the last pause; 0 after a success
}

// plan sets the timer by what is pending. A call already due stays due, however
// many messages come; a more urgent one brings it forward.
func (d *driver) plan() {
	wait := time.Duration(0)
	switch d.f.Pending() {
	case PendingNothing:
		d.timer.Stop()
		d.due = time.Time{}
		return
	case PendingAcked:
		wait = ackedWait
	case PendingGap:
		wait = reorderWait
	}
	at := time.Now().Add(wait)
	if at.Before(d.notBefore) {
		at = d.notBefore
	}
	if d.due.IsZero() || at.Before(d.due) {
		d.due = at
		d.timer.Reset(time.Until(at))
	}
}

// failed lengthens the pause before the next call after a failure, with jitter
// so that a fleet does not ask in step.
func (d *driver) failed(err error) {
	if err == nil {
		d.retry, d.notBefore = 0, time.Time{}
		return
	}
	d.retry = min(max(2*d.retry, retryFirst), retryMax)
	d.notBefore = time.Now().Add(d.retry/2 + rand.N(d.retry))
}

// report passes a failure on, unless it is that of our own end.
func (d *driver) report(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil && d.feed.Failed != nil {
		d.feed.Failed(err)
	}
}
