// Package demo is `nearside demo`: three sidecars, an embedded NATS, an origin
// in memory with real records, readers, writers, and an oracle that counts stale
// reads. It needs nothing else.
package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/nearside-cache/nearside/bus"
)

// defaultDuration of the load.
const defaultDuration = 20 * time.Second

const longHelp = `Shows three sidecars that stay coherent. It needs no cluster, no other server
and no configuration, and leaves nothing behind.

The demo starts NATS JetStream inside this process, and three sidecars on Unix
sockets in a temporary folder. Its origin is a table in memory, loaded with the
4,000 most populous cities of GeoNames (geonames.org, CC BY 4.0). Twelve readers
do what cache-aside code does with any Redis client: GET, and on a miss load
from the origin and SET with EX. Three writers change populations: commit to the
origin, then DEL on one sidecar's socket. One load in fifty takes 200 ms, so
that old values arrive after their own invalidation: the race that plain caches
lose.

An oracle judges every read. A read is stale if the sidecar served a value older
than the newest version whose invalidation it had applied when the GET was sent.
There must be none. Hits that were behind the origin only because the
invalidation was still on its way are counted apart, with their age.

After the load the sockets stay up, with a write every second, and the demo
prints what to try with redis-cli, nearside and curl. Ctrl-C ends it.

Exit codes: 0 when no read was stale; 1 when one was, when nothing was measured
or when --once was interrupted.`

const examples = `  # watch it, then try the sockets
  nearside demo

  # run to the end and let the exit code tell, as a check of this machine
  nearside demo --once --duration 10s`

// options of a run.
type options struct {
	duration time.Duration
	once     bool
}

// Command returns the subcommand `nearside demo`. It writes to the command's
// standard output and ends cleanly with its context, which is to end with SIGINT
// and SIGTERM.
func Command() *cobra.Command {
	o := options{duration: defaultDuration}
	c := &cobra.Command{
		Use:     "demo",
		Short:   "Watch three sidecars stay coherent, without any other server",
		Long:    longHelp,
		Example: examples,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.duration <= 0 {
				return fmt.Errorf("--duration is %v: want more than 0, such as 20s", o.duration)
			}
			return run(cmd.Context(), newScreen(cmd.OutOrStdout()), o)
		},
	}
	c.Flags().BoolVar(&o.once, "once", o.once, "end after the load; the exit code tells whether all went well")
	c.Flags().DurationVar(&o.duration, "duration", o.duration, "how long the load takes")
	return c
}

// errInterrupted says that --once did not come to its end.
var errInterrupted = errors.New("interrupted before the end: nothing is proven")

// run is the demo from the first socket to the last.
func run(ctx context.Context, s *screen, o options) error {
	cities, err := loadCities()
	if err != nil {
		return err
	}
	s.say(fmt.Sprintf("Starting %d sidecars and NATS. Data: %s cities, %s.", len(names), group(uint64(len(cities))), attribution), "")
	l := newLoad(cities)
	return l.play(ctx, s, o, l.wrap)
}

// play starts the fleet with wrap between each sidecar and its bus, and runs the
// load against it.
func (l *load) play(ctx context.Context, s *screen, o options, wrap func(bus.Bus) bus.Bus) (err error) {
	f, err := startFleet(ctx, wrap)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	l.attach(f)
	if err := l.show(ctx, s, o.duration); err != nil {
		return err
	}
	switch {
	case ctx.Err() == nil && !o.once:
		return l.linger(ctx, s)
	case ctx.Err() != nil && o.once:
		return errInterrupted
	}
	return nil
}

// show runs the load at full pace with its table, and then looks whether it has
// proven what it should.
func (l *load) show(ctx context.Context, s *screen, d time.Duration) (err error) {
	m, err := newMonitor(ctx, l, d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	loadCtx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- l.run(loadCtx, fullPace) }()
	watched := tick(loadCtx, s.every, func() error {
		r, err := m.report(context.WithoutCancel(ctx))
		if err == nil {
			s.show(r)
		}
		return err
	})
	cancel()
	if err := errors.Join(<-ended, watched); err != nil {
		return err
	}
	entries, unsettled := l.settle(context.WithoutCancel(ctx))
	r, err := m.report(context.WithoutCancel(ctx))
	if err != nil {
		return errors.Join(unsettled, err)
	}
	s.finish(r)
	switch err := r.verdict(); {
	case errors.Is(err, errUnmeasured) && ctx.Err() != nil:
		return nil // interrupted at once
	case err != nil:
		return err
	case unsettled != nil:
		return unsettled
	}
	s.say("", s.paint.green("No stale read.")+fmt.Sprintf(" In the end all %s entries of the %d sidecars equal the origin.",
		group(uint64(entries)), len(l.fleet.pods)))
	return nil
}

// linger keeps the sockets up, with a little going on, until ctx ends.
func (l *load) linger(ctx context.Context, s *screen) error {
	s.say(l.invitation(s.paint)...)
	if err := l.run(ctx, slowPace); err != nil {
		return err
	}
	if n, first := l.oracle.staleReads(); n > 0 {
		return fmt.Errorf("%w: %d stale reads; the first: %v", errStale, n, first)
	}
	s.say("", "Ended; the temporary folder is removed.")
	return nil
}

// invitation says what to try, with the paths that are there.
func (l *load) invitation(p paint) []string {
	a, b := l.fleet.pods[0], l.fleet.pods[1]
	key := l.origin.rows[0].key
	return []string{
		"",
		p.bold("The sockets stay up, with one write a second. In another terminal:"),
		"",
		"  export NEARSIDE_SOCKET=" + b.socket,
		"",
		"  redis-cli -s " + a.socket + " GET " + key,
		"  redis-cli -s " + a.socket + " DEL " + key,
		"  nearside get " + key + p.dim("      # NEARSIDE_SOCKET: the second sidecar"),
		"  nearside explain " + key + p.dim("  # why the next read hits or misses"),
		"  nearside watch" + p.dim("                 # every event as it is applied"),
		"  nearside stats",
		"  curl -s http://" + a.sidecar.AdminAddr() + "/metrics | grep ^nearside_",
		"",
		"Ctrl-C ends the demo.",
	}
}
