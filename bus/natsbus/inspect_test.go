package natsbus_test

import (
	"testing"
	"time"

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
