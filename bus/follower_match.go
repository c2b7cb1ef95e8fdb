package bus

import (
	"context"
	"errors"
)

// batch is how many messages one Range asks for, and how many applied ones at
// most a log matching compares.
const batch = 1024

// match proves that what was applied since the last matching is still what the
// log holds (B3), and learns how far the log reaches. If it is not, that is a
// doubt.
func (f *Follower) match(ctx context.Context) error {
	state, err := f.log.State(ctx)
	if err == nil && state.Last < f.applied {
		// The answer of a leader that was paused looks like a rollback; after
		// an acknowledged pulse it no longer can.
		state, err = f.proveState(ctx)
	}
	switch {
	case errors.Is(err, ErrNotFound):
		f.doubt(ReasonDeleted)
		return nil
	case err != nil:
		return err
	}
	if r := f.verdict(state, f.applied); r != ReasonNone && r != ReasonHole {
		f.doubt(r)
		return nil
	}
	if state.First > f.matched+1 && f.matched < f.applied {
		f.doubt(ReasonTrimmed) // what cannot be compared any more proves nothing
		return nil
	}
	r, err := f.compare(ctx, state)
	switch {
	case err != nil:
		return err
	case r != ReasonNone:
		f.doubt(r)
		return nil
	}
	f.matches.Add(1)
	f.matchDue, f.suspect, f.mismatch, f.matched = false, 0, Window{}, f.applied
	f.target = max(f.target, state.Last)
	// Those who still wait below had their message lost before a Resume.
	f.answer(0, f.applied)
	return nil
}

// compare looks for another content at what was applied since the last
// matching, the message at applied first and from the leader.
func (f *Follower) compare(ctx context.Context, state LogState) (Reason, error) {
	seqs := []uint64{f.applied}
	from := max(f.matched, state.First, f.ring.oldest)
	if f.applied-from >= batch {
		from = f.applied - batch + 1
	}
	if f.suspect >= state.First && f.suspect >= f.ring.oldest && f.suspect != 0 && f.suspect < from {
		seqs = append(seqs, f.suspect)
	}
	// Replicas may differ, so the leader is asked for all of a window of which
	// one said something else (B3a).
	for seq := max(f.mismatch.From+1, state.First, f.ring.oldest); seq <= f.mismatch.To; seq++ {
		seqs = append(seqs, seq)
	}
	for _, seq := range seqs {
		if r, err := f.compareAt(ctx, seq); r != ReasonNone || err != nil {
			return r, err
		}
	}
	for next := from; next < f.applied; {
		messages, err := f.read(ctx, next, int(f.applied-next))
		if gone := (*goneError)(nil); errors.As(err, &gone) {
			return f.verdict(gone.state, gone.seq), nil
		} else if err != nil {
			return ReasonNone, err
		}
		for _, m := range messages {
			if f.ring.holds(m) {
				continue
			}
			// A replica said so; the leader decides.
			if r, err := f.compareAt(ctx, m.Seq); r != ReasonNone || err != nil {
				return r, err
			}
		}
		next += uint64(len(messages))
	}
	return ReasonNone, nil
}

// compareAt compares the leader's message at one seq with the applied one.
func (f *Follower) compareAt(ctx context.Context, seq uint64) (Reason, error) {
	m, err := f.readLeader(ctx, seq)
	if gone := (*goneError)(nil); errors.As(err, &gone) {
		return f.verdict(gone.state, gone.seq), nil
	}
	if err == nil && !f.ring.holds(m) {
		return ReasonForked, nil
	}
	return ReasonNone, err
}

// verdict says what it means that the log, being in state, has no message at
// seq, or would if it had none.
func (f *Follower) verdict(state LogState, seq uint64) Reason {
	switch {
	case state.Created.UnixNano() != f.epoch.Created:
		return ReasonRecreated
	case state.First > seq:
		return ReasonTrimmed
	case state.Last < seq:
		return ReasonRolledBack
	default:
		return ReasonHole
	}
}
