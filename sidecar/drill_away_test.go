package sidecar_test

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// Drill: NATS is away for two minutes while the source changes. Each class serves
// within its bound and no longer, writers are told that they were not acknowledged,
// the origin is not flooded, and afterwards only what changed is loaded again.
func TestDrillNATSAway(t *testing.T) {
	const (
		keys    = 100 // of each namespace
		changed = 10
		bound   = 30 // seconds: that of important
	)
	class := func(c policy.Class) policy.Namespace {
		ns := policy.DefaultNamespace()
		ns.Class, ns.Loader = c, loaderOf(policy.Loader{})
		return ns
	}
	namespaces := map[string]policy.Namespace{
		"price": class(policy.Critical), "product": class(policy.Important), "page": class(policy.BestEffort),
	}
	synctest.Test(t, func(t *testing.T) {
		stream, origin := sidecartest.NewStream(t), newSource(t)
		pods := []*pod{newPod(t, stream, origin, namespaces), newPod(t, stream, origin, namespaces)}
		clients := []*client{pods[0].dial(), pods[1].dial()}
		each := func(namespace string, f func(c *client, key string)) {
			for _, c := range clients {
				for i := range keys {
					f(c, namespace+":"+strconv.Itoa(i))
				}
			}
		}
		for namespace := range namespaces {
			each(namespace, func(c *client, key string) { require.EqualValues(t, 1, c.get(key)) })
		}
		time.Sleep(time.Second)
		loads := origin.total()

		for _, p := range pods {
			p.bus.Disconnect()
		}
		away := time.Now()
		var owed []string // invalidations that were not acknowledged
		for i := range changed {
			for namespace := range namespaces {
				key := namespace + ":" + strconv.Itoa(i)
				_, err := clients[0].invalidate(key, origin.commit(key))
				require.ErrorContains(t, err, "NOACK")
				owed = append(owed, key)
			}
		}
		require.Less(t, time.Since(away), 40*time.Second, "a writer is told within its timeout")
		after := func(d time.Duration) { time.Sleep(d - time.Since(away)) }
		after(45 * time.Second)
		require.Zero(t, clients[1].get("price:50"), "critical: not without the stream")
		each("product", func(c *client, key string) { require.Zero(t, c.get(key), "%s after %d s", key, bound) })
		after(2*time.Minute - time.Second)
		for i := changed; i < keys; i++ {
			require.EqualValues(t, 1, clients[0].get("page:"+strconv.Itoa(i)))
		}
		status, _ := clients[1].near("product:50", "ANY")
		require.Equal(t, "HIT", status, "for readers that must not fall through")
		require.Equal(t, loads, origin.total(), "what could not be kept is not loaded")
		after(2 * time.Minute)

		for _, p := range pods {
			p.bus.Reconnect()
		}
		time.Sleep(2 * time.Second) // two pulses and a repair
		for _, key := range owed {
			_, err := clients[0].invalidate(key, origin.version(key)) // the writers' own retry
			require.NoError(t, err)
		}
		require.NoError(t, pods[1].Await(t.Context(), pods[0].Applied()))
		for namespace := range namespaces {
			each(namespace, func(c *client, key string) { require.Equal(t, origin.version(key), c.get(key), key) })
		}
		require.Equal(t, loads+len(pods)*len(owed), origin.total(), "only what changed")
		for _, p := range pods {
			require.Zero(t, p.bus.Status().Doubts)
			require.Positive(t, p.metric("nearside_bypassed_total"))
		}
		require.EqualValues(t, len(owed), pods[0].metric("nearside_publish_errors_total"))
	})
}

// Drill: the origin browns out: it answers, and takes 1.5 s for it. Readers wait no longer
// than the soft timeout, the timeout of a try adapts, no more requests are under way
// than allowed, what does not fit into the queue is turned away at once, and what is
// resident is served as ever. The breaker stays closed: the origin is up.
func TestDrillBrownOut(t *testing.T) {
	const (
		normal = 20 * time.Millisecond
		slow   = 1500 * time.Millisecond
	)
	ns := policy.DefaultNamespace()
	ns.Loader = loaderOf(policy.Loader{Concurrency: 4, Queue: 8, SoftTimeout: 300 * time.Millisecond})
	synctest.Test(t, func(t *testing.T) {
		origin := newSource(t)
		p := newPod(t, sidecartest.NewStream(t), origin, map[string]policy.Namespace{"product": ns})
		c := p.dial()
		for i := range 200 {
			require.EqualValues(t, 1, c.get("product:"+strconv.Itoa(i)))
		}
		const timeout = `nearside_load_timeout_seconds{namespace="product"}`
		require.InDelta(t, 0.1, p.metric(timeout), 0.05, "learned from an origin that answers in 20 ms")

		origin.latency.Store(int64(slow))
		ended := make(chan time.Duration)
		const readers = 50
		for i := range readers {
			c := p.dial()
			go func() {
				began := time.Now()
				c.get("product:new" + strconv.Itoa(i))
				ended <- time.Since(began)
			}()
		}
		turnedAway := 0
		for range readers {
			took := <-ended
			require.LessOrEqual(t, took, 300*time.Millisecond)
			if took < 10*time.Millisecond {
				turnedAway++
			}
		}
		require.Equal(t, readers-12, turnedAway, "4 under way and 8 in the queue")
		require.EqualValues(t, turnedAway, p.metric(`nearside_load_results_total{namespace="product",outcome="queue_full"}`))
		began := time.Now()
		for i := range 200 {
			require.EqualValues(t, 1, c.get("product:"+strconv.Itoa(i)))
		}
		require.Zero(t, time.Since(began), "hits wait for nobody")

		for i := range 20 { // the timeout finds the origin again
			c.get("product:later" + strconv.Itoa(i))
			time.Sleep(2 * time.Second)
		}
		require.EqualValues(t, 1, c.get("product:later19"), "loaded after its reader had gone on")
		require.Greater(t, p.metric(timeout), slow.Seconds())
		require.LessOrEqual(t, origin.busiest.Load(), int64(8), "4 of ours; the origin works on for a moment on what was given up")
		require.Zero(t, p.metric(`nearside_load_breaker_state{namespace="product"}`))

		origin.latency.Store(int64(normal))
		for i := range 600 { // it remembers the last 512
			require.EqualValues(t, 1, c.get("product:then"+strconv.Itoa(i)))
		}
		require.InDelta(t, 0.1, p.metric(timeout), 0.05)
	})
}
