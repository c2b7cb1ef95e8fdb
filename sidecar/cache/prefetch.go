package cache

import "github.com/nearside-cache/nearside/localstore"

// PrefetchKeys is how many keys one Prefetch has loaded at most.
const PrefetchKeys = localstore.PrefetchKeys

const (
	// prefetchEntries is how many entries the processor's own caches do not hold.
	prefetchEntries = 1 << 14
	// prefetchLeast is for how many keys a Prefetch costs less than it saves.
	prefetchLeast = 4
)

// Prefetches reports whether Prefetch is of use: whether there are so many entries that
// a read waits for memory. Otherwise callers need not look which keys come next.
func (c *Cache) Prefetches() bool { return c.store.Len() >= prefetchEntries }

// Prefetch has memory that reads of keys will look at loaded, for all of them at the same
// time. It is a hint for who reads them right after: it changes nothing, takes no lock
// and allocates nothing. Keys are not kept; those after the first PrefetchKeys are left
// alone.
func (c *Cache) Prefetch(keys []string) {
	if len(keys) >= prefetchLeast {
		c.store.Prefetch(keys)
	}
}
