package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nearside-cache/nearside/api/resp"
)

// Lag measures how long an invalidation through one sidecar takes until others
// no longer serve the value. All of them are asked by this process, so one clock
// times everything: from the moment before the command is sent to the first
// sidecar until
//
//   - push: a sidecar's push that it has applied the event arrives here
//     (NEAR.WATCH), while nobody reads the key;
//   - read: a reader who asks the sidecar again and again has the first answer
//     that is not the value.
//
// Rounds of the two alternate. In a round by pushes the key is read after the
// push: an old value then is an error.
type Lag struct {
	Targets  []Target // the first publishes
	Command  string   // CommandDel or CommandUpdate
	Prefix   string   // of the keys: of this run alone, each round has a new one
	Size     int      // bytes of the value
	Interval time.Duration
	Duration time.Duration
	Timeout  time.Duration // of what a round waits for
}

// MaxTargets is how many sidecars a Lag can have.
const MaxTargets = 256

// Names of what a Lag measures.
const (
	LagAcknowledged = "acknowledged"
	LagPush         = "push"
	LagRead         = "read"
)

// OtherSidecars is the server in results that are about all but the publisher.
const OtherSidecars = "all others"

// Run measures until the duration is over or ctx ends. after is called after
// each round with their number so far.
func (l Lag) Run(ctx context.Context, after func(rounds uint64)) (_ []Result, s Span, err error) {
	r := &lagRun{Lag: l, old: strings.Repeat("o", l.Size)}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.open(ctx); err != nil {
		return nil, s, err
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	watchers, working := errgroup.WithContext(watching)
	for _, o := range r.sidecars {
		watchers.Go(func() error { return o.watch(working, l.Prefix) })
	}
	begin, used := time.Now(), cpuTime()
	err = r.rounds(working, after)
	s = Span{Took: time.Since(begin), Interrupted: ctx.Err() != nil}
	s.Cores = (cpuTime() - used).Seconds() / s.Took.Seconds()
	stop()
	switch broken := watchers.Wait(); {
	case s.Interrupted:
		err = nil // what waited failed of that
	case broken != nil:
		err = broken // and so what waited for it
	}
	return r.results(s.Took), s, err
}

// lagRun is one run of a Lag.
type lagRun struct {
	Lag
	publisher *resp.Client
	sidecars  []*observed
	acked     Histogram
	round     uint64
	old       string // the value
}

// open connects to all.
func (r *lagRun) open(ctx context.Context) (err error) {
	if r.publisher, err = r.Targets[0].Client(ctx, nil); err != nil {
		return fmt.Errorf("%s: %w", r.Targets[0].Address, err)
	}
	for _, t := range r.Targets {
		o := &observed{target: t, applied: make(chan arrival, 1)}
		r.sidecars = append(r.sidecars, o)
		if err := o.open(ctx); err != nil {
			return o.named(err)
		}
	}
	return nil
}

func (r *lagRun) close() error {
	var errs []error
	for _, o := range r.sidecars {
		errs = append(errs, closeClient(o.reader), closeClient(o.watcher))
	}
	return errors.Join(append(errs, closeClient(r.publisher))...)
}

func closeClient(c *resp.Client) error {
	if c == nil {
		return nil
	}
	return c.Close()
}

// rounds measures until the duration is over.
func (r *lagRun) rounds(ctx context.Context, after func(uint64)) error {
	limited, cancel := context.WithTimeout(ctx, r.Duration)
	defer cancel()
	for limited.Err() == nil {
		measure := r.byPush
		if r.round%2 == 1 {
			measure = r.byRead
		}
		if err := r.one(ctx, measure); err != nil {
			return err
		}
		r.round++
		after(r.round)
		_ = sleep(limited, r.Interval) // the loop looks why it ended
	}
	return nil
}

// one is one round: every sidecar holds the value, and then it is measured.
func (r *lagRun) one(ctx context.Context, measure func(context.Context, string) error) error {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	key := Key(r.Prefix, r.round)
	for _, o := range r.sidecars {
		if err := o.hold(ctx, key, r.old); err != nil {
			return o.named(err)
		}
	}
	return measure(ctx, key)
}

// publish invalidates the key, and returns the moment before.
func (r *lagRun) publish(ctx context.Context, key string) (time.Time, error) {
	command := []string{"DEL", key}
	if r.Command == CommandUpdate {
		command = []string{"NEAR.UPDATE", key, "1", "PX", "60000", strings.Repeat("n", r.Size)}
	}
	begin := time.Now()
	_, err := r.publisher.Do(ctx, command...)
	if err != nil {
		return begin, fmt.Errorf("%s: %w", r.Targets[0].Address, err)
	}
	r.acked.Record(time.Since(begin))
	return begin, nil
}

// byPush is a round without readers.
func (r *lagRun) byPush(ctx context.Context, key string) error {
	begin, err := r.publish(ctx, key)
	if err != nil {
		return err
	}
	for _, o := range r.sidecars {
		if err := o.await(ctx, key, begin); err != nil {
			return o.named(err)
		}
		value, err := o.reader.Do(ctx, "GET", key)
		if err != nil {
			return o.named(err)
		}
		if value.Str == r.old {
			o.stale++
		}
	}
	return nil
}

// byRead is a round in which every sidecar is read without pause.
func (r *lagRun) byRead(ctx context.Context, key string) error {
	changed := make([]time.Time, len(r.sidecars))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	readers, reading := errgroup.WithContext(ctx)
	var begun sync.WaitGroup
	begun.Add(len(r.sidecars))
	for i, o := range r.sidecars {
		readers.Go(func() (err error) {
			changed[i], err = o.untilOther(reading, key, r.old, begun.Done)
			return err
		})
	}
	begun.Wait()
	begin, err := r.publish(reading, key)
	if err != nil {
		cancel()
	}
	broken := readers.Wait()
	switch {
	case err != nil && !errors.Is(err, context.Canceled):
		return err
	case broken != nil: // what canceled the publishing, if anything did
		return broken
	}
	for i, o := range r.sidecars {
		o.read.Record(changed[i].Sub(begin))
		if err := o.await(ctx, key, time.Time{}); err != nil {
			return o.named(err)
		}
	}
	return nil
}

// results are one line for the acknowledgement, and two for each sidecar and for
// all but the publisher.
func (r *lagRun) results(took time.Duration) []Result {
	all := []Result{lagResult(LagAcknowledged, r.Targets[0].Address, took, &r.acked, 0)}
	var push, read Histogram
	var stale uint64
	for i, o := range r.sidecars {
		all = append(all,
			lagResult(LagPush, o.target.Address, took, &o.push, o.stale),
			lagResult(LagRead, o.target.Address, took, &o.read, 0))
		if i > 0 {
			push.Merge(&o.push)
			read.Merge(&o.read)
			stale += o.stale
		}
	}
	if len(r.sidecars) > 2 {
		all = append(all, lagResult(LagPush, OtherSidecars, took, &push, stale), lagResult(LagRead, OtherSidecars, took, &read, 0))
	}
	return all
}

func lagResult(name, server string, took time.Duration, h *Histogram, stale uint64) Result {
	l := h.Latency()
	return Result{
		Name: name, Server: server, Seconds: seconds(took), Latency: l,
		Counts: Counts{Answered: uint64(l.Count), Errors: stale}, PerSecond: perSecond(uint64(l.Count), took),
	}
}
