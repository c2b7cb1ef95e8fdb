package cache_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/loader"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// quickOrigin answers at once and counts.
type quickOrigin struct{ loads atomic.Int64 }

func (o *quickOrigin) Load(context.Context, string, loader.Request) (loader.Result, error) {
	return loader.Result{Value: []byte("v"), Version: uint64(o.loads.Add(1))}, nil
}

func quick(t *testing.T) (*sidecartest.Cache, *quickOrigin) {
	o := new(quickOrigin)
	return sidecartest.NewCache(t, sidecartest.NewStream(t), func(c *cache.Config) {
		c.Origins = o
		ns := &c.Policies.Default
		ns.Loader = &policy.Loader{URL: "http://origin/{key}"}
		ns.SoftTTL, ns.StaleWhileRevalidate = time.Minute, time.Minute
	}), o
}

// A reader that has found nothing, and comes to load when another one's load has just
// ended, loads nothing: in one herd there is one load (I13).
func TestLoadThatEndedSinceTheLook(t *testing.T) {
	c, o := quick(t)
	_, found := c.Read("a", nil, c.Now())
	require.Equal(t, cache.Nothing, found)
	require.NoError(t, c.Load(t.Context(), "a", 0)) // the other one's
	require.NoError(t, c.Load(t.Context(), "a", 0))
	require.EqualValues(t, 1, o.loads.Load())

	c.Clock.Advance(2 * time.Minute)
	require.NoError(t, c.Load(t.Context(), "a", 0))
	require.EqualValues(t, 2, o.loads.Load(), "it is past its soft TTL")
	c.Event(t, bus.KeyVersion{Key: "a"})
	require.NoError(t, c.Load(t.Context(), "a", 0))
	require.EqualValues(t, 3, o.loads.Load(), "an event dropped it")
	require.NoError(t, c.Load(t.Context(), "a", 99))
	require.EqualValues(t, 4, o.loads.Load(), "who found something that was too old for it")
}

// The same of readers that find something past its soft TTL.
func TestRenewalThatEndedSinceTheLook(t *testing.T) {
	c, o := quick(t)
	require.NoError(t, c.Load(t.Context(), "a", 0))
	c.Clock.Advance(90 * time.Second)
	_, found := c.Read("a", nil, c.Now())
	require.Equal(t, cache.Old, found)
	c.Renew("a")
	c.Renew("a") // found the same, and comes later
	require.EqualValues(t, 2, o.loads.Load())
}
