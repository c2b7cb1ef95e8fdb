package cache

// Renew is what a read does that finds something to be loaded anew. It returns when
// no load is under way.
func (c *Cache) Renew(key string) {
	c.renew(key, c.now())
	c.loads.running.Wait()
}
