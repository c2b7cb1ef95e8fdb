package sidecartest

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/membus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// Clock stands still until it is moved on. It is safe for concurrent use.
type Clock struct{ now atomic.Int64 }

// NewClock returns a Clock that shows one hour.
func NewClock() *Clock {
	c := new(Clock)
	c.Advance(time.Hour)
	return c
}

// Now implements clock.Clock.
func (c *Clock) Now() time.Duration { return time.Duration(c.now.Load()) }

// Advance moves the clock on.
func (c *Clock) Advance(d time.Duration) { c.now.Add(int64(d)) }

// Cache is a cache without a sidecar around it, following a stream in memory.
type Cache struct {
	*cache.Cache
	Stream  *membus.Stream
	Bus     *membus.Bus
	Clock   *Clock
	Metrics *cache.Metrics
}

// CacheConfig is the configuration that NewCache begins with, for a cache that a
// test makes itself.
func CacheConfig(b bus.Bus, clock *Clock) cache.Config {
	policies := policy.DefaultSet()
	policies.Default.MaxStale = 1000 * time.Hour // the clock jumps, and pulses come by another
	return cache.Config{
		Memory: 16 << 20, MaxValue: api.DefaultMaxValue, Policies: policies,
		Bus: b, Clock: clock.Now, PublishTimeout: Wait, FirstLife: true,
		Metrics: cache.NewMetrics(prometheus.NewRegistry()), Logger: hclog.NewNullLogger(),
	}
}

// NewCache returns a cache in its first life that follows s until the test ends.
// change, which may be nil, adjusts its configuration.
func NewCache(t testing.TB, s *membus.Stream, change func(*cache.Config)) *Cache {
	t.Helper()
	c := &Cache{Stream: s, Bus: s.Attach(membus.Options{}), Clock: NewClock()}
	cfg := CacheConfig(c.Bus, c.Clock)
	if change != nil {
		change(&cfg)
	}
	c.Metrics = cfg.Metrics
	var err error
	c.Cache, err = cache.New(cfg)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Follow(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
		require.NoError(t, c.Close())
		require.NoError(t, c.Bus.Close())
	})
	select {
	case <-c.Ready():
	case <-time.After(Wait):
		t.Fatal("the cache does not follow its stream")
	}
	return c
}

// Event publishes an invalidation of keys as a foreign writer does and waits
// until the cache has applied it.
func (c *Cache) Event(t testing.TB, keys ...bus.KeyVersion) {
	t.Helper()
	c.Publish(t, bus.Event{Keys: keys})
}

// Publish publishes an event under the namespace of its first key, or the
// default one, as a foreign writer does and waits until the cache has applied it.
func (c *Cache) Publish(t testing.TB, e bus.Event) bus.Position {
	t.Helper()
	foreign := c.Stream.Attach(membus.Options{})
	defer func() { require.NoError(t, foreign.Close()) }()
	ctx, cancel := context.WithTimeout(context.Background(), Wait)
	defer cancel()
	namespace := bus.DefaultNamespace
	if len(e.Keys) > 0 {
		namespace = bus.NamespaceOf(e.Keys[0].Key)
	}
	p, err := foreign.Publish(ctx, namespace, e)
	require.NoError(t, err)
	require.NoError(t, c.Await(ctx, p))
	return p
}
