package cache_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// witness looks at the cache while it is told.
type witness struct {
	c     *sidecartest.Cache
	told  []cache.Change
	found []cache.Found  // what a reader found when a change was told
	at    []bus.Position // what was applied then
	fresh []time.Duration
	upTo  []bus.Position
}

func (w *witness) Changed(ch cache.Change) {
	w.told = append(w.told, ch)
	_, found := w.c.Read("n:k", nil, w.c.Now())
	w.found = append(w.found, found)
	w.at = append(w.at, w.c.Applied())
}

func (w *witness) Fresh(asOf time.Duration, applied bus.Position) {
	w.fresh = append(w.fresh, asOf)
	w.upTo = append(w.upTo, applied)
}

// A change is told once it has taken effect, and before anybody can know of it.
func TestObserversAreToldBetweenEffectAndReport(t *testing.T) {
	fill := func(c *sidecartest.Cache) {
		require.Equal(t, "stored", c.Fill("n:k", []byte("v"), cache.FillOptions{Lease: c.Lease("n:k", false), Tags: []string{"tag"}}).String())
	}
	for name, e := range map[string]bus.Event{
		"key":    {Keys: []bus.KeyVersion{{Key: "n:k"}}},
		"tag":    {Tags: []string{"tag"}},
		"prefix": {Prefix: "n:"},
	} {
		t.Run(name, func(t *testing.T) {
			c := sidecartest.NewCache(t, sidecartest.NewStream(t), nil)
			fill(c)
			w := &witness{c: c}
			require.NoError(t, c.Observe(w))
			at := c.Publish(t, e)
			c.Unobserve(w)
			require.Len(t, w.told, 1)
			require.Equal(t, cache.Nothing, w.found[0], "it has taken effect")
			require.False(t, w.at[0].Covers(at), "it is not reported as applied yet")
		})
	}
}

// What freshness is told of was told before (B5).
func TestObserversAreToldOfFreshness(t *testing.T) {
	c := sidecartest.NewCache(t, sidecartest.NewStream(t), nil)
	w := &witness{c: c}
	require.NoError(t, c.Observe(w))
	c.Clock.Advance(time.Second)
	at := c.Publish(t, bus.Event{Keys: []bus.KeyVersion{{Key: "n:k"}}})
	c.Clock.Advance(time.Second)
	asked := c.Now()
	_, err := c.Barrier(context.Background())
	require.NoError(t, err)
	c.Unobserve(w)
	require.NotEmpty(t, w.fresh)
	last := len(w.fresh) - 1
	require.GreaterOrEqual(t, w.fresh[last], asked)
	require.True(t, w.upTo[last].Covers(at))
	require.Len(t, w.told, 1)
}

// A barrier that finds that its pulse has told how fresh all is does not tell it again.
func TestObserversAreToldOfFreshnessOnce(t *testing.T) {
	c := sidecartest.NewCache(t, sidecartest.NewStream(t), nil)
	w := &witness{c: c}
	c.Clock.Advance(time.Second)
	require.NoError(t, c.Observe(w))
	const barriers = 10
	for range barriers {
		_, err := c.Barrier(context.Background())
		require.NoError(t, err)
	}
	c.Unobserve(w)
	require.Less(t, len(w.fresh), 2*barriers)
	require.Contains(t, w.fresh, c.Now())
}

func TestObserversAreBounded(t *testing.T) {
	c := sidecartest.NewCache(t, sidecartest.NewStream(t), nil)
	var all []*witness
	for range 256 {
		w := &witness{c: c}
		require.NoError(t, c.Observe(w))
		all = append(all, w)
	}
	require.ErrorIs(t, c.Observe(&witness{c: c}), cache.ErrTooManyObservers)
	c.Unobserve(all[7])
	require.NoError(t, c.Observe(all[7]))
	for _, w := range all {
		c.Unobserve(w)
	}
}
