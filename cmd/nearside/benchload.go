package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/nearside-cache/nearside/cmd/nearside/internal/bench"
	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
)

// loadBench measures requests of one kind, or GETs and SETs.
type loadBench struct {
	benchmark
	name         string
	load         bench.Load
	keys         uint64
	zipf         float64
	reads        float64
	noFill       bool
	invalidation string // empty: GETs and SETs
	value        bench.Value
}

const loadHelp = `
Without --rate the loop is closed: each answer calls for the next request, so
that a server that stalls is asked less. --rate plans moments and keeps to them:
latencies count from the planned moment, as a user would wait, whatever held the
request up. Latencies from sending stand below.

Any server that speaks RESP can be measured: --socket /run/redis.sock, or
--addr host:port.`

func newBenchGet() *cobra.Command {
	b := &loadBench{benchmark: benchmark{size: usualSize}, name: "get", reads: 1}
	return b.command(&cobra.Command{
		Use:   "get",
		Short: "Measure latency and throughput of GET hits",
		Long: `Stores --keys values and measures how fast they are read.
` + loadHelp + benchCodes("an answer was not expected"),
		Example: `  nearside bench get
  nearside bench get --connections 50 --pipeline 16 --size 1KiB
  nearside bench get --zipf 0.99 --keys 1000000 --rate 20000 --duration 30s
  nearside bench get --socket /run/redis/redis.sock -o json | jq .results[0]`,
	})
}

func newBenchSet() *cobra.Command {
	b := &loadBench{benchmark: benchmark{size: usualSize}, name: "set"}
	return b.command(&cobra.Command{
		Use:   "set",
		Short: "Measure latency and throughput of SET",
		Long: `Measures how fast values are stored. A sidecar answers OK also to a SET that it
drops, as a cache may: to it a SET is what a reader has loaded after a miss, and
it drops one without a miss if the key was stored within the fill window (10 s).
With enough --keys each is stored once.
` + loadHelp + benchCodes("an answer was not expected"),
		Example: `  nearside bench set --size 1KiB
  nearside bench set --addr 127.0.0.1:6379`,
	})
}

func newBenchMixed() *cobra.Command {
	b := &loadBench{benchmark: benchmark{size: usualSize}, name: "mixed", reads: 0.9}
	return b.command(&cobra.Command{
		Use:   "mixed",
		Short: "Measure GETs and SETs among one another",
		Long: `Stores --keys values and measures GETs and SETs of them: --reads is the share
of GETs. Most of the SETs a sidecar drops: see nearside bench set --help.
` + loadHelp + benchCodes("an answer was not expected"),
		Example: `  nearside bench mixed --reads 0.95 --zipf 0.99
  nearside bench mixed --rate 50000 --duration 1m`,
	})
}

func newBenchInvalidate() *cobra.Command {
	b := &loadBench{benchmark: benchmark{size: usualSize}, name: "invalidate", invalidation: bench.CommandDel}
	return b.command(&cobra.Command{
		Use:   "invalidate",
		Short: "Measure until an invalidation is acknowledged",
		Long: `Measures how long DEL or NEAR.INVALIDATE of one key takes: the sidecar answers
when the stream has acknowledged the event and it is applied there. First one
connection sends one after the other, then all --connections at once; each for
--duration. nearside bench lag measures when the others have applied it.

The events go to every sidecar of the domain.
` + loadHelp + benchCodes("an answer was not expected"),
		Example: `  nearside bench invalidate
  nearside bench invalidate --command near.invalidate --connections 64
  nearside bench invalidate --rate 200 --duration 1m`,
	})
}

// command completes a command that measures a load.
func (b *loadBench) command(cmd *cobra.Command) *cobra.Command {
	fs := cmd.Flags()
	b.register(fs)
	if b.invalidation == "" {
		b.registerSize(fs)
	}
	fs.IntVar(&b.load.Connections, "connections", 50, "connections that ask at once")
	fs.IntVar(&b.load.Pipeline, "pipeline", 1, "requests on their way on each connection")
	fs.Uint64Var(&b.keys, "keys", 1000, "number of keys")
	fs.Float64Var(&b.zipf, "zipf", 0, "choose keys by Zipf with this exponent, such as 0.99; 0: all alike")
	fs.Float64Var(&b.load.Rate, "rate", 0, "requests a second on all connections, however long answers take; 0: as answers come")
	fs.DurationVar(&b.load.Duration, "duration", 10*time.Second, "how long to measure")
	fs.DurationVar(&b.load.Warmup, "warmup", time.Second, "how long to ask before that")
	switch b.name {
	case "invalidate":
		fs.Var(settings.Choice(&b.invalidation, bench.CommandDel, bench.CommandInvalidate), "command", "what invalidates: del or near.invalidate")
	case "mixed":
		fs.Float64Var(&b.reads, "reads", b.reads, "the share of GETs, 0 to 1")
		fallthrough
	case "get":
		fs.BoolVar(&b.noFill, "no-fill", false, "store no values before: measure what is there")
	}
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := b.check(); err != nil {
			return &codeError{codeUsage, err}
		}
		if b.invalidation == "" {
			// What a run with values of another size has stored is not in the way.
			b.prefix += fmt.Sprintf("%d:", b.size)
		}
		return b.measure(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
	}
	return cmd
}

