package natsbus_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/natsbus"
)

// lists returns the subjects of a set, to publish on and to subscribe to.
func lists(all []natsbus.Permission, optional bool) (publish, subscribe []string) {
	for _, p := range all {
		switch {
		case p.Forbidden, p.Optional && !optional:
		case p.Subscribe:
			subscribe = append(subscribe, p.Subject)
		default:
			publish = append(publish, p.Subject)
		}
	}
	return publish, subscribe
}

func testPermissions(t *testing.T, domain string) []natsbus.Permission {
	subjects, err := bus.NewSubjects("test")
	require.NoError(t, err)
	return natsbus.Permissions(subjects, domain, "")
}

// With exactly the set, a sidecar makes the stream, follows it, publishes and asks
// others; nothing is found to be wrong, and trying leaves nothing in the stream.
func TestPermissionsSuffice(t *testing.T) {
	for _, domain := range []string{"", "hub"} {
		publish, subscribe := lists(testPermissions(t, domain), true)
		a := asUser(t, domain, publish, subscribe)
		ctx := within(t, patience)
		require.Eventually(t, func() bool { // a leaf node learns only then where JetStream is
			_, _, err := a.EnsureStream(ctx)
			return err == nil
		}, patience, 10*time.Millisecond)
		before, err := a.InspectStream(ctx)
		require.NoError(t, err)
		wrong, err := a.Denied(ctx)
		require.NoError(t, err)
		require.Empty(t, wrong)
		after, err := a.InspectStream(ctx)
		require.NoError(t, err)
		require.Equal(t, before.Last, after.Last)
	}
}

// Each that is missing is found, and so is the one that nobody may have.
func TestEachPermissionIsTried(t *testing.T) {
	all := testPermissions(t, "")
	for _, missing := range all {
		if missing.Forbidden {
			continue
		}
		rest := slices.DeleteFunc(slices.Clone(all), func(p natsbus.Permission) bool { return p == missing })
		publish, subscribe := lists(rest, true)
		wrong, err := asUser(t, "", publish, subscribe).Denied(within(t, patience))
		require.NoError(t, err)
		require.Equal(t, []natsbus.Permission{missing}, wrong)
	}
	wrong, err := asUser(t, "", []string{">"}, []string{">"}).Denied(within(t, patience))
	require.NoError(t, err)
	require.Len(t, wrong, 1)
	require.True(t, wrong[0].Forbidden)
}

func TestDeniedWithoutServer(t *testing.T) {
	subjects, err := bus.NewSubjects("test")
	require.NoError(t, err)
	a, err := natsbus.Open(context.Background(), natsbus.Config{URL: "nats://127.0.0.1:1", Stream: natsbus.StreamConfig{Subjects: subjects}})
	require.NoError(t, err)
	defer a.Close()
	_, err = a.Denied(within(t, patience))
	require.Error(t, err)
	require.True(t, errors.Is(err, natsbus.ErrNotConnected), err)
}
