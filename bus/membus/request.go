package membus

import (
	"context"
	"fmt"

	"github.com/nearside-cache/nearside/bus"
)

var _ bus.Requester = (*Bus)(nil)

// Responder answers the requests of all attachments of a Stream. It returns
// bus.ErrNoResponders for subjects on which it would not listen, and must end
// when ctx does. It is called concurrently and keeps neither header nor body.
type Responder func(ctx context.Context, subject string, header map[string][]string, body []byte) (bus.Reply, error)

// Respond has f answer requests from now on; nil: nobody listens.
func (s *Stream) Respond(f Responder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.responder = f
}

// Request implements bus.Requester. It fails where a read of the stream would.
func (b *Bus) Request(ctx context.Context, subject string, header map[string][]string, body []byte) (bus.Reply, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(b.closed, func() { cancel(errClosed) })()
	if b.closed.Err() != nil {
		return bus.Reply{}, errClosed
	}
	if ctx.Err() != nil {
		return bus.Reply{}, context.Cause(ctx)
	}
	if err := b.feed.reachable(); err != nil {
		return bus.Reply{}, err
	}
	b.stream.mu.Lock()
	respond := b.stream.responder
	b.stream.mu.Unlock()
	if respond == nil {
		return bus.Reply{}, fmt.Errorf("membus: request on %s: %w", subject, bus.ErrNoResponders)
	}
	return respond(ctx, subject, header, body)
}
