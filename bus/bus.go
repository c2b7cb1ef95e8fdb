// Package bus is the contract between a sidecar and the ordered stream of
// invalidation events, and the codec of those events.
//
// The stream is the only source of order in nearside. A domain has one stream;
// every message in it has a sequence number (seq), and every sidecar of the
// domain applies every message in seq order, exactly once in effect. Whoever
// implements Bus owes its Handler one promise: every event once and in order,
// or a Doubt in its place, never silence.
//
// The rules B1 to B6 (continuity, gap repair, log matching, pulses, freshness,
// barriers) live in Follower and Barriers and are the same for every implementation; an implementation supplies the
// Log that a Follower reads and the live messages it is fed with.
package bus

import (
	"context"
	"errors"
	"time"
)

// Errors that callers act on. They are wrapped with what failed; compare with
// errors.Is.
var (
	// ErrNotAcknowledged says that a published event was not confirmed by the
	// stream before the caller's deadline. The event may still appear (B8).
	ErrNotAcknowledged = errors.New("bus: not acknowledged by the stream")
	// ErrNotApplied says that a published event is in the stream, but that the
	// caller's deadline came before this attachment had applied it. The position
	// returned beside it has the right seq, but no epoch: it is no token.
	ErrNotApplied = errors.New("bus: acknowledged by the stream but not applied here yet")
	// ErrNotFound says that the stream's leader holds no message at a seq.
	ErrNotFound = errors.New("bus: no message at this position")
	// ErrTooLarge says that an event exceeds a limit of the codec or the bus.
	ErrTooLarge = errors.New("bus: event too large")
	// ErrUnfit says that following is impossible for good: the stream's settings
	// cannot give the guarantees, or permission is denied. A Log wraps it; Drive
	// returns it instead of retrying.
	ErrUnfit = errors.New("bus: the stream cannot be followed")
)

// Bus is one attachment to a domain's stream. It is safe for concurrent use.
type Bus interface {
	// Publish appends e to the stream under the given namespace and returns
	// the position that the stream acknowledged. It retries under one message
	// id until ctx ends, and then returns ErrNotAcknowledged with the cause.
	// While this attachment follows, it returns only when the event was applied
	// or a Resume covers it, since only then its epoch is known for certain; or
	// with ErrNotApplied.
	// Slices in e are not kept after it returns.
	Publish(ctx context.Context, namespace string, e Event) (Position, error)
	// Follow attaches h to the stream and blocks until ctx ends, which is not
	// an error, or until following is impossible for good (the stream's
	// settings cannot give the guarantees, permission denied). It may be called
	// once. All calls to h come from one goroutine at a time.
	Follow(ctx context.Context, h Handler, c FollowConfig) error
	// Barrier returns a position that covers everything acknowledged to anyone
	// before the call (B6): who waits until a Handler has applied it there has it
	// all. It returns as Publish does.
	Barrier(ctx context.Context) (Position, error)
	// Status tells how the attachment is now.
	Status() Status
	// Close detaches. It may be called more than once.
	Close() error
}

// BatchHandler is a Handler that takes several events at once.
type BatchHandler interface {
	Handler
	// ApplyAll is Apply of each in order, in place of it. What is in ds may be kept
	// save ds itself and the Keys of the events, which are used anew; there is at least one.
	ApplyAll(ds []Delivery)
}

// FollowConfig says how a Follower starts.
type FollowConfig struct {
	// Window is the fill window of rule C3. A Resume reads back the events of
	// the last two windows (one is the margin for the stream's clock).
	Window time.Duration
	// History is how far a Resume reads back at least, where the stream's clock can be
	// trusted and the limit of messages allows: for what is judged by events from
	// before. 0 is two windows.
	History time.Duration
	// Earlier returns what this sidecar knows of what it applied before, in this
	// life or in one that ended within the last window; zero when nothing. It is
	// called at every start, from its goroutine. Nil: nothing is known.
	Earlier func() Earlier
	// Clock is the handler's own monotonic clock, safe for concurrent use and
	// never negative: that of Delivery.Fresh, and the one that stamps this
	// process's pulses. Nil is the bus's own.
	Clock func() time.Duration
	// PulseInterval is how often the pulser publishes (B4); 0 is
	// DefaultPulseInterval. All sidecars of a domain should have the same. With a
	// negative one this attachment never takes the role.
	PulseInterval time.Duration
}

