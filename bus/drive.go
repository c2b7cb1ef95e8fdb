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

// Ack is a position that the stream acknowledged to a publisher of this process.
type Ack struct {
	Seq   uint64
	MsgID string
}

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
	// Acked are the positions that Publish saw acknowledged, sent without
	// blocking; on overflow Disturbed is signalled instead.
	Acked <-chan Ack
	// Failed, when set, is told of each failure that will be retried.
	Failed func(error)
}

// Drive runs f until ctx ends, which is not an error, or until a step fails
// with ErrUnfit, which it returns. The live feed must be subscribed before.
//
// While the feed is silent nothing is asked of the log: that the last message
// before a silence was lost is revealed only by a later message (pulses see to
// it), an acknowledgement of our own, or a disturbance.
func Drive(ctx context.Context, f *Follower, feed Feed) error {
	d := driver{f: f, timer: time.NewTimer(0)}
	defer d.timer.Stop()
	for {
		d.plan()
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
		case <-d.timer.C:
			d.due = time.Time{}
			expectAll(f, feed.Acked)
			err := f.Recover(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, ErrUnfit) {
				return err
			}
			if d.failed(err); err != nil && feed.Failed != nil {
				feed.Failed(err)
			}
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
