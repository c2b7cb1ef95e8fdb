package cache

import (
	"slices"
	"sync"

	"github.com/nearside-cache/nearside/bus"
)

// formers are streams, by their creation time, that are known to have been replaced
// by the one that is followed. Whatever was published in one of them is covered by
// the flush at the start of the present one. Creation times are those of a wall
// clock, which may go back, so nothing is concluded from their order (ADR 0009).
type formers struct {
	mu   sync.Mutex
	list []int64 // newest last
}

const maxFormers = 64

func (f *formers) add(created int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.Contains(f.list, created) {
		return
	}
	if len(f.list) == maxFormers {
		f.list = slices.Delete(f.list, 0, 1)
	}
	f.list = append(f.list, created)
}

func (f *formers) has(created int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.list, created)
}

// reached reports whether everything up to p is applied by who is at applied, or
// covered by a flush.
func (c *Cache) reached(applied, p bus.Position) bool {
	return applied.Satisfies(p) || applied.Epoch.Created != p.Epoch.Created && c.formers.has(p.Epoch.Created)
}

func (c *Cache) isReached(p bus.Position) bool { return c.reached(c.Applied(), p) }
