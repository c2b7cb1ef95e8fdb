package natsbus_test

import (
	"context"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/natsbus"
)

func TestRequest(t *testing.T) {
	b := newBroker(t)
	a := b.open(t, b.config())
	ask := func(ctx context.Context) (bus.Reply, error) {
		return a.Request(ctx, "cache.product.1", map[string][]string{"Nearside-Key": {"product%3A1"}}, []byte("product:1"))
	}
	_, err := ask(within(t, patience))
	require.ErrorIs(t, err, bus.ErrNoResponders)

	asked := make(chan *nats.Msg, 1)
	answer := true
	sub, err := b.admin.Conn().Subscribe("cache.>", func(m *nats.Msg) {
		if answer {
			_ = m.RespondMsg(&nats.Msg{Header: nats.Header{"Nearside-Version": {"7"}}, Data: []byte("lamp")})
		}
		asked <- m
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sub.Unsubscribe()) })
	require.NoError(t, b.admin.Conn().Flush())
	reply, err := ask(within(t, patience))
	require.NoError(t, err)
	require.Equal(t, bus.Reply{Header: map[string][]string{"Nearside-Version": {"7"}}, Body: []byte("lamp")}, reply)
	m := <-asked
	require.Equal(t, "product:1", string(m.Data))
	require.Equal(t, nats.Header{"Nearside-Key": {"product%3A1"}}, m.Header)

	answer = false
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	_, err = ask(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

// A request under way ends with the connection, not with its deadline, and
// there is no waiting without one.
func TestRequestWithNATSAway(t *testing.T) {
	b := newBroker(t)
	c := b.config()
	way := c.InProcess.(*link)
	a := b.open(t, c)
	sub, err := b.admin.Conn().Subscribe("cache", func(*nats.Msg) { way.set(true) })
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sub.Unsubscribe()) })
	require.NoError(t, b.admin.Conn().Flush())
	ctx := within(t, patience)
	for range 2 {
		_, err = a.Request(ctx, "cache", nil, nil)
		require.ErrorIs(t, err, natsbus.ErrNotConnected)
	}
	require.NoError(t, ctx.Err())
	require.NoError(t, a.Close())
	_, err = a.Request(ctx, "cache", nil, nil)
	require.ErrorIs(t, err, natsbus.ErrClosed)
}
