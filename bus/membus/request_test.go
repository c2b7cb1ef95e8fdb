package membus_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/membus"
)

func TestRequests(t *testing.T) {
	s, err := membus.NewStream("test")
	require.NoError(t, err)
	b := s.Attach(membus.Options{})
	ctx := t.Context()
	ask := func(ctx context.Context) (bus.Reply, error) {
		return b.Request(ctx, "cache.product.1", map[string][]string{"A": {"b"}}, []byte("product:1"))
	}
	_, err = ask(ctx)
	require.ErrorIs(t, err, bus.ErrNoResponders)

	s.Respond(func(_ context.Context, subject string, header map[string][]string, body []byte) (bus.Reply, error) {
		return bus.Reply{Header: header, Body: append([]byte(subject+" "), body...)}, nil
	})
	reply, err := ask(ctx)
	require.NoError(t, err)
	require.Equal(t, bus.Reply{Header: map[string][]string{"A": {"b"}}, Body: []byte("cache.product.1 product:1")}, reply)

	b.FailCalls(1)
	_, err = ask(ctx)
	require.Error(t, err)
	b.Disconnect()
	_, err = ask(ctx)
	require.Error(t, err)
	require.NotErrorIs(t, err, bus.ErrNoResponders, "who is away cannot know it")
	b.Reconnect()
	_, err = ask(ctx)
	require.NoError(t, err)

	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = ask(ended)
	require.ErrorIs(t, err, context.Canceled)
}

// Close and the end of the caller's context both end a request under way.
func TestRequestEnds(t *testing.T) {
	s, err := membus.NewStream("test")
	require.NoError(t, err)
	asked := make(chan struct{})
	s.Respond(func(ctx context.Context, _ string, _ map[string][]string, _ []byte) (bus.Reply, error) {
		asked <- struct{}{}
		<-ctx.Done()
		return bus.Reply{}, context.Cause(ctx)
	})
	b := s.Attach(membus.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	ask := func() {
		_, err := b.Request(ctx, "a", nil, nil)
		ended <- err
	}
	go ask()
	<-asked
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	ctx = t.Context()
	go ask()
	<-asked
	require.NoError(t, b.Close())
	require.ErrorContains(t, <-ended, "closed")
	_, err = b.Request(ctx, "a", nil, nil)
	require.ErrorContains(t, err, "closed")
}
