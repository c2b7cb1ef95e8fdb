package l2

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/nearside-cache/nearside/bus"
)

const (
	// A failed call adds failureWeight to a link's score, an answered one takes 1
	// off, and at tripAt the link is given up: after 5 failures in a row, or when
	// more than a third of the calls fail for a while.
	failureWeight = 2
	tripAt        = 10

	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
	// steadyFor is how long a link must have lasted for the next pause to be short
	// again.
	steadyFor = 10 * time.Second
)

// link is an open bucket, for as long as it answers. It is the circuit breaker:
// whoever finds none goes on without the tier at once, and no reader tries
// whether it is back.
type link struct {
	bus.Bucket
	score atomic.Int32
	gone  chan struct{} // closed when it was given up
}

// call does f with the bucket, for limit at most. It returns ErrAway when there
// was no answer, and else f's error.
func (t *Tier) call(ctx context.Context, limit time.Duration, f func(context.Context, bus.Bucket) error) error {
	l, err := t.reach()
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	return t.settle(ctx, l, f(limited, l))
}

// reach returns the link, if there is one.
func (t *Tier) reach() (*link, error) {
	if t.ctx.Err() != nil {
		return nil, ErrClosed
	}
	l := t.link.Load()
	if l == nil {
		t.counts.away.Add(1)
		return nil, ErrAway
	}
	return l, nil
}

// settle books what came of a call: err, as its caller, whose context is ctx, is
// to see it.
func (t *Tier) settle(ctx context.Context, l *link, err error) error {
	switch {
	case answered(err):
		if l.score.Load() > 0 {
			l.score.Add(-1)
		}
		return err
	case ctx.Err() != nil: // the caller gave up: that says nothing about the tier
		return fmt.Errorf("l2: %w", ctx.Err())
	case t.ctx.Err() != nil:
		return ErrClosed
	}
	t.counts.away.Add(1)
	if l.score.Add(failureWeight) >= tripAt && t.link.CompareAndSwap(l, nil) {
		t.fail(err)
		t.log.Warn("the shared tier gives no answer, reads go on without it", "bucket", t.name, "error", err)
		close(l.gone)
	}
	return fmt.Errorf("%w: %w", ErrAway, err)
}

// answered reports whether err is an answer of the bucket, or of our own.
func answered(err error) bool {
	if err == nil {
		return true
	}
	for _, known := range []error{
		bus.ErrKeyNotFound, bus.ErrConflict, bus.ErrTooLarge, bus.ErrBadKey, bus.ErrForeign, ErrOtherEpoch,
		errMalformed, errNewer, errContended,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// keep opens the bucket, again whenever it stops answering, until Close.
func (t *Tier) keep() {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval, pauses.Multiplier = firstPause, longestPause, 2
	for t.ctx.Err() == nil {
		l, err := t.open()
		if err == nil {
			began := time.Now()
			t.link.Store(l)
			t.log.Info("the shared tier is open", "bucket", t.name)
			select {
			case <-l.gone:
			case <-t.ctx.Done():
			}
			if time.Since(began) >= steadyFor {
				pauses.Reset()
			}
		} else if t.ctx.Err() == nil {
			t.fail(err)
			t.trouble.Do(func() {
				t.log.Warn("cannot open the shared tier, trying again", "bucket", t.name, "error", err)
			})
		}
		pause := time.NewTimer(pauses.NextBackOff())
		select {
		case <-pause.C:
		case <-t.ctx.Done():
		}
		pause.Stop()
	}
}

// open opens the bucket, makes it if it must, and tries whether it answers as fast
// as a read needs it.
func (t *Tier) open() (*link, error) {
	ctx, cancel := context.WithTimeout(t.ctx, writeTimeout)
	defer cancel()
	b, err := t.buckets.Bucket(ctx, t.name, t.policy.BucketConfig())
	if err != nil {
		return nil, err
	}
	ctx, cancel = context.WithTimeout(t.ctx, t.policy.Timeout)
	defer cancel()
	if _, _, err := b.Get(ctx, probeKey); !answered(err) {
		return nil, fmt.Errorf("no answer to a read within l2.timeout (%v): %w", t.policy.Timeout, err)
	}
	return &link{Bucket: b, gone: make(chan struct{})}, nil
}

func (t *Tier) fail(err error) { t.failure.Store(&err) }
