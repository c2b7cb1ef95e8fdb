package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/spf13/cobra"

	"github.com/nearside-cache/nearside/cmd/nearside/internal/bench"
	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
)

// hitBench replays a trace.
type hitBench struct {
	benchmark
	trace    string
	format   string
	pipeline int
	requests uint64
}

func newBenchHitRatio() *cobra.Command {
	b := &hitBench{benchmark: benchmark{size: usualSize}, format: bench.FormatKeys}
	cmd := &cobra.Command{
		Use:   "hitratio --trace {FILE | zipf:EXPONENT:KEYS}",
		Short: "Measure the hit ratio of a trace of keys",
		Long: `Replays a trace as cache-aside code would, GET and after a miss SET, with values
of --size bytes, and prints the share of hits. How large the cache is, the
server decides: serve --memory, or maxmemory of Redis. Keys are those of this
run alone; what the server holds already takes its room until it is evicted.

Traces:
  zipf:0.99:1000000  keys by Zipf, for --requests reads (1000000 if not given)
  a file             .gz is unpacked; - is standard input
    --format keys    a key a line
    --format arc     as the traces of ARC's authors: the number of a block, how
                     many are read from it on, and more that is ignored

One connection replays the trace in its order. --pipeline is faster, and lets a
key miss twice that comes twice among so many.` + benchCodes("the trace cannot be read"),
		Example: `  nearside bench hitratio --trace zipf:0.99:1000000 --size 1KiB
  nearside bench hitratio --trace P1.lis.gz --format arc --size 4KiB
  redis-cli monitor | awk '/"GET"/ {gsub(/"/, "", $5); print $5}' >keys
  nearside bench hitratio --trace keys -o json | jq .trace.hit_ratio`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := b.check(); err != nil {
				return &codeError{codeUsage, err}
			}
			return b.measure(cmd.Context(), cmd)
		},
	}
	fs := cmd.Flags()
	b.register(fs)
	b.registerSize(fs)
	fs.StringVar(&b.trace, "trace", "", "the keys: a file, - for standard input, or zipf:EXPONENT:KEYS")
	fs.Var(settings.Choice(&b.format, bench.FormatKeys, bench.FormatARC), "format", "what the file is: keys or arc")
	fs.Uint64Var(&b.requests, "requests", 0, "reads, at most; 0: to the end of the file")
	fs.IntVar(&b.pipeline, "pipeline", 1, "keys that are read at once")
	return cmd
}

func (b *hitBench) check() error {
	faults := []error{b.benchmark.check()}
	if b.trace == "" {
		faults = append(faults, errors.New("trace is empty: want a file, or such as zipf:0.99:1000000"))
	}
	if b.pipeline < 1 || b.pipeline > bench.MaxPipeline {
		faults = append(faults, fmt.Errorf("pipeline is %d: want 1 to %d", b.pipeline, bench.MaxPipeline))
	}
	return errors.Join(faults...)
}

// syntheticReads is how many reads a trace without end has, if nobody says.
const syntheticReads = 1_000_000

func (b *hitBench) measure(ctx context.Context, cmd *cobra.Command) (err error) {
	trace, endless, err := bench.OpenTrace(b.trace, b.format, cmd.InOrStdin())
	if err != nil {
		return &codeError{codeUsage, err}
	}
	defer func() { err = errors.Join(err, trace.Close()) }()
	if endless && b.requests == 0 {
		b.requests = syntheticReads
	}
	b.ownPrefix()
	s, err := b.greet(ctx)
	if err != nil {
		return err
	}
	if err := b.tryValue(ctx, cmd.ErrOrStderr()); err != nil {
		return err
	}
	return b.replay(ctx, trace, s, cmd.OutOrStdout(), cmd.ErrOrStderr())
}

func (b *hitBench) replay(ctx context.Context, trace bench.Trace, s serverInfo, out, notes io.Writer) error {
	var rec bench.Recorder
	var last bench.Counts
	stop := progress(notes, func(since time.Duration) string {
		c := rec.Counts()
		text := describeProgress(since, 0, c, c.Answered-last.Answered)
		last = c
		return text
	})
	h := bench.HitRatio{Prefix: b.prefix, Size: b.size, Pipeline: b.pipeline, Requests: b.requests}
	did, err := h.Run(ctx, b.target(), trace, &rec)
	stop()
	c := rec.Counts()
	m := newMeasurement("bench hitratio", loadFigures{Connections: 1, Pipeline: b.pipeline, Size: b.size, Trace: b.trace}, s)
	m.span(did.Span)
	m.Results = rec.Results(did.Took)
	first := rec.FirstError()
	if first != nil {
		m.FirstError = first.Error()
	}
	reads := float64(max(c.Hits+c.Misses, 1))
	m.Trace = &traceFigures{
		HitRatio:     fourDigits(c.HitRatio()),
		BestHitRatio: fourDigits(max(0, 1-float64(did.Distinct)/reads)),
		DistinctKeys: did.Distinct,
	}
	return m.end(out, b.output, b.measuring(err), first)
}

func fourDigits(ratio float64) float64 { return math.Round(ratio*1e4) / 1e4 }