func (b *loadBench) check() error {
	b.load.Size, b.load.Grace = b.size, b.timeout
	_, err := bench.NewKeys(b.keys, b.zipf, rand.New(rand.NewPCG(0, 0)))
	if !(b.reads >= 0 && b.reads <= 1) {
		err = errors.Join(err, fmt.Errorf("reads is %v: want 0 to 1", b.reads))
	}
	return errors.Join(b.benchmark.check(), b.load.Check(), err)
}

// measure prepares the server, measures it and prints.
func (b *loadBench) measure(ctx context.Context, out, notes io.Writer) error {
	s, err := b.greet(ctx)
	if err != nil {
		return err
	}
	if err := b.prepare(ctx, notes); err != nil {
		return err
	}
	b.value = bench.NewValue(b.size)
	m := newMeasurement("bench "+b.name, b.figures(), s)
	failed, first := b.phases(ctx, notes, m)
	if failed != nil && first != nil {
		failed = fmt.Errorf("%w; an answer before was: %w", failed, first)
	}
	return m.end(out, b.output, failed, first)
}

// prepare sees that the server does what is measured, and stores what is read.
func (b *loadBench) prepare(ctx context.Context, notes io.Writer) error {
	if b.invalidation != "" {
		return b.tryInvalidation(ctx)
	}
	if b.noFill {
		return nil
	}
	if err := b.tryValue(ctx, notes); err != nil {
		return err
	}
	if b.reads == 0 {
		return nil
	}
	var filled atomic.Uint64
	defer progress(notes, func(time.Duration) string { return fmt.Sprintf("storing %d of %d values", filled.Load(), b.keys) })()
	return b.measuring(bench.Fill(ctx, b.target(), b.prefix, b.keys, b.size, &filled))
}

// tryInvalidation invalidates a key, so that a server that refuses it is not
// measured at refusing.
func (b *loadBench) tryInvalidation(ctx context.Context) error {
	command := []string{"DEL", b.unique()}
	if b.invalidation == bench.CommandInvalidate {
		command = invalidateKeys(command[1:])
	}
	_, err := b.ask(ctx, command)
	return err
}

// phases measures, an invalidation once alone and once together. It returns what
// broke, and the first answer that was an error.
func (b *loadBench) phases(ctx context.Context, notes io.Writer, m *measurement) (failed, first error) {
	if b.invalidation == "" {
		return b.phase(ctx, notes, m, b.load, "")
	}
	alone := b.load
	alone.Connections, alone.Pipeline = 1, 1
	if failed, first = b.phase(ctx, notes, m, alone, "one connection"); failed != nil || ctx.Err() != nil {
		return failed, first
	}
	failed, together := b.phase(ctx, notes, m, b.load, fmt.Sprintf("%d connections", b.load.Connections))
	if first == nil {
		first = together
	}
	return failed, first
}

// phase measures one load, whose results get the name, if it has one.
func (b *loadBench) phase(ctx context.Context, notes io.Writer, m *measurement, load bench.Load, name string) (failed, first error) {
	var rec bench.Recorder
	var last bench.Counts
	stop := progress(notes, func(since time.Duration) string {
		c := rec.Counts()
		text := describeProgress(since, load.Warmup, c, c.Answered-last.Answered)
		last = c
		return text
	})
	span, err := load.Run(ctx, b.target(), b.requests, &rec)
	stop()
	results := rec.Results(span.Took)
	for i := range results {
		if name != "" {
			results[i].Name = name
		}
	}
	m.Results = append(m.Results, results...)
	m.span(span)
	if first = rec.FirstError(); first != nil && m.FirstError == "" {
		m.FirstError = first.Error()
	}
	return b.measuring(err), first
}

// requests makes those of one connection. Each has its own sequence of keys, the
// same in every run.
func (b *loadBench) requests(connection int) bench.Requests {
	r := rand.New(rand.NewPCG(1, uint64(connection)))
	keys, err := bench.NewKeys(b.keys, b.zipf, r)
	if err != nil {
		panic(err) // check has tried it
	}
	if b.invalidation != "" {
		return bench.Invalidations(keys, b.prefix, b.invalidation)
	}
	return bench.Mixed(keys, b.prefix, b.reads, b.value, r)
}

func (b *loadBench) figures() loadFigures {
	f := loadFigures{
		Connections: b.load.Connections, Pipeline: b.load.Pipeline, Keys: b.keys, Zipf: b.zipf, Rate: b.load.Rate,
		WarmupSeconds: b.load.Warmup.Seconds(), DurationSeconds: b.load.Duration.Seconds(), Invalidation: b.invalidation,
	}
	if b.invalidation == "" {
		f.Size, f.Reads = b.size, b.reads
	}
	return f
}

// describeProgress is the line that is shown while it is measured.
func describeProgress(since, warmup time.Duration, c bench.Counts, lately uint64) string {
	if since < warmup {
		return fmt.Sprintf("%v  warming up", since.Round(time.Second))
	}
	text := fmt.Sprintf("%v  %d/s", since.Round(time.Second), lately)
	if c.Hits+c.Misses > 0 {
		text += fmt.Sprintf("  hits %.1f %%", 100*c.HitRatio())
	}
	if c.Errors > 0 {
		text += fmt.Sprintf("  errors %d", c.Errors)
	}
	return text
}
