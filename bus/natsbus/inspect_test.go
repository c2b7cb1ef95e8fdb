package natsbus_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/natsbus"
)

func TestEnsureAndInspectStream(t *testing.T) {
	b := newBroker(t)
	a := b.open(t, b.config())
	_, err := a.InspectStream(within(t, patience))
	require.ErrorIs(t, err, bus.ErrNotFound)
	info, created, err := a.EnsureStream(within(t, patience))
	require.NoError(t, err)
	require.True(t, created)
	again, created, err := a.EnsureStream(within(t, patience))
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, info.Created, again.Created)
	seen, err := a.InspectStream(within(t, patience))
	require.NoError(t, err)
	require.Equal(t, again, seen)
	b.down(t)
	require.Eventually(t, func() bool { return !a.Status().Connected }, patience, time.Millisecond)
	_, _, err = a.EnsureStream(within(t, patience))
	require.ErrorIs(t, err, natsbus.ErrNotConnected)
	require.NoError(t, a.Close())
	_, err = a.InspectStream(within(t, patience))
	require.ErrorIs(t, err, natsbus.ErrClosed)
}

// Whoever is not let in is told so.
func TestInspectStreamUnauthorized(t *testing.T) {
	opts := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, Username: "a", Password: "b"}
	srv, err := server.NewServer(opts)
	require.NoError(t, err)
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	require.True(t, srv.ReadyForConnections(patience))
	subjects, err := bus.NewSubjects("test")
	require.NoError(t, err)
	a, err := natsbus.Open(within(t, patience), natsbus.Config{URL: srv.ClientURL(), Stream: natsbus.StreamConfig{Subjects: subjects}})
	require.NoError(t, err)
	defer a.Close()
	_, err = a.InspectStream(within(t, patience))
	require.ErrorIs(t, err, natsbus.ErrNotConnected)
	require.Contains(t, strings.ToLower(err.Error()), "authorization violation")
}
