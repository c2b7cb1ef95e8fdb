package sidecar_test

import (
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// Drill: the origin is down for a minute. Readers get values for as long as
// stale_if_error says and no longer, the breaker opens, and what the origin sees when
// it is back grows slowly. All of it is counted.
func TestDrillOriginDown(t *testing.T) {
	const (
		keys    = 40
		readers = 20
		pause   = 100 * time.Millisecond
		soft    = time.Second
		failing = 20 * time.Second // stale_if_error
		rate    = 50
		outage  = 60
	)
	synctest.Test(t, func(t *testing.T) {
		origin := newSource(t)
		ns := policy.DefaultNamespace()
		ns.SoftTTL, ns.StaleWhileRevalidate, ns.StaleIfError = soft, soft, failing
		l := loaderOf(policy.Loader{Rate: rate, Burst: 5, BreakerOpen: 5 * time.Second, BreakerFailures: 5, BreakerProbes: 3, SlowStart: 10 * time.Second})
		ns.Loader = l
		p := newPod(t, sidecartest.NewStream(t), origin, map[string]policy.Namespace{"product": ns})

		answered, missed := map[int]int{}, map[int]int{} // by the second of the read
		var mu sync.Mutex
		done := make(chan struct{})
		var all sync.WaitGroup
		for range readers {
			c := p.dial()
			all.Go(func() {
				for {
					select {
					case <-done:
						return
					case <-time.After(pause):
					}
					second := origin.second()
					value := c.get("product:" + strconv.Itoa(rand.IntN(keys)))
					mu.Lock()
					if value == 0 {
						missed[second]++
					} else {
						answered[second]++
					}
					mu.Unlock()
				}
			})
		}
		time.Sleep(10 * time.Second)
		down := origin.second()
		origin.down.Store(true)
		time.Sleep(10 * time.Second)
		bounded := p.dial()
		for i := range keys {
			status, _ := bounded.near("product:"+strconv.Itoa(i), "MAXSTALE", "500")
			require.Equal(t, "MISS", status, "bounded means bounded: the value is %v past its soft TTL", 10*time.Second)
			status, _ = bounded.near("product:"+strconv.Itoa(i), "ANY")
			require.Equal(t, "STALE", status)
		}
		time.Sleep(outage*time.Second - 10*time.Second)
		require.EqualValues(t, 2, p.metric(`nearside_load_breaker_state{namespace="product"}`))
		up := origin.second()
		origin.down.Store(false)
		time.Sleep(30 * time.Second)
		close(done)
		all.Wait()

		last := int((soft + failing) / time.Second)
		for s := down - 5; s < down+last-5; s++ { // loaded when first read past its soft TTL
			require.Zero(t, missed[s], "second %d of the outage", s-down)
			require.NotZero(t, answered[s])
		}
		for s := down + last + 2; s < up; s++ {
			require.Zero(t, answered[s], "second %d of the outage: older than stale_if_error", s-down)
		}
		for s := up + 20; s < up+30; s++ {
			require.Zero(t, missed[s], "second %d after it", s-up)
		}
		d := l.WithDefaults()
		// What is under way when it trips, and the probes of each time that it is tried.
		most := d.Concurrency + d.BreakerFailures + d.BreakerProbes*int(outage*time.Second/d.BreakerOpen)
		require.LessOrEqual(t, origin.in(down+1, up), most)
		require.Greater(t, origin.in(down+1, up), d.BreakerProbes, "it is tried whether it is back")
		for i := range 15 { // the slow start begins with a tenth of the rate, up to 6 s after the origin is back
			require.LessOrEqual(t, origin.in(up+i, up+i+1), min(rate, rate*(i+2)/10)+d.BreakerProbes, "second %d after it", i)
		}
		require.Positive(t, p.metric("nearside_stale_hits_total"))
		require.Positive(t, p.metric(`nearside_load_results_total{namespace="product",outcome="breaker_open"}`))
		require.Positive(t, p.metric(`nearside_loads_total{verdict="failed"}`))
		require.Zero(t, p.metric(`nearside_load_breaker_state{namespace="product"}`))
	})
}
