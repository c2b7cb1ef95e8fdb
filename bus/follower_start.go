package bus

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sort"
	"time"

	"github.com/cespare/xxhash/v2"
)

// start finds the position from which the handler can trust the stream (C9): a
// pulse of our own, acknowledged by the stream, and the history before it. The
// handler hears of it only when everything has succeeded.
func (f *Follower) start(ctx context.Context) error {
	before, err := f.log.State(ctx)
	if err != nil {
		return err
	}
	if created := before.Created.UnixNano(); created != f.epoch.Created {
		f.epoch, f.diverged = Epoch{Created: created}, false
		f.setFork(0)
	}
	if f.diverged {
		if err := f.publishFork(ctx, before); err != nil {
			return fmt.Errorf("publish the fork event: %w", err)
		}
		f.diverged = false
	}
	// Our own pulse hides the others', and history may not reach back to one.
	pulsed, _, err := f.newestFork(ctx, f.config.Subjects.Pulse())
	if err != nil {
		return err
	}
	f.setFork(max(f.epoch.Fork, pulsed))
	sent := f.config.Follow.Clock()
	seq, id, err := f.pulse(ctx)
	if err != nil {
		return err
	}
	state, err := f.log.State(ctx)
	if err != nil {
		return err
	}
	fork, at, err := f.newestFork(ctx, f.config.Subjects.Fork())
	if err != nil {
		return err
	}
	if at > seq {
		return fmt.Errorf("%w: a fork event at seq %d came after the start pulse at %d", ErrBehind, at, seq)
	}
	pulse, err := f.log.At(ctx, seq)
	if err != nil {
		return err
	}
	// Between the calls the stream may have become another one.
	if pulse.MsgID != id || state.Last < seq || !state.Created.Equal(before.Created) {
		return fmt.Errorf("%w: the start pulse is not at seq %d", ErrBehind, seq)
	}
	f.setFork(max(f.epoch.Fork, fork))
	h, err := f.readHistory(ctx, state, pulse)
	if err != nil {
		return fmt.Errorf("read back history: %w", err)
	}
	f.setFork(max(f.epoch.Fork, f.forkIn(h.messages)))
	f.begin(sent, h)
	return nil
}

// begin takes over what start has found and resumes the handler.
func (f *Follower) begin(sent time.Duration, h history) {
	pulse := h.messages[len(h.messages)-1]
	r := Resume{
		Fresh:       sent,
		Position:    Position{Epoch: f.epoch, Seq: pulse.Seq},
		Time:        pulse.Time,
		HistoryFrom: h.messages[0].Seq - 1,
		Blind:       h.blind,
	}
	f.ring.reset(h.messages[0].Seq)
	r.History = make([]Delivery, len(h.messages))
	for i, m := range h.messages {
		t := traceOf(m)
		f.ring.put(m.Seq, t)
		f.deliver(&r.History[i], m, t.digest, nil)
	}
	f.started, f.resumed, f.since = true, true, pulse.Time
	f.applied, f.matched, f.target, f.liveTarget = pulse.Seq, pulse.Seq, pulse.Seq, pulse.Seq
	f.matchDue, f.suspect, f.mismatch = false, 0, Window{}
	clear(f.ahead)
	clear(f.acked)
	f.aheadBytes = 0
	f.beginPulses(r)
	f.position.Store(&r.Position)
	f.config.Handler.Resume(r)
	// Their messages were acknowledged before the start pulse was published.
	f.answer(0, math.MaxUint64)
}

// forkIn returns the newest fork that the fork events and the pulses among
// messages know of. In pulses it outlives the fork event, which retention may
// have removed.
func (f *Follower) forkIn(messages []Message) (fork uint64) {
	for _, m := range messages {
		fork = max(fork, ForkOf(f.config.Subjects, m))
	}
	return fork
}

// newestFork returns the fork part that the newest message on subject proves,
// that of the fork events or of the pulses, and its seq; both 0 when there is
// none.
func (f *Follower) newestFork(ctx context.Context, subject string) (fork, seq uint64, err error) {
	m, err := f.log.Last(ctx, subject)
	if errors.Is(err, ErrNotFound) {
		return 0, 0, nil
	}
	return ForkOf(f.config.Subjects, m), m.Seq, err
}

// history is the newest part of the log, contiguous, up to the start pulse.
type history struct {
	messages []Message
	blind    time.Duration // how long plain SETs cannot be judged by it (C3)
}

