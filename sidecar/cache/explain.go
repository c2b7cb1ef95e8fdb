package cache

import (
	"time"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/localstore"
	"github.com/nearside-cache/nearside/sidecar/coherence"
)

// Explanation says why the next read of a key would hit or miss, and what became
// of its last fill.
type Explanation struct {
	coherence.Explanation
	Expired bool
	TTL     time.Duration // until expiry; 0 when it never expires
	Size    int
	Applied bus.Position
}

// Explain tells what is held of key. It is no miss.
func (c *Cache) Explain(key string) Explanation {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	e := Explanation{Explanation: c.core.Explain(key, now), Applied: c.core.Applied()}
	if m, ok := c.sized(key); ok {
		e.Size = m.Size
		if m.Expires != 0 {
			e.TTL = m.Expires - now
			e.Expired = e.TTL <= 0
		}
	}
	return e
}

// Status is a snapshot of the whole cache for people and programs.
type Status struct {
	Ready   bool
	Applied bus.Position
	Bus     bus.Status
	Store   localstore.Stats
	Fences  int
	Misses  int // keys with outstanding misses
}

// Status tells how the cache is now.
func (c *Cache) Status() Status {
	c.mu.Lock()
	ready := c.core.Ready()
	fences, misses := c.core.Sizes()
	c.mu.Unlock()
	return Status{
		Ready: ready, Applied: c.Applied(), Bus: c.bus.Status(),
		Store: c.store.Stats(), Fences: fences, Misses: misses,
	}
}

// Counts are the running totals that people ask for; Metrics has the rest.
type Counts struct {
	Hits, Misses             uint64
	Stored, Rejected         uint64 // fills
	Events                   uint64 // applied, pulses aside
	Publishes, PublishErrors uint64
}

// Counts returns the totals since the start.
func (c *Cache) Counts() Counts { return c.metrics.counts() }
