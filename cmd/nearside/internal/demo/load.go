package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus"
)

// pace is how fast readers and writers go.
type pace struct {
	reads  time.Duration // between two batches of one reader
	writes time.Duration // between two writes of one writer
}

var (
	fullPace = pace{reads: 10 * time.Millisecond, writes: 75 * time.Millisecond} // 40 writes/s
	slowPace = pace{reads: time.Second, writes: 3 * time.Second}                 // 1 write/s
)

const readersEach = 4 // sidecar

// load is the origin, what reads and writes it through the fleet, and what comes
// of it.
type load struct {
	origin  *origin
	oracle  *oracle
	flights *flights
	fleet   *fleet // set once it has started

	tallies map[*pod]*tally // fixed once the fleet has started
	writes  atomic.Uint64
	old     atomic.Uint64 // fills that came after their own invalidation
	kept    atomic.Uint64 // of these, served when read right behind
	foreign atomic.Uint64 // values served that are none of the origin's
	behind  *spread       // of hits that were behind the origin: for how long

	slow [len(names)]atomic.Pointer[row] // by writer: a row of its own that is on a slow load
}

// tally counts what the readers of one sidecar saw.
type tally struct{ reads, hits atomic.Uint64 }

func newLoad(cities []city) *load {
	o := newOrigin(cities)
	return &load{
		origin: o, oracle: newOracle(o), flights: newFlights(len(names)),
		tallies: make(map[*pod]*tally), behind: newSpread(),
	}
}

// wrap puts the load's tap between a sidecar and its bus.
func (l *load) wrap(b bus.Bus) bus.Bus { return tap{b, l.origin, l.oracle, l.flights} }

func (l *load) attach(f *fleet) {
	l.fleet = f
	for _, p := range f.pods {
		l.tallies[p] = &tally{}
	}
}

// newZipf draws ranks below n: readers and writers prefer populous cities, so
// that they meet. It is for one goroutine.
func newZipf(n int) *rand.Zipf {
	return rand.NewZipf(rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), 1.1, 3, uint64(n-1))
}

// How long a load takes on its way back from the origin. One in slowOneIn is
// slow: the old fills that arrive after an invalidation come from these.
const (
	loadTime  = 2 * time.Millisecond // up to half of it more or less
	slowTime  = 200 * time.Millisecond
	slowOneIn = 50
)

// fetch loads a row after a miss. The record is read at once and then is on its
// way: meanwhile it may be committed over.
func (l *load) fetch(ctx context.Context, r *row) (city, error) {
	c := r.read()
	d := loadTime/2 + rand.N(loadTime)
	if rand.N(slowOneIn) == 0 {
		d = slowTime
		writer := &l.slow[r.rank%len(l.slow)]
		writer.Store(r)
		defer writer.CompareAndSwap(r, nil)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return c, nil
	case <-ctx.Done():
		return city{}, context.Cause(ctx)
	}
}

// run reads and writes until ctx ends, which is no error.
func (l *load) run(ctx context.Context, p pace) error {
	g, ctx := errgroup.WithContext(ctx)
	// A load that ends while its clients still connect has not failed.
	dial := context.WithoutCancel(ctx)
	for i, pod := range l.fleet.pods {
		g.Go(func() error {
			w, err := newWriter(dial, l, i)
			if err != nil {
				return err
			}
			return w.run(ctx, p.writes)
		})
		for range readersEach {
			g.Go(func() error {
				r, err := newReader(dial, l, pod)
				if err != nil {
					return err
				}
				return r.run(ctx, p.reads)
			})
		}
	}
	g.Go(func() error {
		select {
		case err := <-l.fleet.failed:
			return err
		case <-ctx.Done():
			return nil
		}
	})
	return g.Wait()
}

// judge takes a value that was served and returns its version, 0 when it is none
// of ours.
func (l *load) judge(p *pod, r *row, value string, applied bus.Position, sent time.Time) uint64 {
	var c city
	if err := json.Unmarshal([]byte(value), &c); err != nil || c.key() != r.key || c.Version == 0 {
		l.foreign.Add(1)
		return 0
	}
	if age := r.behind(c.Version, sent); age > 0 {
		l.behind.add(age)
	}
	l.oracle.served(read{p.name, r.key, c.Version, applied})
	return c.Version
}

// offered counts a fill that came after its own invalidation.
func (l *load) offered(kept bool) {
	l.old.Add(1)
	if kept {
		l.kept.Add(1)
	}
}

const (
	settleTime  = 5 * time.Second // for the last invalidations to be applied everywhere
	settleBatch = 200             // GETs at once
)

// settle waits until every invalidation has been applied everywhere, and then
// compares every entry of every sidecar with the origin (I3). It returns how
// many entries there were.
func (l *load) settle(ctx context.Context) (entries int, err error) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	if n := l.flights.wait(ctx); n > 0 {
		return 0, fmt.Errorf("%d invalidations were not applied in every sidecar within %v", n, settleTime)
	}
	for _, p := range l.fleet.pods {
		n, err := l.compare(ctx, p)
		if err != nil {
			return entries, fmt.Errorf("comparing %s with the origin: %w", p.name, err)
		}
		entries += n
	}
	return entries, nil
}

// compare judges every entry of p. Nothing is committed meanwhile.
func (l *load) compare(ctx context.Context, p *pod) (entries int, err error) {
	client, err := resp.Dial(ctx, p.socket, resp.ClientConfig{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	for rows := l.origin.rows; len(rows) > 0; {
		some := rows[:min(settleBatch, len(rows))]
		rows = rows[len(some):]
		commands := make([][]string, len(some))
		for i, r := range some {
			commands[i] = []string{"GET", r.key}
		}
		applied, sent := p.sidecar.Applied(), time.Now()
		replies, err := client.Pipeline(ctx, commands...)
		if err != nil {
			return entries, err
		}
		for i, reply := range replies {
			if err := reply.Err(); err != nil {
				return entries, err
			}
			if reply.IsNull() {
				continue
			}
			entries++
			version, newest := l.judge(p, some[i], reply.Str, applied, sent), some[i].read().Version
			if version != newest {
				return entries, fmt.Errorf("%w: %s holds version %d of %s, the origin has %d", errStale, p.name, version, some[i].key, newest)
			}
		}
	}
	return entries, nil
}