// Earlier is what was known before a start: where the stream is still the one that
// was followed, and all since Seq can be read back, no event can be missing, whatever
// the stream's clock shows (ADR 0008).
type Earlier struct {
	Epoch Epoch         // that was followed; zero = unknown
	Seq   uint64        // applied two windows ago, or where what was known began
	Blind time.Duration // for how long from now plain SETs could not have been judged
}

// Status is a snapshot for people and metrics; no rule depends on it.
type Status struct {
	Connected bool   // there is a connection to the broker
	Server    string // name or address of the broker; empty when not connected
	Stream    string // name of the stream
	Gaps      uint64 // holes seen in the live feed
	Repairs   uint64 // gaps that were filled from the stream
	Matches   uint64 // log matchings done (B3)
	Doubts    uint64 // times continuity could not be proven
	Forks     uint64 // fork events published by this attachment
	Pulses    uint64 // role pulses published by this attachment (B4)
	Pulser    bool   // this attachment holds the pulser role
}

// Handler receives what a stream holds. Its methods are never called
// concurrently, must not block, and must not call back into the Bus. A Doubt is
// always followed by a Resume, unless following ends; between the two no event
// is delivered. The first call is always a Resume.
type Handler interface {
	// Apply is called once for every event, in stream order. d and what it
	// points to may be kept.
	Apply(d Delivery)
	// Doubt says that continuity can no longer be proven: whatever was built on
	// the events so far must be taken for stale.
	Doubt(r Reason)
	// Resume says from where events go on: everything at or below r.Position
	// is covered by the flush that the Doubt (or the start) was.
	Resume(r Resume)
}

// Delivery is one event as the stream holds it.
type Delivery struct {
	Position  Position
	Time      time.Time // when the stream stored it, by the stream's clock
	Namespace string    // from the subject; empty for the whole domain
	Event     Event
	// Digest condenses the message (Message.Digest): at one seq, two histories have two.
	Digest uint64
	// Err is set when the message could not be decoded. Event is then zero and
	// the namespace (the domain, when empty) must be flushed.
	Err error
	// Fresh is a moment of FollowConfig.Clock: everything acknowledged to its
	// publisher before it has been applied once this delivery is handled (B5). 0
	// says nothing. It may be below that of an earlier delivery: the maximum
	// counts.
	Fresh time.Duration
}

// Resume is the point from which a Handler can trust the stream again.
type Resume struct {
	Position Position
	Time     time.Time // the stream's time of Position
	// History holds the deliveries of the last two windows up to and including
	// Position, oldest first. All carry Position's epoch.
	History []Delivery
	// HistoryFrom is the seq from which on History is known to have no hole:
	// it holds every event with HistoryFrom < seq <= Position.Seq.
	HistoryFrom uint64
	// Blind is how long from now on plain SETs cannot be judged, because the
	// history of the last windows cannot be had; 0 when it can.
	Blind time.Duration
	// Fresh is as in Delivery: what was acknowledged before it is at or below
	// Position.
	Fresh time.Duration
}

// Reason says why continuity is in doubt. Values are append-only.
type Reason uint8

// Reasons for a Doubt.
const (
	ReasonNone       Reason = iota
	ReasonTrimmed           // retention or a purge passed us
	ReasonHole              // a message inside the stream is gone
	ReasonRecreated         // the stream is another incarnation
	ReasonRolledBack        // the stream ends before what was applied
	ReasonForked            // another content at a position that was applied
	ReasonTooFar            // the gap is over the repair limit
	ReasonDeleted           // the stream does not exist
)

var reasonNames = [...]string{"none", "trimmed", "hole", "recreated", "rolled-back", "forked", "too-far", "deleted"}

// String returns the name used in logs and as a metric label.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "unknown"
}

// Reasons returns all reasons for a Doubt, for those who count them.
func Reasons() []Reason {
	all := make([]Reason, 0, len(reasonNames)-1)
	for i := 1; i < len(reasonNames); i++ {
		all = append(all, Reason(i))
	}
	return all
}
