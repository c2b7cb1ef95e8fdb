package natsbus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/nearside-cache/nearside/bus"
)

var _ bus.Requester = (*Bus)(nil)

// Request implements bus.Requester by a core request. While there is no
// connection it fails at once with ErrNotConnected.
func (b *Bus) Request(ctx context.Context, subject string, header map[string][]string, body []byte) (bus.Reply, error) {
	ctx, done, err := b.begin(ctx)
	if err != nil {
		return bus.Reply{}, err
	}
	defer done()
	if !b.nc.IsConnected() {
		return bus.Reply{}, fmt.Errorf("natsbus: request on %s: %w", subject, ErrNotConnected)
	}
	ctx, answered := b.waits.answer(ctx, subject)
	defer answered()
	reply, err := b.nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: subject, Header: header, Data: body})
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return bus.Reply{}, fmt.Errorf("natsbus: request on %s: %w", subject, bus.ErrNoResponders)
	case err != nil:
		return bus.Reply{}, fmt.Errorf("natsbus: request on %s: %w", subject, cause(ctx, err))
	}
	return bus.Reply{Header: reply.Header, Body: reply.Data}, nil
}
