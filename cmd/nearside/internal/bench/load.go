package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Load is how much is asked of a server.
type Load struct {
	Connections int
	Pipeline    int // requests on their way on each connection at once
	Size        int // bytes of a value that was stored

	// Rate is how many requests are sent in a second on all connections, whether
	// the former ones are answered or not: an open loop. 0: a closed one, where
	// each answer calls for the next request.
	//
	// INVARIANT: in an open loop a request's latency counts from the moment for
	// which it was planned. One that waits in line because the server holds the
	// connection up is as late as it would be for a user; what is planned before
	// the end and has no answer counts with its age.
	Rate float64

	Warmup, Duration time.Duration
	Grace            time.Duration // how long answers are awaited after the end

	newPacer func() pacer // nil outside of tests
}

// pacing returns what one connection waits with.
func (l Load) pacing() pacer {
	if l.newPacer != nil {
		return l.newPacer()
	}
	return newPacer()
}

// Highest figures of a Load.
const (
	MaxConnections = 10_000
	MaxPipeline    = 1000
	MaxRate        = 1e8
	MaxOnTheirWay  = 1 << 30        // bytes of values on all connections at once
	MaxDuration    = 12 * time.Hour // values are stored for a day
)

// Check returns all that is out of bounds, joined.
func (l Load) Check() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(l.Connections >= 1 && l.Connections <= MaxConnections, "connections is %d: want 1 to %d", l.Connections, MaxConnections)
	check(l.Pipeline >= 1 && l.Pipeline <= MaxPipeline, "pipeline is %d: want 1 to %d", l.Pipeline, MaxPipeline)
	check(l.Connections*l.Pipeline <= MaxOnTheirWay/max(l.Size, 1), "values on their way would take connections × pipeline × size = %d × %d × %d bytes: want at most %d", l.Connections, l.Pipeline, l.Size, MaxOnTheirWay)
	check(l.Rate >= 0 && l.Rate <= MaxRate, "rate is %v: want 0, for a closed loop, to %.0f", l.Rate, MaxRate)
	check(l.Duration > 0 && l.Duration <= MaxDuration, "duration is %v: want more than 0, up to %v", l.Duration, MaxDuration)
	check(l.Warmup >= 0 && l.Warmup <= MaxDuration, "warmup is %v: want 0 to %v", l.Warmup, MaxDuration)
	return errors.Join(faults...)
}

// Span is what was measured.
type Span struct {
	Took time.Duration // without the warm-up
	// Cores is how many processors this process kept busy meanwhile. Where it and
	// the server want more than there are, the figures tell of both.
	Cores       float64
	Interrupted bool // the context ended it
}

// Run asks on all connections until the load's duration is over or ctx ends, and
// records what was planned after the warm-up. A connection that fails ends the
// run; what was recorded before stands.
func (l Load) Run(ctx context.Context, t Target, requests func(connection int) Requests, rec *Recorder) (s Span, err error) {
	conns, err := openAll(ctx, t, l.Connections)
	defer func() {
		for _, c := range conns {
			err = errors.Join(err, c.Close())
		}
	}()
	if err != nil {
		return s, err
	}
	r := &run{load: l, rec: rec, begin: time.Now()}
	r.end.Store(int64(l.Warmup + l.Duration))
	working, fail := context.WithCancel(ctx) // goes on when all is planned, up to the end
	defer fail()
	var all errgroup.Group
	for i, c := range conns {
		w := &worker{run: r, index: i, conn: c, requests: requests(i)}
		all.Go(func() error {
			err := w.work()
			if err != nil {
				fail()
			}
			return err
		})
	}
	done, over := make(chan struct{}), make(chan Span, 1)
	go func() { over <- r.supervise(working, done, conns) }()
	err = all.Wait()
	close(done)
	s = <-over
	s.Interrupted = ctx.Err() != nil
	return s, err
}

// openAll opens n connections. Those that are open are returned with an error,
// too.
func openAll(ctx context.Context, t Target, n int) (conns []*conn, err error) {
	for i := range n {
		c, err := t.connect(ctx)
		if err != nil {
			return conns, fmt.Errorf("connection %d of %d: %w", i+1, n, err)
		}
		conns = append(conns, c)
	}
	return conns, nil
}

// run is what the connections of one run share.
type run struct {
	load  Load
	rec   *Recorder
	begin time.Time
	end   atomic.Int64 // the moment from which on nothing is planned
}

func (r *run) now() time.Duration { return time.Since(r.begin) }

func (r *run) ends() time.Duration { return time.Duration(r.end.Load()) }

// impatient is the longest grace when somebody has ended the run.
const impatient = time.Second

// supervise measures the span, ends it early when ctx ends, and interrupts what
// has no answer when the grace is over.
func (r *run) supervise(ctx context.Context, done <-chan struct{}, conns []*conn) Span {
	var s Span
	grace := r.load.Grace
	err := sleep(ctx, r.load.Warmup)
	from, used := r.now(), cpuTime()
	if err == nil {
		err = sleep(ctx, r.ends()-from)
	}
	if err != nil {
		r.end.Store(min(r.end.Load(), int64(r.now())))
		grace = min(grace, impatient)
	}
	s.Took = max(r.ends()-r.load.Warmup, 0)
	s.Cores = (cpuTime() - used).Seconds() / max(r.now()-from, 1).Seconds()
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
		for _, c := range conns {
			c.interrupt()
		}
	}
	return s
}
