package natsbus_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/natsbus"
)

// A name service that gives no answer holds up nobody for longer than one attempt to
// connect may take: the sidecar starts without NATS, and ends when it is told to.
func TestLookupWithoutAnAnswer(t *testing.T) {
	before := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = before })
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	subjects, err := bus.NewSubjects("test")
	require.NoError(t, err)
	began := time.Now()
	b, err := natsbus.Open(t.Context(), natsbus.Config{URL: "nats://nats.example:4222", Stream: natsbus.StreamConfig{Subjects: subjects}})
	require.NoError(t, err)
	require.Less(t, time.Since(began), 8*time.Second)
	_, err = b.InspectStream(within(t, patience))
	require.ErrorIs(t, err, natsbus.ErrNotConnected)
	require.NoError(t, b.Close())
	require.Less(t, time.Since(began), 16*time.Second)
}
