package natsbus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/nearside-cache/nearside/bus"
)

const (
	// tryTimeout bounds one try of a publish. A leader that died is replaced
	// within some 8 s; the tries meet the new one early.
	tryTimeout   = time.Second
	firstPause   = 5 * time.Millisecond
	longestPause = 250 * time.Millisecond
)

// Publish implements bus.Bus and rule B8. Errors other than
// bus.ErrNotAcknowledged and bus.ErrNotApplied say that the event is not in the stream: it was refused
// (bus.ErrTooLarge, ErrDenied, bus.ErrUnfit), is malformed, or the bus is closed.
func (b *Bus) Publish(ctx context.Context, namespace string, e bus.Event) (bus.Position, error) {
	ctx, done, err := b.begin(ctx)
	if err != nil {
		return bus.Position{}, err
	}
	defer done()
	subject, err := b.config.Stream.Subjects.For(namespace, e.Op)
	if err != nil {
		return bus.Position{}, fmt.Errorf("publish: %w", err)
	}
	data, err := bus.Encode(e)
	if err != nil {
		return bus.Position{}, fmt.Errorf("publish: %w", err)
	}
	// One id for all tries of this event and for no other: the stream stores it
	// once, however often it arrives.
	id := e.ID
	if id == "" {
		id = newID()
	}
	seq, err := b.publish(ctx, subject, id, data)
	if err != nil {
		return bus.Position{}, err
	}
	return b.position(ctx, bus.Ack{Seq: seq, MsgID: id})
}

// publish appends until there is an acknowledgement, the stream refuses for
// good, or ctx ends.
func (b *Bus) publish(ctx context.Context, subject, id string, data []byte) (uint64, error) {
	var failure error
	tries := 0
	seq, err := backoff.Retry(ctx, func() (uint64, error) {
		tries++
		try, cancel := context.WithTimeout(ctx, tryTimeout)
		defer cancel()
		seq, err := b.stream.Append(try, subject, id, data)
		if errors.Is(err, jetstream.ErrNoStreamResponse) {
			signal(b.disturbed) // the stream may have been deleted: the follower shall look
		}
		// The reason why ctx ended is no news; what went wrong before is.
		if err != nil && (failure == nil || ctx.Err() == nil) {
			failure = err
		}
		if refused(err) {
			return 0, backoff.Permanent(err)
		}
		return seq, err
	}, backoff.WithBackOff(pauses()), backoff.WithMaxElapsedTime(0))
	switch {
	case err == nil:
		return seq, nil
	case tries == 1 && refused(err):
		return 0, err // it was sent once, and refused: it cannot appear
	default:
		return 0, notAcknowledged(ctx, failure, tries)
	}
}

// refused reports whether no further try can succeed.
func refused(err error) bool {
	return errors.Is(err, bus.ErrTooLarge) || errors.Is(err, bus.ErrUnfit) || isCode(err, codeOtherStream)
}

func notAcknowledged(ctx context.Context, failure error, tries int) error {
	if failure == nil {
		failure = context.Cause(ctx)
	}
	if errors.Is(context.Cause(ctx), ErrClosed) {
		failure = ErrClosed
	}
	return fmt.Errorf("%w after %d tries, and may still appear: %w", bus.ErrNotAcknowledged, tries, failure)
}

// position completes an acknowledgement with the epoch: the follower's, once the
// message was applied or a Resume covers it, and where none runs that of the
// stream. A token of too new an epoch only makes its reader wait, one of too old
// an epoch would be satisfied too early.
func (b *Bus) position(ctx context.Context, a bus.Ack) (bus.Position, error) {
	p, err := b.acks.Position(ctx, a)
	if !errors.Is(err, bus.ErrNotFollowing) {
		return p, err
	}
	epoch, err := b.epoch(ctx)
	if err != nil {
		return bus.Position{}, fmt.Errorf("%w as to its epoch, at seq %d: %w", bus.ErrNotAcknowledged, a.Seq, err)
	}
	return bus.Position{Epoch: epoch, Seq: a.Seq}, nil
}

// epoch reads the epoch from the stream.
func (b *Bus) epoch(ctx context.Context) (bus.Epoch, error) {
	return backoff.Retry(ctx, func() (bus.Epoch, error) {
		// A leader that just stepped down never answers: not one long try.
		try, cancel := context.WithTimeout(ctx, tryTimeout)
		defer cancel()
		epoch, err := b.stream.epoch(try)
		if refused(err) {
			return epoch, backoff.Permanent(err)
		}
		return epoch, err
	}, backoff.WithBackOff(pauses()), backoff.WithMaxElapsedTime(0))
}

// pauses between tries grow, with a jitter of one half.
func pauses() backoff.BackOff {
	p := backoff.NewExponentialBackOff()
	p.InitialInterval, p.MaxInterval = firstPause, longestPause
	return p
}
