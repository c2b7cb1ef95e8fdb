package sidecar_test

import (
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// expiry is what 10,000 keys that were stored together cost their origin at the end of
// their TTL.
type expiry struct {
	peak   int // loads a second at most
	waited int // reads that had to wait for one
}

const (
	expiringKeys = 10_000
	expiringTTL  = 20 * time.Second
	groups       = 40 // of keys, one read after the other in readEvery
	readEvery    = 2 * time.Second
)

// expire stores the keys at once, and reads each every two seconds. Nothing limits
// the loads.
func expire(t *testing.T, jitter, ahead float64) (e expiry) {
	synctest.Test(t, func(t *testing.T) {
		origin := newSource(t)
		ns := policy.DefaultNamespace()
		ns.TTL, ns.TTLJitter, ns.RefreshAhead = expiringTTL, jitter, ahead
		ns.Loader = loaderOf(policy.Loader{})
		p := newPod(t, sidecartest.NewStream(t), origin, map[string]policy.Namespace{"product": ns}, func(c *cache.Config) {
			c.Origins, c.Memory = origin, 64<<20
		})
		var loads sync.WaitGroup
		var value []byte
		read := func(key string) {
			var found cache.Found
			if value, found = p.Read(key, value[:0], p.Now()); found == cache.Nothing {
				e.waited++
				loads.Go(func() { _ = p.Load(t.Context(), key, 0) }) // of a failure the next read makes another try
			}
		}
		keys := make([]string, expiringKeys)
		for i := range keys {
			keys[i] = "product:" + strconv.Itoa(i)
			if read(keys[i]); i%1000 == 999 {
				loads.Wait()
			}
		}
		require.Equal(t, expiringKeys, p.Len())
		time.Sleep(time.Duration(float64(expiringTTL)*(1-jitter)*(1-ahead)) - time.Second) // nothing happens before
		e.waited = 0
		from := origin.second()
		for tick := 0; origin.second() < int(expiringTTL/time.Second)+3; tick++ {
			for i := tick % groups; i < expiringKeys; i += groups {
				read(keys[i])
			}
			time.Sleep(readEvery / groups)
		}
		loads.Wait()
		e.peak = origin.peak(from)
	})
	return e
}

// Drill: 10,000 keys that were stored together expire. Jitter spreads their loads,
// and for what is loaded ahead nobody waits.
func TestDrillMassExpiry(t *testing.T) {
	together, spread, ahead := expire(t, 0, 0), expire(t, 0.5, 0), expire(t, 0.5, 0.3)
	t.Logf("without jitter %+v, with %+v, and loaded ahead %+v", together, spread, ahead)
	require.Greater(t, together.peak, expiringKeys/3)
	require.Less(t, spread.peak, together.peak/3)
	require.Less(t, ahead.peak, together.peak/3)
	require.Zero(t, ahead.waited)
}
