package cache_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
)

// barrierAt is a bus whose barriers are acknowledged at a position, applied here or
// not.
type barrierAt struct {
	stub
	position bus.Position
}

func (b barrierAt) Barrier(context.Context) (bus.Position, error) { return b.position, nil }

// A STRONG read rests on what was published before it began, so it waits until all
// of that is applied here (B6).
func TestBarrierWaitsUntilItsPulseIsApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := byHand(t, func(cfg *cache.Config) { cfg.Bus = barrierAt{position: at(12)} }, nil)
		c.load("k", "old")
		caught := make(chan error, 1)
		go func() { caught <- c.Catch(t.Context(), cache.Mode{Kind: cache.Strong}, "k") }()
		synctest.Wait()
		require.Empty(t, caught)
		c.event(11, "k")
		synctest.Wait()
		require.Empty(t, caught, "applied up to 11")
		c.event(12, "other")
		require.NoError(t, <-caught)
		require.Empty(t, c.get("k"))
	})
}
