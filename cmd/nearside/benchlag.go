package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/nearside-cache/nearside/cmd/nearside/internal/bench"
	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
)

// lagBench measures how long an invalidation takes to arrive.
type lagBench struct {
	benchmark
	sockets sockets
	lag     bench.Lag
}

// sockets is a flag that is given once for each.
//
// INVARIANT: what String returns sets exactly that again, as settings.Read does
// with every flag: a text that ends with a line end is the whole list.
type sockets []string

// Type implements pflag.Value.
func (*sockets) Type() string { return "socket" }

// Set implements pflag.Value.
func (s *sockets) Set(text string) error {
	if whole, ok := strings.CutSuffix(text, "\n"); ok {
		*s = strings.Split(whole, "\n")
	} else {
		*s = append(*s, text)
	}
	return nil
}

// String implements pflag.Value.
func (s *sockets) String() string {
	if len(*s) == 0 {
		return ""
	}
	return strings.Join(*s, "\n") + "\n"
}

func newBenchLag() *cobra.Command {
	b := &lagBench{benchmark: benchmark{size: usualSize}, lag: bench.Lag{Command: bench.CommandDel}}
	cmd := &cobra.Command{
		Use:   "lag",
		Short: "Measure how long an invalidation takes to arrive in other sidecars",
		Long: `Lets all sidecars hold a value, invalidates it through the first --socket, and
measures by the clock of this process, from the moment before the command is
sent, until

  acknowledged  the first sidecar has answered
  push          a sidecar's push that the event is applied there arrives here
                (NEAR.WATCH), while nobody reads
  read          a reader who asks a sidecar without pause has the first answer
                that is not the old value

Pushes and reads are measured in turn, each with a new key. After a push the key
is read: an old value then is an error, and the command ends with 1. Reads take
of the processors what one connection for each sidecar can; where there are more
sidecars than processors, only pushes tell of the sidecars alone.` + benchCodes("an old value was seen"),
		Example: `  nearside bench lag --socket /tmp/a.sock --socket /tmp/b.sock
  nearside bench lag --socket a.sock --socket b.sock --command near.update
  nearside bench lag --socket a.sock --socket b.sock -o json |
    jq '.results[] | {server, name, p99: .latency_us.p99}'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := b.check(); err != nil {
				return &codeError{codeUsage, err}
			}
			return b.measure(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.Var(&b.sockets, "socket", "a sidecar's socket, or the host:port of its --tcp; once for each, the first publishes")
	b.registerSession(fs)
	b.registerKeys(fs)
	b.registerSize(fs)
	fs.Var(settings.Choice(&b.lag.Command, bench.CommandDel, bench.CommandUpdate), "command", "what invalidates: del or near.update")
	fs.DurationVar(&b.lag.Interval, "interval", 10*time.Millisecond, "pause between two invalidations")
	fs.DurationVar(&b.lag.Duration, "duration", 10*time.Second, "how long to measure")
	return cmd
}

func (b *lagBench) check() error {
	faults := []error{b.benchmark.check()}
	if n := len(b.sockets); n < 2 || n > bench.MaxTargets {
		faults = append(faults, fmt.Errorf("socket was given %d times: want 2 to %d, those of one domain", n, bench.MaxTargets))
	}
	if b.lag.Interval < 0 {
		faults = append(faults, fmt.Errorf("interval is %v: want 0 or more", b.lag.Interval))
	}
	if b.lag.Duration <= 0 {
		faults = append(faults, fmt.Errorf("duration is %v: want more than 0", b.lag.Duration))
	}
	return errors.Join(faults...)
}

func (b *lagBench) measure(ctx context.Context, out, notes io.Writer) error {
	b.ownPrefix()
	var servers []serverInfo
	for _, b.socket = range b.sockets {
		s, err := b.greet(ctx)
		if err != nil {
			return err
		}
		servers = append(servers, s)
		b.lag.Targets = append(b.lag.Targets, b.target())
	}
	b.lag.Prefix, b.lag.Size, b.lag.Timeout = b.prefix, b.size, b.timeout
	m := newMeasurement("bench lag", loadFigures{Size: b.size, Invalidation: b.lag.Command, DurationSeconds: b.lag.Duration.Seconds()}, servers...)
	var rounds atomic.Uint64
	stop := progress(notes, func(since time.Duration) string {
		return fmt.Sprintf("%v  %d invalidations", since.Round(time.Second), rounds.Load())
	})
	results, span, err := b.lag.Run(ctx, rounds.Store)
	stop()
	m.span(span)
	if rounds.Load() > 0 {
		m.Results = results
	}
	return errors.Join(m.end(out, b.output, b.measuring(err), nil), staleError(results))
}

// staleError is for old values that were served after their push.
func staleError(results []bench.Result) error {
	for _, r := range results {
		if r.Errors > 0 {
			return fmt.Errorf("%s still served %d old values after its push that they are invalidated: that must not be, please report it", r.Server, r.Errors)
		}
	}
	return nil
}
