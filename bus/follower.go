package bus

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Defaults of FollowerConfig.
const (
	DefaultRepairLimit  = 100_000
	DefaultHistoryLimit = 100_000
	DefaultCallTimeout  = 2 * time.Second
)

// Bounds of what a Follower keeps while a gap is open (I15). What does not fit
// is read from the log later; the gap itself is never forgotten.
const (
	aheadMessages = 1024
	aheadBytes    = 8 << 20
	ackedMax      = 4096
)

// ErrBehind says that whoever answered for the stream lags behind it. The step
// remains pending.
var ErrBehind = errors.New("bus: the answer lags behind the stream")

// FollowerConfig is what a Follower needs. Subjects, Log and Handler are
// required; zero elsewhere means the default.
type FollowerConfig struct {
	Subjects Subjects
	Log      Log
	Handler  Handler
	Follow   FollowConfig
	// Process is the random id of this process. Its pulses carry it; without one
	// it never takes the pulser role.
	Process string
	// Monotonic reads the bus's own clock, which stamps pulses where
	// Follow.Clock does not; nil stands still. Safe for concurrent use.
	Monotonic func() time.Duration
	// RepairLimit is how many messages a gap may have before it is a doubt (B2).
	RepairLimit uint64
	// HistoryLimit is how many messages a Resume reads back at most (C9).
	HistoryLimit uint64
	// CallTimeout bounds each single call of Log.
	CallTimeout time.Duration
}

// Pending says what a Follower waits for.
type Pending uint8

// What may be pending, from the least to the most urgent.
const (
	PendingNothing Pending = iota
	PendingAcked           // an acknowledged position was not seen: Recover in some 50 ms
	PendingGap             // a message below one that came is missing: Recover in a few ms
	PendingNow             // a start or log matching is due: Recover at once
)

// FollowerStats counts what a Follower has done; the fields are those of Status.
type FollowerStats struct {
	Gaps, Repairs, Matches, Doubts, Forks, Pulses uint64
}

// Follower turns a stream's live messages and what its Log says into the calls
// that a Handler is owed (B1 to B5 and the start, C9). It has no goroutine, reads
// no clock but the one it is given, and does no I/O but through the Log. One
// goroutine, as a rule that of Drive, calls its methods, save those that say
// that any may.
//
// Invariant: while started, the handler has been given, in order and once,
// every message above the last Resume up to applied, but for those in due; and when
// a method returns, or the handler is told of a Doubt, due is empty.
type Follower struct {
	config      FollowerConfig
	log         boundedLog
	forkSubject string

	due due // applied, and not yet given to the handler

	started bool  // between a Resume and the next Doubt
	resumed bool  // there has been a Resume
	epoch   Epoch // kept over a Doubt, until the next Resume
	applied uint64
	since   time.Time // of the last Resume, by the stream's clock
	ring    ring

	target     uint64             // known to be stored: must be reached
	liveTarget uint64             // the part of it that live messages revealed
	ahead      map[uint64]Message // live messages above applied+1
	aheadBytes int
	acked      map[uint64]uint64 // seq to hash of the message id acknowledged there
	asking     []Ack             // those whose publisher waits for its position

	matchDue bool
	matched  uint64 // the log held at its last matching what was applied up to here
	suspect  uint64 // lowest seq at which something else was seen since; 0 = none
	mismatch Window // a window in which something else was applied (B3a); zero = none
	diverged bool   // a fork event is owed to the fleet before the next Resume

	pulser    pulser
	clocks    clocks
	windowed  uint64    // up to here windows have been named
	retry     RolePulse // the last one, if it failed
	pinging   bool
	pingAfter time.Duration
	replan    uint64 // moves whenever PulseDue or PingDue may have changed

	position                                      atomic.Pointer[Position]
	fork                                          atomic.Uint64 // that of epoch, for pulses
	peer                                          atomic.Pointer[string]
	gaps, repairs, matches, doubts, forks, pulses atomic.Uint64
}

// NewFollower returns a Follower that has not started: its first Recover does
// that. The live feed must be subscribed by then.
func NewFollower(c FollowerConfig) (*Follower, error) {
	if c.Subjects.domain == "" || c.Log == nil || c.Handler == nil {
		return nil, errors.New("bus: a Follower needs Subjects, Log and Handler")
	}
	if c.Follow.Window < 0 {
		return nil, fmt.Errorf("bus: negative fill window %s", c.Follow.Window)
	}
	if c.RepairLimit == 0 {
		c.RepairLimit = DefaultRepairLimit
	}
	if c.HistoryLimit == 0 {
		c.HistoryLimit = DefaultHistoryLimit
	}
	if c.CallTimeout == 0 {
		c.CallTimeout = DefaultCallTimeout
	}
	if c.Follow.Clock == nil {
		c.Follow.Clock = c.Monotonic
	}
	if c.Follow.Clock == nil {
		c.Follow.Clock = func() time.Duration { return 0 }
	}
	if c.Follow.PulseInterval == 0 {
		c.Follow.PulseInterval = DefaultPulseInterval
	}
	return &Follower{
		pulser:      pulser{self: c.Process, interval: c.Follow.PulseInterval},
		config:      c,
		log:         boundedLog{log: c.Log, timeout: c.CallTimeout},
		forkSubject: c.Subjects.Fork(),
		ahead:       make(map[uint64]Message),
		acked:       make(map[uint64]uint64),
		due:         newDue(c.Handler),
	}, nil
}

// Receive takes one live message (B1). m.Data belongs to the Follower from then
// on. It does no I/O; afterwards the owner asks Pending.
func (f *Follower) Receive(m Message) {
	f.take(m)
	f.give()
}

