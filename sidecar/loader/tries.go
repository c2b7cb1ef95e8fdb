package loader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// tries asks until there is an answer that will do, it makes no sense to go on,
// or ctx, which has a deadline, ends.
func (o *Origin) tries(ctx context.Context, r Request) (Result, error) {
	// Full jitter: from 0 to the interval, so half of it and as much around it.
	pauses := backoff.ExponentialBackOff{
		InitialInterval: o.policy.Backoff / 2, MaxInterval: o.policy.MaxBackoff / 2, RandomizationFactor: 1, Multiplier: 2,
	}
	var former error
	for n := 1; ; n++ {
		result, err := o.try(ctx, r)
		if err == nil {
			return result, nil
		}
		if ctx.Err() != nil {
			return Result{}, o.ended(ctx, n, cmp.Or(former, err))
		}
		if n >= o.policy.Tries || !retryable(err) {
			return Result{}, err
		}
		pause := pauses.NextBackOff()
		if busy := (busyError{}); errors.As(err, &busy) {
			pause = max(pause, busy.after)
		}
		if deadline, _ := ctx.Deadline(); time.Until(deadline) <= pause {
			return Result{}, err
		}
		former = err
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return Result{}, o.ended(ctx, n, err)
		}
	}
}

// ended says why a load ended before its tries did, and what the last one said.
func (o *Origin) ended(ctx context.Context, tries int, last error) error {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, ErrClosed):
		return ErrClosed
	case errors.Is(cause, errHard) && errors.Is(last, ErrTimeout):
		return fmt.Errorf("%w: none within %v in %d tries", ErrTimeout, o.policy.HardTimeout, tries)
	case errors.Is(cause, errHard):
		return fmt.Errorf("%w: none within %v in %d tries: %w", ErrTimeout, o.policy.HardTimeout, tries, last)
	default:
		return fmt.Errorf("after %d tries: %w", tries, ctx.Err())
	}
}

// try asks once, with the origin's leave and within the present timeout.
func (o *Origin) try(ctx context.Context, r Request) (Result, error) {
	leave, err := o.gate.pass(ctx)
	if err != nil {
		return Result{}, err
	}
	o.counts.requests.Add(1)
	o.meters.requests.Inc()
	o.meters.inFlight.Inc()
	timeout := o.timeouts.current()
	within, cancel := context.WithTimeout(ctx, timeout)
	began := time.Now()
	result, err := o.asker.ask(within, r)
	took := time.Since(began)
	over := within.Err() != nil
	cancel()
	o.meters.inFlight.Dec()

	if err != nil && over {
		err = fmt.Errorf("%w: none within %v", ErrTimeout, took)
	}
	if err == nil || ctx.Err() == nil {
		o.learn(err, took, timeout)
	}
	leave(o.verdict(ctx, err, took, timeout))
	if err == nil && r.AtLeast > 0 && result.Version != 0 && result.Version < r.AtLeast {
		err = fmt.Errorf("%w: version %d, want %d", ErrTooOld, result.Version, r.AtLeast)
	}
	return result, err
}

// learn takes what a try took. How fast an origin fails says nothing of how fast
// it answers.
func (o *Origin) learn(err error, took, timeout time.Duration) {
	switch {
	case errors.Is(err, ErrTimeout):
		o.timeouts.cut(timeout)
	case err == nil:
		o.timeouts.answered(took)
	default:
		return
	}
	o.meters.timeout.Set(o.timeouts.current().Seconds())
}

// verdict is what the breaker is told. An answer that is of no use still shows
// that the origin is up, and one that did not come in less than the longest
// timeout may have met our impatience: an origin that became slower, or loads that
// had waited for long, must not look as if it were down.
func (o *Origin) verdict(ctx context.Context, err error, took, timeout time.Duration) error {
	patient := timeout == o.policy.MaxTimeout
	if ctx.Err() != nil { // the hard timeout may come a little before an equal one of a try
		patient = errors.Is(context.Cause(ctx), errHard) && took >= o.policy.MaxTimeout*9/10
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && !patient, errors.Is(err, ErrTimeout) && !patient:
		return errNeutral
	case ctx.Err() != nil, errors.Is(err, ErrFailed), errors.Is(err, ErrTimeout):
		o.fail(err)
		return err
	default:
		return nil
	}
}
