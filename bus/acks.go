package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// ackBuffer is how many acknowledgements may wait for the Follower.
const ackBuffer = 1024

// ErrNotFollowing says that nobody follows the stream on this attachment.
var ErrNotFollowing = errors.New("bus: nobody follows on this attachment")

// Ack is a position that the stream acknowledged to a publisher of this
// process, or of another that it asked.
type Ack struct {
	Seq   uint64
	MsgID string
	// Applied, when set, is told once whether and where the Follower found the
	// message: the position whose epoch is that of the message or newer, as soon
	// as it was applied or a Resume covers it. It must have room.
	Applied chan<- Position
}

// Acks takes acknowledgements from the publishers of an attachment to its
// Follower, and epochs back. It is safe for concurrent use.
type Acks struct {
	queue chan Ack

	mu    sync.Mutex
	ended chan struct{} // nil: nobody follows; closed when following has ended
}

// NewAcks returns Acks without a Follower.
func NewAcks() *Acks { return &Acks{queue: make(chan Ack, ackBuffer)} }

// Queue is Feed.Acked.
func (a *Acks) Queue() <-chan Ack { return a.queue }

// Following says that a Follower takes from the queue until stop is called.
func (a *Acks) Following() (stop func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ended := make(chan struct{})
	a.ended = ended
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.ended = nil
		close(ended)
	}
}

func (a *Acks) following() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ended
}

// Tell has the Follower expect ack, without waiting. False says that it could
// not be told and shall match its log instead.
func (a *Acks) Tell(ack Ack) bool {
	if a.following() == nil {
		return true // nobody is there to be told
	}
	select {
	case a.queue <- ack:
		return true
	default:
		return false
	}
}

// Position has the Follower expect ack and waits until it was applied or a
// Resume covers it. The epoch is then not older than the message's own, which an
// epoch read earlier could be: a token of it would be satisfied by a sidecar
// that knows of the newer epoch, but not yet of the message. Errors are
// ErrNotFollowing, and ErrNotApplied with the cause of ctx's end.
func (a *Acks) Position(ctx context.Context, ack Ack) (Position, error) {
	ended := a.following()
	if ended == nil {
		return Position{}, ErrNotFollowing
	}
	applied := make(chan Position, 1)
	ack.Applied = applied
	late := func() (Position, error) {
		return Position{Seq: ack.Seq}, fmt.Errorf("%w: seq %d: %w", ErrNotApplied, ack.Seq, context.Cause(ctx))
	}
	select {
	case a.queue <- ack:
	case <-ended:
		return Position{}, ErrNotFollowing
	case <-ctx.Done():
		return late()
	}
	select {
	case p := <-applied:
		// A Resume may stand below ack.Seq: its flush covers what a rollback lost.
		return Position{Epoch: p.Epoch, Seq: min(ack.Seq, p.Seq)}, nil
	case <-ended:
		return Position{}, ErrNotFollowing
	case <-ctx.Done():
		return late()
	}
}
