package cache_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/coherence"
)

// A value that was filled after the STRONG read was caught up is not returned
// before its version is known everywhere (C12).
func TestStrongHitOfAnUnpublishedVersion(t *testing.T) {
	c := byHand(t, nil, func(context.Context) (bus.Position, error) { return at(10), nil })
	fill := func(version uint64) {
		lease := c.Lease("k", false)
		require.Equal(t, coherence.Stored, c.Fill("k", []byte("v"), cache.FillOptions{Lease: lease, Version: version}))
	}
	read := func() cache.Outcome {
		_, a := c.Near("k", cache.Mode{Kind: cache.Strong}, true, false, nil)
		return a.Status
	}
	fill(7)
	require.Equal(t, cache.Bypassed, read())
	c.Apply(bus.Delivery{Position: at(11), Event: bus.Event{Keys: []bus.KeyVersion{{Key: "k", Version: 7}}}})
	require.Equal(t, cache.Hit, read())
	fill(8)
	require.Equal(t, cache.Bypassed, read(), "an older version is known")
}
