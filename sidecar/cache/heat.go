package cache

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/hot"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/refresh"
)

// Bounds of what is known of reads, and of what waits to be loaded anew.
const (
	recentWithin = 30 * time.Minute // longer than most policies ask for
	maxRecent    = 1 << 20          // keys
	topCounters  = 1024
	topHalfLife  = time.Minute
	queueWorkers = 64
	// recoverTop is how many of the hottest keys are loaded anew after a doubt, each
	// within its policy's window: others come back as they are read.
	recoverTop = 256
)

// heat is what is known of the reads of namespaces with a loader, and what is loaded
// for it though no client asks.
type heat struct {
	recent *hot.Recent
	top    *hot.Top
	queue  *refresh.Queue
	seed   uint64
}

func newHeat(c Config, policies func() *policy.Set) heat {
	now := c.Clock()
	return heat{
		recent: hot.NewRecent(int(min(c.Memory*heatShare/100/2/8, maxRecent)), recentWithin, now),
		top:    hot.NewTop(topCounters, topHalfLife, now),
		queue: refresh.New(refresh.Config{
			Memory: c.Memory * heatShare / 100 / 2, Workers: queueWorkers, Clock: c.Clock, Metrics: c.Metrics.Refresh,
			Limit: func(namespace string) int { return policies().Of(namespace).Refresh.WithDefaults().Workers },
		}),
		seed: rand.Uint64(),
	}
}

// noteRead takes note of a hit where somebody can load the key anew.
func (c *Cache) noteRead(key string, p *policy.Namespace, now time.Duration) {
	if p.Loader == nil || c.origins == nil {
		return
	}
	c.heat.recent.Mark(c.hash(key))
	if !p.Sensitive {
		c.heat.top.Note(key, now)
	}
}

// Hottest returns the n keys that are read most, of namespaces with a loader that are
// not sensitive, the hottest first.
func (c *Cache) Hottest(n int) []hot.Key { return c.heat.top.List(n, c.now()) }

// Refresh loads anew what is due, until ctx ends: what REFRESH events dropped while it
// was hot, what policies name, and after a doubt what is hottest.
func (c *Cache) Refresh(ctx context.Context) {
	scheduled := refresh.Scheduled{
		Queue: c.heat.queue, Policies: c.Policies, Clock: c.now, Seed: c.heat.seed,
		Hottest: func() []hot.Key { return c.Hottest(topCounters) },
	}
	c.loads.running.Go(func() { scheduled.Run(ctx) })
	c.loads.running.Go(func() { c.rotate(ctx) })
	c.heat.queue.Run(ctx, c.reload)
}

func (c *Cache) rotate(ctx context.Context) {
	tick := time.NewTicker(c.heat.recent.Every())
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.heat.recent.Rotate(c.now())
		case <-ctx.Done():
			return
		}
	}
}

// reload loads key and waits until that is over.
func (c *Cache) reload(ctx context.Context, key string) error {
	l, err := c.BeginLoad(key)
	if err != nil {
		return err
	}
	select {
	case <-l.done:
		return l.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// refreshes queues those of the keys that a REFRESH dropped which were read lately
// (C10). The others come back when they are read.
func (c *Cache) refreshes(keys []string) {
	now, policies := c.now(), c.Policies()
	for _, key := range keys {
		p := policies.OfKey(key)
		r := p.Refresh.WithDefaults()
		if c.Loads(key) && p.Enforces() && c.heat.recent.Within(c.hash(key), r.Recent) {
			c.heat.queue.Add(key, now+refresh.Spread(key, c.heat.seed, r.Window), 0)
		}
	}
}

// Rewarm queues keys of which a flush has left nothing, the hottest first.
func (c *Cache) Rewarm(keys []hot.Key) {
	now, policies := c.now(), c.Policies()
	for _, k := range keys {
		if c.Loads(k.Key) {
			window := policies.OfKey(k.Key).Refresh.WithDefaults().Window
			c.heat.queue.Add(k.Key, now+refresh.Spread(k.Key, c.heat.seed, window), k.Rate)
		}
	}
}

// dropped collects what the core drops for a REFRESH.
type dropped struct {
	wanted bool
	keys   []string
}

// collect has run, which is called under mu, tell what it drops.
func (c *Cache) collect(wanted bool, run func()) (keys []string) {
	c.dropped = dropped{wanted: wanted && c.origins != nil}
	run()
	keys, c.dropped = c.dropped.keys, dropped{}
	return keys
}

// isRefresh reports whether what an event drops is to be loaded anew.
func isRefresh(d *bus.Delivery) bool { return d.Err == nil && d.Event.Op == bus.OpRefresh }
