package demo

import (
	"math/rand/v2"
	"sync"
	"time"
)

const (
	drift      = 0.005 // a commit changes a population by at most so much
	firstState = 1     // version of a record as loaded from the data set
)

// origin is the source of truth: a table in memory. It is safe for concurrent
// use.
type origin struct {
	rows  []*row // by rank
	byKey map[string]*row
}

// row is one record with the history of its commits.
type row struct {
	key  string
	rank int // by population when loaded

	mu      sync.Mutex
	city    city
	commits []time.Time // commits[i] is when version firstState+1+i was committed
	told    uint64      // newest version that an invalidation was published for
}

func newOrigin(cities []city) *origin {
	o := &origin{byKey: make(map[string]*row, len(cities))}
	for i, c := range cities {
		r := &row{key: c.key(), rank: i, city: c, told: firstState}
		o.rows = append(o.rows, r)
		o.byKey[r.key] = r
	}
	return o
}

// read returns the record as it is now.
func (r *row) read() city {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.city
}

// commit changes the record's population.
func (r *row) commit() {
	r.mu.Lock()
	defer r.mu.Unlock()
	change := 1 + drift*(2*rand.Float64()-1)
	r.city.Population = uint64(float64(r.city.Population) * change)
	r.city.Version++
	r.commits = append(r.commits, time.Now())
}

// tell returns the version that an invalidation published now makes known, and
// when it was committed; the zero time when it has been told before.
func (r *row) tell() (version uint64, committed time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	version = r.city.Version
	if version > r.told {
		r.told = version
		committed = r.commits[len(r.commits)-1]
	}
	return version, committed
}

// behind returns for how long the given version had been committed over at the
// moment at; 0 when it was the newest then.
func (r *row) behind(version uint64, at time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if next := version - firstState; version >= firstState && next < uint64(len(r.commits)) {
		return max(0, at.Sub(r.commits[next]))
	}
	return 0
}
