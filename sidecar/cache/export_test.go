package cache

// Waiting returns how many wait for a position.
func (c *Cache) Waiting() int {
	c.waiters.mu.Lock()
	defer c.waiters.mu.Unlock()
	return len(c.waiters.list)
}

// Bounds of the events of one invalidation, and of what a watcher may lag behind.
const (
	BatchKeys   = batchKeys
	BatchBytes  = batchBytes
	WatchBuffer = watchBuffer
)
