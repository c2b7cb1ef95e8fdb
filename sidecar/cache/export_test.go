package cache

import "context"

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

// Reload is Load whatever is held, and waits for as long as it takes.
func (c *Cache) Reload(ctx context.Context, key string) error { return c.reload(ctx, key) }

// The packer is one for the process, and has channels: made in one bubble of synctest
// it could not be used in another.
func init() {
	if z, err := newPacker(); err == nil {
		z.encoder.EncodeAll(nil, nil)
	}
}
