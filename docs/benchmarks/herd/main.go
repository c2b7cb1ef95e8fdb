//go:build linux

// Command herd measures what a hot key costs its origin, and its readers, while it
// changes: a fleet of nearside processes beside plain cache-aside with Redis, in
// turn, in one run. It prints a table of medians, and of ratios within a round.
//
// Readers do the same everywhere: GET; what is missing they load from the origin
// and SET. In front of nearside there is little left to be loaded by them, because
// its namespaces have a loader.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"time"
)

// options are the flags.
type options struct {
	nearside string
	pods     int
	clients  int
	rate     float64
	rounds   int
	quiet    time.Duration
	storm    time.Duration
	every    time.Duration
	latency  time.Duration
}

func parseFlags() options {
	var o options
	flag.StringVar(&o.nearside, "nearside", "", "path of the nearside binary")
	flag.IntVar(&o.pods, "pods", 10, "sidecars, each a process, 1 to 100")
	flag.IntVar(&o.clients, "clients", 1000, "readers, each with a connection of its own, 1 to 10000")
	flag.Float64Var(&o.rate, "rate", 5, "reads a second of one reader, with random pauses, 0.1 to 1000")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds, 1 to 100")
	flag.DurationVar(&o.quiet, "quiet", 5*time.Second, "time without changes that comes before each measurement, up to 10m")
	flag.DurationVar(&o.storm, "storm", 30*time.Second, "time with changes, up to 10m")
	flag.DurationVar(&o.every, "every", 100*time.Millisecond, "time between two changes, 10ms to 10s")
	flag.DurationVar(&o.latency, "latency", 20*time.Millisecond, "what the origin takes to answer, up to 1s")
	flag.Parse()
	return o
}

func (o options) check() error {
	bad := func(flag string) error { return fmt.Errorf("-%s is out of range: see -help", flag) }
	switch {
	case o.nearside == "":
		return errors.New("-nearside names no binary: go build ./cmd/nearside makes one")
	case o.pods < 1 || o.pods > 100:
		return bad("pods")
	case o.clients < o.pods || o.clients > 10_000:
		return bad("clients")
	case o.rate < 0.1 || o.rate > 1000:
		return bad("rate")
	case o.rounds < 1 || o.rounds > 100:
		return bad("rounds")
	case o.quiet < time.Millisecond || o.quiet > 10*time.Minute:
		return bad("quiet")
	case o.storm < o.every || o.storm > 10*time.Minute:
		return bad("storm")
	case o.every < 10*time.Millisecond || o.every > 10*time.Second:
		return bad("every")
	case o.latency < 0 || o.latency > time.Second:
		return bad("latency")
	}
	return nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, parseFlags())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "herd:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "herd") // short: sockets lie in it
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	origin, err := serveOrigin(dir+"/origin.sock", o.latency)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, origin.close()) }()
	var processes processes
	defer func() { err = errors.Join(err, processes.end()) }()
	sockets, err := startFleet(ctx, &processes, o, dir, origin.socket)
	if err != nil {
		return err
	}
	arms := nearsideArms(sockets)
	if server, found := exec.LookPath("redis-server"); found == nil {
		socket, err := startRedis(ctx, &processes, server, dir)
		if err != nil {
			return err
		}
		arms = append(arms, redisArm(socket))
	} else {
		fmt.Fprintln(os.Stderr, "herd: redis-server is not installed, so there is nothing to compare with")
	}
	results, err := measureAll(ctx, o, origin, arms)
	if err != nil {
		return err
	}
	fmt.Print(table(o, results))
	return nil
}

// measureAll measures the arms in turn, round by round, so that whatever else the
// machine does disturbs all of them.
func measureAll(ctx context.Context, o options, origin *origin, arms []arm) ([]result, error) {
	var results []result
	for i := range arms {
		if err := arms[i].connect(ctx, o, origin); err != nil {
			return nil, fmt.Errorf("%s: %w", arms[i].name, err)
		}
		defer arms[i].close()
	}
	for round := range o.rounds {
		for i := range arms {
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, o.rounds, arms[i].name)
			r, err := arms[i].measure(ctx, o, origin)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", arms[i].name, err)
			}
			r.round = round
			results = append(results, r)
		}
	}
	return results, nil
}
