package clock_test

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/clock"
)

func TestBootNeverGoesBack(t *testing.T) {
	now := clock.Boot()
	require.Positive(t, now())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			last := now()
			for range 1000 {
				next := now()
				if next < last {
					t.Errorf("%v after %v", next, last)
				}
				last = next
			}
		})
	}
	wg.Wait()
	require.InDelta(t, now(), clock.Boot()(), float64(time.Minute), "one clock for all of the machine")
}

func TestBootID(t *testing.T) {
	require.Equal(t, clock.BootID(), clock.BootID())
	if runtime.GOOS == "linux" {
		require.Len(t, clock.BootID(), 36)
	}
}

func TestElapsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := clock.Elapsed()
		require.Zero(t, now())
		time.Sleep(time.Hour) // virtual
		require.Equal(t, time.Hour, now())
	})
}
