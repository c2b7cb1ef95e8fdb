package cache_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/coherence"
)

// While the bound is broken nothing is kept, whoever brings it (I8, C6).
func TestFillsInBypassAreNotKept(t *testing.T) {
	c := byHand(t, nil, nil)
	fill := func() coherence.Verdict {
		lease := c.Lease("k", false)
		return c.Fill("k", []byte("v"), cache.FillOptions{Lease: lease, Version: 7})
	}
	fresh := func(seq uint64) {
		c.Apply(bus.Delivery{Position: at(seq), Event: bus.Event{Op: bus.OpPulse}, Fresh: c.Now()})
	}
	fresh(11)
	require.Equal(t, coherence.Stored, fill())
	c.event(12, "k")
	c.clock.Advance(c.Policies().OfKey("k").Bound() + 1)
	require.Equal(t, coherence.Bypass, fill())
	require.Equal(t, coherence.Bypass, c.set("k", "v"))
	fresh(13)
	require.Empty(t, c.get("k"))
	require.Equal(t, coherence.Stored, fill())
}
