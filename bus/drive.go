package bus

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// Pace of Drive.
const (
	reorderWait = 5 * time.Millisecond  // a gap may be messages that overtook each other
	ackedWait   = 50 * time.Millisecond // an acknowledgement may overtake its message
	retryFirst  = 20 * time.Millisecond
	retryMax    = time.Second
)

// ReadyMax is how many live messages are taken before anything else is looked at.
const ReadyMax = dueMax

// Feed is what an implementation of Bus supplies to a Driver. The channels are
// never closed.
type Feed struct {
	// Messages are the live ones, of an implementation that does not call Receive. Its
	// buffer bounds what waits while a gap is repaired; a sender never blocks, but drops
	// the message on overflow and signals Disturbed.
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

// Drive runs a Driver of f.
func Drive(ctx context.Context, f *Follower, feed Feed) error { return NewDriver(f, feed).Run(ctx) }

// Driver calls a Follower's methods when they are due: Run in the goroutine of its
// caller, and Receive where the messages come from, which spares a change of goroutine
// for each of them.
type Driver struct {
	feed Feed
	wake chan struct{} // capacity 1: Receive has left something to be planned

	mu        sync.Mutex // guards what follows, and the calls of f
	f         *Follower
	beats     *beats
	timer     *time.Timer
	due       time.Time     // when the timer fires; zero = not set
	notBefore time.Time     // the end of the pause after a failure
	retry     time.Duration // the last pause; 0 after a success
}

// NewDriver returns a Driver, for Run to be called once.
func NewDriver(f *Follower, feed Feed) *Driver {
	return &Driver{feed: feed, wake: make(chan struct{}, 1), f: f, beats: newBeats(f, feed.Peers), timer: time.NewTimer(0)}
}

// Receive takes live messages in the order in which they came: one goroutine may call
// it beside Run. It blocks while Run asks the log.
// The slice is the caller's; give at most ReadyMax at once, so that others have their turn.
func (d *Driver) Receive(messages []Message) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.f.ReceiveAll(messages)
	if d.f.Pending() != PendingNothing || d.beats.changed() {
		select {
		case d.wake <- struct{}{}:
		default:
		}
	}
}

// Run drives until ctx ends, which is not an error, or until a step fails
// with ErrUnfit, which it returns. The live feed must be subscribed before.
//
// Beside it, role pulses are published and clocks asked for when they are due (B4,
// B5), without holding up what is applied.
//
// While the feed is silent nothing is asked of the log: that the last message
// before a silence was lost is revealed by a later message (pulses see to it),
// an acknowledgement of our own, or a disturbance.
func (d *Driver) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer d.beats.group.Wait()
	defer cancel()
	defer d.timer.Stop()
	defer d.beats.timer.Stop()
	ready := make([]Message, 0, ReadyMax)
	for {
		d.plan()
		select {
		case <-ctx.Done():
			return nil
		case <-d.wake:
		case m := <-d.feed.Messages:
			ready = d.drain(append(ready[:0], m))
			d.Receive(ready)
			clear(ready)
		case <-d.feed.Disturbed:
			d.disturbed()
		case a := <-d.feed.Acked:
			d.with(func() { d.f.Expect(a) })
		case <-d.beats.timer.C:
			d.with(func() { d.beats.start(ctx) })
		case p := <-d.beats.pulsed:
			d.with(func() { d.report(ctx, d.f.Pulsed(p)) })
		case a := <-d.beats.pinged:
			d.with(func() { d.report(ctx, d.beats.mapped(a)) })
		case <-d.timer.C:
			if err := d.recover(ctx); err != nil {
				return err
			}
		}
	}
}

func (d *Driver) with(run func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	run()
}

// drain adds what lies ready behind the first message.
func (d *Driver) drain(ready []Message) []Message {
	for len(ready) < cap(ready) && len(d.feed.Messages) > 0 { // nobody else receives
		ready = append(ready, <-d.feed.Messages)
	}
	return ready
}

func (d *Driver) disturbed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.f.Disturbed()
	d.failed(nil) // the broker may be back: no pause
	d.due = time.Time{}
}

// recover does what is pending, and returns what ends following.
func (d *Driver) recover(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.due = time.Time{}
	expectAll(d.f, d.feed.Acked)
	err := d.f.Recover(ctx)
	if errors.Is(err, ErrUnfit) && ctx.Err() == nil {
		return err
	}
	d.failed(err)
	d.report(ctx, err)
	return nil
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

// plan sets the timer by what is pending. A call already due stays due, however
// many messages come; a more urgent one brings it forward.
func (d *Driver) plan() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.beats.plan()
	wait := time.Duration(0)
	switch d.f.Pending() {
	case PendingNothing:
		if !d.due.IsZero() {
			d.timer.Stop()
			d.due = time.Time{}
		}
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
func (d *Driver) failed(err error) {
	if err == nil {
		d.retry, d.notBefore = 0, time.Time{}
		return
	}
	d.retry = min(max(2*d.retry, retryFirst), retryMax)
	d.notBefore = time.Now().Add(d.retry/2 + rand.N(d.retry))
}

// report passes a failure on, unless it is that of our own end.
func (d *Driver) report(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil && d.feed.Failed != nil {
		d.feed.Failed(err)
	}
}