// ReceiveAll is Receive of each, by which a BatchHandler gets several at once. The
// slice is the caller's.
func (f *Follower) ReceiveAll(messages []Message) {
	for i := range messages {
		f.take(messages[i])
	}
	f.give()
}

func (f *Follower) take(m Message) {
	switch {
	case !f.started:
		// The start pulse, still to be published, will be above m.
	case m.Seq <= f.applied:
		if !f.ring.holds(m) {
			f.suspectAt(m.Seq)
		}
	case m.Time.Before(f.since):
		// Newer than the start by number and older by time: it waited in a
		// buffer since before a rollback, or a new leader's clock is behind.
		// The log knows.
		f.matchDue = true
	case m.Seq == f.applied+1 && !f.matchDue:
		f.apply(m)
		f.applyAhead()
	default: // also while log matching is due: m may be of another history
		f.keepAhead(m)
	}
}

// Disturbed tells that the live feed may have lost messages or comes from
// another leader: a reconnect, a slow consumer, a leader change. Log matching
// becomes due (B3).
func (f *Follower) Disturbed() { f.matchDue = true }

// Expect tells that the stream acknowledged a message of our own publisher.
// That very message must be seen at that seq.
func (f *Follower) Expect(a Ack) {
	if !f.started {
		f.ask(a)
		return // the start pulse will be above it
	}
	id := xxhash.Sum64String(a.MsgID)
	if a.Seq <= f.applied {
		if t, ok := f.ring.get(a.Seq); ok && t.id != id {
			f.suspectAt(a.Seq)
			f.ask(a) // until the log has been matched, or a Resume covers it
		} else if a.Applied != nil {
			a.Applied <- f.at()
		}
		return
	}
	f.ask(a)
	if len(f.acked) < ackedMax {
		f.acked[a.Seq] = id
	}
	f.target = max(f.target, a.Seq)
}

// Pending tells whether and how soon Recover is needed.
func (f *Follower) Pending() Pending {
	switch {
	case !f.started || f.matchDue:
		return PendingNow
	case f.liveTarget > f.applied:
		return PendingGap
	case f.target > f.applied:
		return PendingAcked
	default:
		return PendingNothing
	}
}

// Recover does what is pending: start, log matching, gap repair. An error says
// that there was no answer, never that something is lost: it remains pending,
// and the owner calls again after a pause. ErrUnfit says that no further call
// can succeed.
func (f *Follower) Recover(ctx context.Context) error {
	if f.started && (f.matchDue || f.target > f.applied) {
		// Before a repair as well, so that nothing of another history is applied.
		if err := f.match(ctx); err != nil {
			return fmt.Errorf("match the log: %w", err)
		}
	}
	if f.started && f.target > f.applied {
		if err := f.repair(ctx); err != nil {
			return fmt.Errorf("repair the gap above seq %d: %w", f.applied, err)
		}
	}
	if !f.started {
		if err := f.start(ctx); err != nil {
			return fmt.Errorf("start following %s: %w", f.config.Subjects.Stream(), err)
		}
	}
	return nil
}

// Position returns the applied position; zero before the first Resume and
// between a Doubt and its Resume. Any goroutine may call it.
func (f *Follower) Position() Position {
	if p := f.position.Load(); p != nil {
		return *p
	}
	return Position{}
}

// Stats returns the counters. Any goroutine may call it.
func (f *Follower) Stats() FollowerStats {
	return FollowerStats{
		Gaps: f.gaps.Load(), Repairs: f.repairs.Load(), Matches: f.matches.Load(),
		Doubts: f.doubts.Load(), Forks: f.forks.Load(), Pulses: f.pulses.Load(),
	}
}

// setFork changes the fork part of the epoch. It never goes down within one
// incarnation (ADR 0004): a rollback may have removed fork events.
func (f *Follower) setFork(fork uint64) {
	f.epoch.Fork = fork
	f.fork.Store(fork)
}

// at is the position applied.
func (f *Follower) at() Position { return Position{Epoch: f.epoch, Seq: f.applied} }

// keepAhead keeps a message that cannot be applied yet, or discards it when the
// buffer is full: the log has it too.
func (f *Follower) keepAhead(m Message) {
	if f.liveTarget <= f.applied && m.Seq > f.applied+1 {
		f.gaps.Add(1)
	}
	f.liveTarget = max(f.liveTarget, m.Seq)
	f.target = max(f.target, m.Seq)
	if _, ok := f.ahead[m.Seq]; ok {
		return
	}
	if len(f.ahead) < aheadMessages && f.aheadBytes+len(m.Data) <= aheadBytes {
		f.ahead[m.Seq] = m
		f.aheadBytes += len(m.Data)
	}
}

// applyAhead applies the messages kept that have become next in order, until a window
// differs: then nobody may take what follows for a proof of what is applied (I9).
func (f *Follower) applyAhead() {
	for f.started && f.mismatch == (Window{}) && len(f.ahead) > 0 {
		m, ok := f.ahead[f.applied+1]
		if !ok {
			return
		}
		f.apply(m)
	}
}

func (f *Follower) dropAhead(seq uint64) {
	if m, ok := f.ahead[seq]; ok {
		f.aheadBytes -= len(m.Data)
		delete(f.ahead, seq)
	}
}

// suspectAt makes log matching due, down to seq.
func (f *Follower) suspectAt(seq uint64) {
	f.matchDue = true
	if f.suspect == 0 || seq < f.suspect {
		f.suspect = seq
	}
}

// doubt tells the handler at once, before any I/O that may fail; the next
// Recover starts again. A reason that means two histories owes the fleet a fork
// event first.
func (f *Follower) doubt(r Reason) {
	f.give() // what was applied before
	f.started = false
	f.diverged = r == ReasonForked || r == ReasonRolledBack
	f.position.Store(nil)
	f.doubts.Add(1)
	f.config.Handler.Doubt(r)
}