// readHistory reads back the last two fill windows before pulse: those of the
// stream's clock, and at least as far back as what is known of this stream, since the
// stream's clock may have jumped. Where nothing is known, or not all of it can be
// read, it is blind until two windows have passed (ADR 0008).
func (f *Follower) readHistory(ctx context.Context, state LogState, pulse Message) (history, error) {
	span := 2 * f.config.Follow.Window
	begin := pulse.Time.Add(-max(span, f.config.Follow.History))
	oldest, err := f.log.Since(ctx, begin, 1)
	if err != nil {
		return history{}, err
	}
	if len(oldest) == 0 || oldest[0].Seq > pulse.Seq {
		return history{}, fmt.Errorf("%w: nothing since %s, a pulse was stored at %s", ErrBehind, begin, pulse.Time)
	}
	var earlier Earlier
	if f.config.Follow.Earlier != nil {
		earlier = f.config.Follow.Earlier()
	}
	same := earlier.Epoch == f.epoch
	from := oldest[0].Seq
	if same { // the stream's clock may have jumped
		from = min(from, max(earlier.Seq+1, state.First))
	}
	if pulse.Seq-from >= f.config.HistoryLimit {
		from = pulse.Seq - f.config.HistoryLimit + 1
	}
	messages, err := f.readUpTo(ctx, from, pulse)
	if gone := (*goneError)(nil); errors.As(err, &gone) {
		return history{messages: []Message{pulse}, blind: span}, nil
	} else if err != nil {
		return history{}, err
	}
	h := history{messages: messages}
	h.blind = span
	if same && messages[0].Seq <= earlier.Seq+1 {
		h.blind = min(earlier.Blind, span)
	}
	return h, nil
}

// historyBytes bounds what a history holds of message bodies (I15).
const historyBytes = 32 << 20

// readUpTo returns the messages from seq to pulse, contiguous; of too many bytes
// only the newest.
func (f *Follower) readUpTo(ctx context.Context, seq uint64, pulse Message) ([]Message, error) {
	var messages []Message
	size := len(pulse.Data)
	for seq < pulse.Seq {
		more, err := f.read(ctx, seq, int(pulse.Seq-seq))
		if err != nil {
			return nil, err
		}
		messages = append(messages, more...)
		seq += uint64(len(more))
		for _, m := range more {
			size += len(m.Data)
		}
		for ; size > historyBytes; messages = messages[1:] {
			size -= len(messages[0].Data)
			messages[0] = Message{}
		}
	}
	return append(messages, pulse), nil
}

// pulse publishes a pulse without a role (B4) under an id of its own.
func (f *Follower) pulse(ctx context.Context) (seq uint64, id string, err error) {
	body, err := Encode(f.Pulse())
	if err != nil {
		return 0, "", err
	}
	id = rand.Text()
	seq, err = f.log.Append(ctx, f.config.Subjects.Pulse(), id, body)
	return seq, id, err
}

// publishFork tells the fleet that two contents were seen for one position, by
// one fork event however many sidecars notice (B3). Nothing is to be published
// when a fork event that was not applied here is stored already.
func (f *Follower) publishFork(ctx context.Context, state LogState) error {
	fork, _, err := f.newestFork(ctx, f.config.Subjects.Fork())
	if err != nil || fork > f.epoch.Fork {
		return err
	}
	seq, digest, err := f.divergence(ctx, state)
	if err != nil {
		return err
	}
	body, err := Encode(Event{Op: OpFork, Pulse: Pulse{Fork: f.epoch.Fork}})
	if err != nil {
		return err
	}
	if _, err := f.log.Append(ctx, f.config.Subjects.Fork(), f.forkID(seq, digest), body); err != nil {
		return err
	}
	f.forks.Add(1)
	return nil
}

// divergence finds the first seq at which the log differs from what was
// applied, the same for every sidecar that applied it, and the digest of what
// the log holds there (0 = nothing yet).
func (f *Follower) divergence(ctx context.Context, state LogState) (seq, digest uint64, err error) {
	from := max(f.ring.oldest, state.First)
	if from > f.ring.next {
		from = f.ring.next
	}
	at := func(seq uint64) (m Message, ok bool) {
		if err != nil {
			return Message{}, false
		}
		m, failure := f.log.At(ctx, seq)
		if failure != nil && !errors.Is(failure, ErrNotFound) {
			err = failure
		}
		return m, failure == nil
	}
	// Two histories agree up to a seq and differ from there on.
	n := sort.Search(int(f.ring.next-from), func(i int) bool {
		m, ok := at(from + uint64(i))
		return !ok || !f.ring.holds(m)
	})
	seq = from + uint64(n)
	if m, ok := at(seq); ok {
		digest = m.Digest()
	}
	return seq, digest, err
}

// forkID is the message id of the fork event for one divergence.
func (f *Follower) forkID(seq, digest uint64) string {
	var b []byte
	for _, part := range []uint64{uint64(f.epoch.Created), f.epoch.Fork, seq, digest} {
		b = binary.LittleEndian.AppendUint64(b, part)
	}
	return fmt.Sprintf("fork-%016x", xxhash.Sum64(b))
}
