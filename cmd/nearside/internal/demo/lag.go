package demo

import (
	"context"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// spread is a distribution of durations. It is safe for concurrent use.
type spread struct {
	mu   sync.Mutex
	hist *hdrhistogram.Histogram // microseconds
}

const longest = time.Minute // durations above count as this

func newSpread() *spread {
	return &spread{hist: hdrhistogram.New(1, longest.Microseconds(), 3)}
}

func (s *spread) add(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// The value is within the histogram's range, which is its only error.
	_ = s.hist.RecordValue(min(max(d, time.Microsecond), longest).Microseconds())
}

// quantiles is a spread at one moment.
type quantiles struct {
	count         int64
	p50, p99, max time.Duration
}

func (s *spread) now() quantiles {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := func(p float64) time.Duration { return time.Duration(s.hist.ValueAtPercentile(p)) * time.Microsecond }
	return quantiles{count: s.hist.TotalCount(), p50: at(50), p99: at(99), max: time.Duration(s.hist.Max()) * time.Microsecond}
}

// flights follows events from their commit until every sidecar has applied them.
// It is safe for concurrent use.
type flights struct {
	sidecars int
	lag      *spread // from the commit to the last sidecar's Apply

	mu     sync.Mutex
	open   map[uint64]*flight // by seq
	landed chan struct{}      // closed when open becomes empty; nil when nobody waits
}

type flight struct {
	published bool
	committed time.Time // zero: nothing was committed that it tells of
	applied   int       // sidecars that have
	last      time.Time // when the last of them had
}

func newFlights(sidecars int) *flights {
	return &flights{sidecars: sidecars, lag: newSpread(), open: make(map[uint64]*flight)}
}

// published is told of an acknowledged event, applied of each sidecar that has
// applied one, in whatever order.
func (f *flights) published(seq uint64, committed time.Time) {
	f.change(seq, func(fl *flight) { fl.published, fl.committed = true, committed })
}

func (f *flights) applied(seq uint64, at time.Time) {
	f.change(seq, func(fl *flight) {
		fl.applied++
		if at.After(fl.last) {
			fl.last = at
		}
	})
}

func (f *flights) change(seq uint64, do func(*flight)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl := f.open[seq]
	if fl == nil {
		fl = &flight{}
		f.open[seq] = fl
	}
	do(fl)
	if !fl.published || fl.applied < f.sidecars {
		return
	}
	delete(f.open, seq)
	if !fl.committed.IsZero() {
		f.lag.add(fl.last.Sub(fl.committed))
	}
	if len(f.open) == 0 && f.landed != nil {
		close(f.landed)
		f.landed = nil
	}
}

// wait returns when every event has been applied everywhere, or the number of
// those that have not when ctx ends.
func (f *flights) wait(ctx context.Context) int {
	f.mu.Lock()
	if len(f.open) == 0 {
		f.mu.Unlock()
		return 0
	}
	if f.landed == nil {
		f.landed = make(chan struct{})
	}
	landed := f.landed
	f.mu.Unlock()
	select {
	case <-landed:
		return 0
	case <-ctx.Done():
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.open)
	}
}
