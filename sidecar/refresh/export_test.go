package refresh

// Lanes returns of how many namespaces a Queue keeps track.
func Lanes(q *Queue) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.lanes)
}
