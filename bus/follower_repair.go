package bus

import (
	"context"
	"errors"
	"fmt"
)

// repair reads everything up to target from the log and applies it in place
// (B2), then matches the log (B3), as its caller did before. What it has applied
// stays applied when it fails half way. Live messages that were kept are read
// again and must be the same.
func (f *Follower) repair(ctx context.Context) error {
	if f.target-f.applied > f.config.RepairLimit {
		f.doubt(ReasonTooFar)
		return nil
	}
	for f.started && f.applied < f.target {
		messages, err := f.read(ctx, f.applied+1, int(f.target-f.applied))
		if gone := (*goneError)(nil); errors.As(err, &gone) {
			f.doubt(f.verdict(gone.state, gone.seq))
			return nil
		}
		if err != nil {
			return err
		}
		for _, m := range messages {
			if f.apply(m); !f.started {
				return nil
			}
		}
		f.give()
	}
	f.repairs.Add(1)
	// Due even if it fails now: what was applied before the gap and what was
	// read into it must be of one history.
	f.matchDue = true
	return f.match(ctx)
}

// goneError says that the leader, proven to be current, has no message at seq.
type goneError struct {
	seq   uint64
	state LogState
}

func (e *goneError) Error() string {
	return fmt.Sprintf("no message at seq %d of a log that holds %d to %d", e.seq, e.state.First, e.state.Last)
}

func (e *goneError) Unwrap() error { return ErrNotFound }

// read returns at least one and at most n messages, contiguous from seq on. Any
// replica may answer; that there is none at seq, a goneError, is the leader's
// word.
func (f *Follower) read(ctx context.Context, seq uint64, n int) ([]Message, error) {
	messages, err := f.log.Range(ctx, seq, min(n, batch))
	if err != nil {
		return nil, err
	}
	for i, m := range messages {
		if m.Seq != seq+uint64(i) || i == n {
			messages = messages[:i]
			break
		}
	}
	if len(messages) > 0 {
		return messages, nil
	}
	m, err := f.readLeader(ctx, seq)
	return []Message{m}, err
}

// readLeader returns the leader's message at seq. "Not found" counts only after
// an acknowledged pulse, since a former leader does not know what it missed.
func (f *Follower) readLeader(ctx context.Context, seq uint64) (Message, error) {
	m, err := f.log.At(ctx, seq)
	if !errors.Is(err, ErrNotFound) {
		return m, err
	}
	state, err := f.proveState(ctx)
	if err != nil {
		return Message{}, err
	}
	if f.started && (state.Last < f.target || state.Created.UnixNano() != f.epoch.Created) {
		// Whatever was seen so far was stored before that pulse, and so below it:
		// what was seen above is not in the log any more, or never was.
		return Message{}, &goneError{seq: max(f.target, seq), state: state}
	}
	if m, err = f.log.At(ctx, seq); errors.Is(err, ErrNotFound) {
		return Message{}, &goneError{seq: seq, state: state}
	}
	return m, err
}

// proveState publishes a pulse and then asks for the state, which proves itself
// by reaching the pulse.
func (f *Follower) proveState(ctx context.Context) (LogState, error) {
	seq, _, err := f.pulse(ctx)
	if err != nil {
		return LogState{}, err
	}
	state, err := f.log.State(ctx)
	if err == nil && state.Last < seq && state.Created.UnixNano() == f.epoch.Created {
		err = fmt.Errorf("%w: it ends at seq %d, a pulse was acknowledged at %d", ErrBehind, state.Last, seq)
	}
	return state, err
}
