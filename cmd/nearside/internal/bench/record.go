package bench

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Histogram counts latencies to three digits. It is used by one goroutine at a
// time. The zero value is empty.
type Histogram struct{ h *hdrhistogram.Histogram }

// Bounds of the latencies that are told apart, in nanoseconds.
const (
	shortest = int64(100)
	longest  = int64(time.Hour)
)

// Record counts a latency; what is beyond an hour counts as one, and what is
// negative as 0.
func (h *Histogram) Record(d time.Duration) {
	if h.h == nil {
		h.h = hdrhistogram.New(shortest, longest, 3)
	}
	_ = h.h.RecordValue(min(max(int64(d), 0), longest)) // within its bounds it does not fail
}

// Merge adds what another has counted.
func (h *Histogram) Merge(other *Histogram) {
	if other.h == nil {
		return
	}
	if h.h == nil {
		h.h = hdrhistogram.New(shortest, longest, 3)
	}
	h.h.Merge(other.h)
}

// Latency is what a histogram says, in microseconds.
type Latency struct {
	Count int64   `json:"count"`
	Min   float64 `json:"min"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p99_9"`
	Max   float64 `json:"max"`
}

// Latency returns what was counted, all 0 if nothing was.
func (h *Histogram) Latency() Latency {
	if h.h == nil || h.h.TotalCount() == 0 {
		return Latency{}
	}
	at := func(quantile float64) float64 { return micros(float64(h.h.ValueAtQuantile(quantile))) }
	return Latency{
		Count: h.h.TotalCount(), Min: micros(float64(h.h.Min())), Mean: micros(h.h.Mean()),
		P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: micros(float64(h.h.Max())),
	}
}

// micros returns nanoseconds as microseconds, to the tenth.
func micros(ns float64) float64 { return math.Round(ns/100) / 10 }

// Counts are requests by what became of them.
type Counts struct {
	Answered   uint64 `json:"answered"`
	Hits       uint64 `json:"hits"`
	Misses     uint64 `json:"misses"`
	Errors     uint64 `json:"errors"`     // answered with an error
	Unanswered uint64 `json:"unanswered"` // given up, or never sent
}

// HitRatio is the share of hits, 0 if nothing was read.
func (c Counts) HitRatio() float64 {
	if c.Hits == 0 {
		return 0
	}
	return float64(c.Hits) / float64(c.Hits+c.Misses)
}

// Recorder gathers what the connections of a run see. Its methods may be called
// concurrently; Results when the connections are done.
type Recorder struct {
	shards [shards]shard
	// firstError is the first answer that was an error.
	firstError atomic.Pointer[error]
}

// shards keep connections from waiting for one another. A histogram takes some
// 300 KiB, hence not one for each of 10,000 connections.
const shards = 16

type shard struct {
	mu  sync.Mutex
	ops [ops]tally
}

// tally is what one shard has seen of one operation. The counters may be read at
// any time.
type tally struct {
	latency, service                           Histogram
	answered, hits, misses, errors, unanswered atomic.Uint64
	served                                     atomic.Uint64 // answers that came in the span
}

// sample is one request's fate.
type sample struct {
	op      Op
	outcome outcome
	latency time.Duration // from the intended moment
	service time.Duration // from the moment of sending; 0: not told apart
}

// served counts an answer that came in the span that is measured, whenever its
// request was planned: in an open loop that a server does not keep up with, these
// are not the same.
func (r *Recorder) served(connection int, o Op) {
	r.shards[connection%shards].ops[o].served.Add(1)
}

func (r *Recorder) record(connection int, s sample) {
	sh := &r.shards[connection%shards]
	t := &sh.ops[s.op]
	t.answered.Add(1)
	switch s.outcome {
	case failed:
		t.errors.Add(1)
		return
	case hit:
		t.hits.Add(1)
	case miss:
		t.misses.Add(1)
	case done:
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	t.latency.Record(s.latency)
	if s.service > 0 {
		t.service.Record(s.service)
	}
}

// fail notes an answer that was an error.
func (r *Recorder) fail(err error) { r.firstError.CompareAndSwap(nil, &err) }

// giveUp counts a request that has no answer after age. Its latency is at least
// that: leaving it out would flatter a server that stalls.
func (r *Recorder) giveUp(connection int, o Op, age time.Duration) {
	sh := &r.shards[connection%shards]
	t := &sh.ops[o]
	t.unanswered.Add(1)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	t.latency.Record(age)
}

// Counts returns what has been seen so far, of all operations.
func (r *Recorder) Counts() Counts {
	var c Counts
	for o := range ops {
		c.add(r.counts(o))
	}
	return c
}

func (c *Counts) add(other Counts) {
	c.Answered += other.Answered
	c.Hits += other.Hits
	c.Misses += other.Misses
	c.Errors += other.Errors
	c.Unanswered += other.Unanswered
}

func (r *Recorder) counts(o Op) Counts {
	var c Counts
	for i := range r.shards {
		t := &r.shards[i].ops[o]
		c.add(Counts{t.answered.Load(), t.hits.Load(), t.misses.Load(), t.errors.Load(), t.unanswered.Load()})
	}
	return c
}

// FirstError returns the first answer that was an error, nil if there was none.
func (r *Recorder) FirstError() error {
	if err := r.firstError.Load(); err != nil {
		return *err
	}
	return nil
}

// Result is one line of what was measured.
type Result struct {
	Name    string  `json:"name"`
	Server  string  `json:"server,omitempty"` // where there is more than one
	Seconds float64 `json:"seconds"`
	Counts
	PerSecond float64 `json:"per_second"` // answers that came while it was measured
	// Latency is from the moment when the request was to be sent.
	Latency Latency `json:"latency_us"`
	// Service is from the moment when it was sent, where that is not the same: in
	// an open loop.
	Service *Latency `json:"service_us,omitempty"`
}

// Results returns one for each operation that occurred.
func (r *Recorder) Results(took time.Duration) []Result {
	var all []Result
	for o := range ops {
		res := Result{Name: o.String(), Seconds: seconds(took), Counts: r.counts(o)}
		if res.Answered+res.Unanswered == 0 {
			continue
		}
		var latency, service Histogram
		var served uint64
		for i := range r.shards {
			t := &r.shards[i].ops[o]
			latency.Merge(&t.latency)
			service.Merge(&t.service)
			served += t.served.Load()
		}
		res.PerSecond = perSecond(served, took)
		res.Latency = latency.Latency()
		if s := service.Latency(); s.Count > 0 {
			res.Service = &s
		}
		all = append(all, res)
	}
	return all
}

// perSecond is to the tenth.
func perSecond(n uint64, took time.Duration) float64 {
	if took <= 0 {
		return 0
	}
	return math.Round(10*float64(n)/took.Seconds()) / 10
}

// seconds is to the millisecond.
func seconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }
