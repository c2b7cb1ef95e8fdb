package l2

import "sync/atomic"

// counts are the counters behind Stats.
type counts struct {
	hits, misses, unreadable, away     atomic.Uint64
	stored, notNewer, dropped, vouched atomic.Uint64
	acquired, refused                  atomic.Uint64
}

// Stats is what a Tier has done and how it is, for people and metrics; no rule
// depends on it.
type Stats struct {
	Bucket string `json:"bucket"`
	Up     bool   `json:"up"`            // the bucket is open and answers
	Why    string `json:"why,omitempty"` // why it is not up
	Queued int    `json:"queued"`        // jobs that wait for the writers

	Hits       uint64 `json:"hits"`       // reads that found an entry, good or not
	Misses     uint64 `json:"misses"`     // reads that found none
	Unreadable uint64 `json:"unreadable"` // reads that found what this version cannot read
	Away       uint64 `json:"away"`       // calls without an answer, tried or not
	Stored     uint64 `json:"stored"`
	NotNewer   uint64 `json:"not_newer"` // not stored: what was there is as new
	Dropped    uint64 `json:"dropped"`   // not stored: queue full, tier away, contention, closed
	Vouched    uint64 `json:"vouched"`
	Acquired   uint64 `json:"acquired"` // rights to load that this sidecar got
	Refused    uint64 `json:"refused"`  // those that others had
}

// Stats returns a snapshot.
func (t *Tier) Stats() Stats {
	c := &t.counts
	s := Stats{
		Bucket: t.name, Up: t.link.Load() != nil && t.ctx.Err() == nil, Queued: len(t.queue.jobs),
		Hits: c.hits.Load(), Misses: c.misses.Load(), Unreadable: c.unreadable.Load(), Away: c.away.Load(),
		Stored: c.stored.Load(), NotNewer: c.notNewer.Load(), Dropped: c.dropped.Load(), Vouched: c.vouched.Load(),
		Acquired: c.acquired.Load(), Refused: c.refused.Load(),
	}
	switch {
	case t.ctx.Err() != nil:
		s.Why = ErrClosed.Error()
	case !s.Up:
		s.Why = (*t.failure.Load()).Error()
	}
	return s
}
