package nemesis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Config says what to run.
type Config struct {
	Binary   string // nearside's
	Broker   Broker
	Seed     uint64
	Duration time.Duration // of the faults; starting and healing come on top
	Faults   string        // names, separated by commas; "" or "all": all; "none"
	Servers  int           // of NATS: 1 or 3
	Sidecars int
	// Each makes every fault come once, as short as in a run of ten seconds, instead
	// of at random for Duration.
	Each     bool
	Progress io.Writer // a line every few seconds
}

const (
	readersEach  = 5 // sidecar
	eagerEach    = 2 // of these
	writers      = 6
	hoppers      = 3
	appReaders   = 4                // of the app of each sidecar
	eagerInApp   = 2                // of these
	longestFault = 10 * time.Second // pauses may take three times as long
	startTime    = 60 * time.Second // for everything to run, or to run again
)

// run is a run under way.
type run struct {
	Config
	dir      string
	longest  time.Duration // of one fault
	judge    *judge
	origin   *origin
	web      *web // the origin's other face
	cluster  *cluster
	sidecars []*sidecar
	apps     []*app // of each sidecar
	near     []string
	plain    []string
	pages    []string
	loaded   []string

	hold    atomic.Int64 // how long loads may take, for held-fills; 0: as usual
	hot     atomic.Pointer[string]
	counts  counts
	now     set // faults under way
	unknown unknown
	fresher time.Duration // from healing until all sidecars served fresh reads
	healed  time.Duration // from then until all had applied everything
	entries int           // compared at the end

	peace      sync.RWMutex // held by faults of servers and sidecars, by lone ones for writing
	recoveries durations    // from the end of a lone fault until a sidecar was live
}

// Run runs until the duration is over or ctx ends, then heals everything and
// compares what the sidecars hold with the origin. The error says that the run
// itself failed; broken invariants are in the Report. Nothing is left behind.
func Run(ctx context.Context, c Config) (_ Report, err error) {
	faults, err := choose(c.Faults, c.Servers)
	if err != nil {
		return Report{}, err
	}
	began := time.Now()
	r := &run{Config: c, longest: min(longestFault, c.Duration/5)}
	r.near, r.plain, r.pages, r.loaded = keyNames()
	r.origin = newOrigin(r.keys())
	r.judge = newJudge(r.keys(), r.origin, func() time.Duration { return time.Since(began) })
	if r.web, err = newWeb(r.origin, r.judge, &r.counts, c.Seed); err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if r.dir, err = os.MkdirTemp("", "nearside-nemesis-"); err != nil {
		return Report{}, fmt.Errorf("temporary folder: %w", err)
	}
	if err := r.start(ctx); err != nil {
		return Report{}, err
	}
	if err := r.torment(ctx, faults); err != nil {
		return Report{}, err
	}
	if err := r.settle(ctx); err != nil {
		return Report{}, err
	}
	r.judge.finish(r.unknown.list())
	return r.report(), nil
}

func (r *run) start(ctx context.Context) (err error) {
	failed := func(reason error) { r.judge.broken("processes", "%v", reason) }
	if r.cluster, err = newCluster(r.dir, r.Servers, r.Broker, failed); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for i := range r.Sidecars {
		s, err := newSidecar(r.dir, r.Binary, i, r.cluster, r.web, failed)
		r.sidecars = append(r.sidecars, s)
		r.apps = append(r.apps, &app{sidecar: s})
		if err != nil {
			return err
		}
		// One after the other at the start: the first one creates the stream.
		if err := s.ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// close ends all processes and removes their files.
func (r *run) close() error {
	var errs []error
	for _, a := range r.apps {
		errs = append(errs, a.close())
	}
	for _, s := range r.sidecars {
		errs = append(errs, s.close())
	}
	if r.cluster != nil {
		errs = append(errs, r.cluster.close())
	}
	return errors.Join(append(errs, r.web.close(), os.RemoveAll(r.dir))...)
}

// keys are all there are.
func (r *run) keys() []string { return slices.Concat(r.near, r.plain, r.pages, r.loaded) }

// worker returns the id-th one: seeds make workers' choices differ, and be the
// same in every run.
func (r *run) worker(id uint64) *worker {
	return &worker{run: r, rng: rand.New(rand.NewPCG(r.Seed, id))}
}

const lively = 500 * time.Millisecond // staleness at which a sidecar counts as fresh: two pulses

const finishTime = 30 * time.Second // for what was begun, once all is healed

// calm is how long clients go on when everything is healed.
const calm = time.Second

// torment runs clients and faults.
func (r *run) torment(ctx context.Context, faults []Fault) error {
	work, stop := context.WithCancel(ctx)
	defer stop()
	grace, end := context.WithCancel(ctx)
	defer end()
	var clients sync.WaitGroup
	r.clients(work, grace, &clients)
	clients.Go(func() { r.progress(work) })
	err := r.harm(ctx, faults)
	err = errors.Join(err, r.heal(), r.recover(ctx))
	wait(calm, ctx.Done())
	stop()
	limit := time.AfterFunc(finishTime, end)
	defer limit.Stop()
	clients.Wait()
	return err
}

// clients starts those that read and write until work ends; writers finish what
// they have begun until grace ends.
func (r *run) clients(work, grace context.Context, all *sync.WaitGroup) {
	id := uint64(100)
	next := func() *worker {
		id++
		return r.worker(id)
	}
	for _, s := range r.sidecars {
		for i := range readersEach {
			w := next()
			all.Go(func() { w.reader(work, s, i < eagerEach) })
		}
	}
	for i := range writers {
		w := next()
		all.Go(func() { w.writer(work, grace, i%len(r.sidecars)) })
	}
	for range hoppers {
		w := next()
		all.Go(func() { w.hopper(work) })
	}
	for _, a := range r.apps {
		for i := range appReaders {
			w := next()
			all.Go(func() { w.appReader(work, a, i < eagerInApp) })
		}
	}
}

// harm does faults until the duration is over, or each has been done.
func (r *run) harm(ctx context.Context, faults []Fault) error {
	limit := r.Duration
	if r.Each {
		limit = startTime
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	harm, broken := errgroup.WithContext(ctx)
	for l := range lanes {
		var own []Fault
		for _, f := range faults {
			if f.lane == l {
				own = append(own, f)
			}
		}
		harm.Go(func() error {
			if r.Each {
				return r.worker(uint64(l)).harmEach(broken, own)
			}
			return r.worker(uint64(l)).harm(broken, own)
		})
	}
	err := harm.Wait()
	if err == nil && !r.Each {
		<-ctx.Done()
	}
	return err
}

func (r *run) heal() error {
	errs := []error{r.cluster.heal()}
	for _, s := range r.sidecars {
		errs = append(errs, s.heal())
	}
	return errors.Join(errs...)
}

// recover waits until every sidecar serves fresh reads again, and notes how long
// that took.
func (r *run) recover(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	began := time.Now()
	for _, s := range r.sidecars {
		for !r.fresh(ctx, s) {
			if !wait(pause, ctx.Done()) {
				return fmt.Errorf("%s serves no fresh reads though all is healed: %s", s.name, s.tail())
			}
		}
	}
	r.fresher = time.Since(began)
	return nil
}

// fresh reports whether a read that does not wait is answered from memory, or
// would be if there were an entry.
func (r *run) fresh(ctx context.Context, s *sidecar) bool {
	c, err := s.dial(ctx)
	if err != nil {
		return false
	}
	defer closed(c)
	a, _, err := c.get(ctx, read{key: r.near[0], mode: maxStale, bound: lively}, false)
	return err == nil && a.status != "BYPASS"
}
