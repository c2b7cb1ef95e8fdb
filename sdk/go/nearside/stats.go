package nearside

import "sync/atomic"

// counters are the client's.
type counters struct {
	// l0Hits are counted in several places, lest readers wait for each other.
	l0Hits [16]struct {
		atomic.Uint64
		_ [56]byte // the rest of a cache line
	}
	l0Misses, l0Invalidations               atomic.Uint64
	hits, misses, bypasses                  atomic.Uint64
	failedReads, unavailable                atomic.Uint64
	loads, failedLoads, sharedLoads         atomic.Uint64
	fellThrough, stored, rejected, notKept  atomic.Uint64
	codecErrors, writes, failedWrites       atomic.Uint64
	failedDials, disconnects, droppedEvents atomic.Uint64
}

// hit counts a hit of L0 where the key says, which is not empty.
func (n *counters) hit(key string) {
	n.l0Hits[key[len(key)-1]%uint8(len(n.l0Hits))].Add(1)
}

// Stats are totals since Open, and what is so now.
type Stats struct {
	// Connected is how many connections are open.
	Connected int
	// L0Valid: L0 may serve something now. L0Entries is about how many it holds.
	L0Valid   bool
	L0Entries int

	L0Hits, L0Misses uint64
	// L0Invalidations is how often the sidecar said that something is out of date.
	L0Invalidations uint64

	// Hits, Misses and Bypasses are answers of the sidecar to reads, one a key.
	Hits, Misses, Bypasses uint64
	// FailedReads were sent, and not answered in time, or with an error; Unavailable is
	// how often there was no connection to send something on.
	FailedReads, Unavailable uint64

	// Loads is how often GetOrLoad called a loader, FailedLoads how often that failed, and
	// SharedLoads how often a caller was answered with the load of another one.
	Loads, FailedLoads, SharedLoads uint64
	// FellThrough are loads because the sidecar gave no answer.
	FellThrough uint64
	// Stored are loads that the sidecar kept, Rejected those it refused because of what
	// had happened meanwhile, NotKept those that it could not be offered.
	Stored, Rejected, NotKept uint64
	// CodecErrors are values that could not be encoded or decoded.
	CodecErrors uint64

	Writes, FailedWrites uint64

	// FailedDials are attempts to connect that failed, Disconnects connections that ended.
	FailedDials, Disconnects uint64
	// DroppedEvents are those that a Watch did not take in time.
	DroppedEvents uint64
}

// Stats returns the client's counters.
func (c *Client) Stats() Stats {
	n := &c.counters
	s := Stats{
		L0Misses: n.l0Misses.Load(), L0Invalidations: n.l0Invalidations.Load(),
		Hits: n.hits.Load(), Misses: n.misses.Load(), Bypasses: n.bypasses.Load(),
		FailedReads: n.failedReads.Load(), Unavailable: n.unavailable.Load(),
		Loads: n.loads.Load(), FailedLoads: n.failedLoads.Load(), SharedLoads: n.sharedLoads.Load(),
		FellThrough: n.fellThrough.Load(), Stored: n.stored.Load(), Rejected: n.rejected.Load(), NotKept: n.notKept.Load(),
		CodecErrors: n.codecErrors.Load(), Writes: n.writes.Load(), FailedWrites: n.failedWrites.Load(),
		FailedDials: n.failedDials.Load(), Disconnects: n.disconnects.Load(), DroppedEvents: n.droppedEvents.Load(),
	}
	for i := range n.l0Hits {
		s.L0Hits += n.l0Hits[i].Load()
	}
	for _, l := range c.links {
		if l.current.Load() != nil {
			s.Connected++
		}
	}
	if c.l0 != nil {
		s.L0Valid, s.L0Entries = c.l0.valid(), c.l0.store.EstimatedSize()
	}
	return s
}
