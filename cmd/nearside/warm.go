package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
)

// warmer has a sidecar load a list of keys.
type warmer struct {
	client
	namespace   string
	keysFrom    string
	rate        float64 // keys a second
	concurrency int
}

func newWarm() *cobra.Command {
	var w warmer
	cmd := &cobra.Command{
		Use:   "warm --namespace NAME --keys-from FILE",
		Short: "Have this sidecar load keys before anybody asks for them",
		Long: `Has the sidecar load the keys of a list through the loader of their namespace,
as readers would, so that readers find them: after a deployment, before a sale.
What is held already is left as it is. Only this sidecar is warmed.

The list has one key a line; blanks around a key, empty lines and those that
begin with # are passed over. A key without a ":" gets the namespace in front:
42 in --namespace product is product:42. A key of another namespace is refused,
for it may be the wrong list. --keys-from - reads standard input.

The loader keeps to its own limits, too: what it refuses, fails here. Without a
loader nothing is loaded, and the command ends after a few keys and says so.

On a terminal it tells how far it is. Ctrl-C ends it with the summary.

Exit codes: 0 every key is held now, or its origin says that it does not exist,
1 a key is not, or it was interrupted, 2 wrong usage, 3 no sidecar answers,
5 refused, 7 the sidecar answered with an error.`,
		Example: `  nearside warm --namespace product --keys-from bestsellers.txt
  psql -Atc 'select id from product' | nearside warm --namespace product \
    --keys-from - --rate 500 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := w.validate(); err != nil {
				return &codeError{codeUsage, err}
			}
			return w.run(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), newProgressLine(cmd.ErrOrStderr()))
		},
	}
	w.register(cmd.Flags())
	fs := cmd.Flags()
	fs.StringVar(&w.namespace, "namespace", "", "the namespace of the keys")
	fs.StringVar(&w.keysFrom, "keys-from", "", "the list of keys; -: standard input")
	fs.Float64Var(&w.rate, "rate", 100, "keys a second at most; 0: as fast as they are answered")
	fs.IntVar(&w.concurrency, "concurrency", 8, "keys asked for at once")
	settings.CommandLineOnly(fs, "namespace")
	settings.CommandLineOnly(fs, "keys-from")
	return cmd
}

const maxWarmConcurrency = 1000

func (w *warmer) validate() error {
	switch {
	case w.namespace == "" || len(w.namespace) > bus.MaxNamespace || strings.Contains(w.namespace, ":"):
		return fmt.Errorf("namespace is %.40q: want 1 to %d bytes without a ':', what stands before it in the keys", w.namespace, bus.MaxNamespace)
	case w.keysFrom == "":
		return errors.New("keys-from is empty: want the file with the keys, or - for standard input")
	case !(w.rate >= 0):
		return fmt.Errorf("rate is %v: want 0 (no limit) or more", w.rate)
	case w.concurrency < 1 || w.concurrency > maxWarmConcurrency:
		return fmt.Errorf("concurrency is %d: want 1 to %d", w.concurrency, maxWarmConcurrency)
	case w.timeout <= 0:
		return fmt.Errorf("timeout is %v: want more than 0", w.timeout)
	}
	return nil
}

// pace returns what waits for the next key's turn.
func (w *warmer) pace() func(context.Context) error {
	if w.rate == 0 {
		return func(ctx context.Context) error { return ctx.Err() }
	}
	// As many at once as a timer may come late.
	burst := max(1, int(min(w.rate, 1e6)/50))
	return rate.NewLimiter(rate.Limit(w.rate), burst).Wait
}

// errNothingLoads ends the work when nobody does it.
var errNothingLoads = errors.New("nothing is loaded")

// run warms until the list or ctx ends, and prints the summary.
func (w *warmer) run(ctx context.Context, stdin io.Reader, out io.Writer, progress *progressLine) (err error) {
	list, err := openKeys(w.keysFrom, w.namespace, stdin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, list.in.Close()) }()
	working, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	results := make(chan warmed)
	var failure error
	go func() {
		defer close(results)
		failure = w.work(working, list, results)
	}()
	t := &tally{namespace: w.namespace, began: time.Now()}
	w.collect(t, list, results, progress, stop)
	progress.clear()
	interrupted := ctx.Err() != nil
	if failure != nil && !interrupted && t.done == 0 {
		return failure // nothing to sum up
	}
	if err := t.summary(out, w.output, interrupted); err != nil {
		return err
	}
	return w.verdict(t, failure, interrupted)
}

// verdict is the error that the command ends with.
func (w *warmer) verdict(t *tally, failure error, interrupted bool) error {
	switch {
	case interrupted:
		return errors.New("interrupted: run it again, what is held already is not loaded again")
	case failure != nil:
		return failure
	case t.nothingLoads():
		return fmt.Errorf("the sidecar loads nothing: it answers MISS and leaves loading to its clients. "+
			"Has namespace %s a loader in its policy, and does its origin answer? See: nearside explain %s", w.namespace, printable(t.missed))
	case t.lacking() > 0:
		return fmt.Errorf("%d of %d keys are not held. Run it again when the cause is mended: what is held is not loaded again", t.lacking(), t.done)
	}
	return nil
}

// collect counts the results, and stops the work when nothing is loaded.
func (w *warmer) collect(t *tally, list *keyList, results <-chan warmed, progress *progressLine, stop context.CancelCauseFunc) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case r, more := <-results:
			if !more {
				return
			}
			t.add(r)
			if t.of[notLoaded] >= loaderTries && t.nothingLoads() {
				stop(errNothingLoads)
			}
		case now := <-tick.C:
			progress.show(t.line(now, list.done()))
		}
	}
}

// work has the keys loaded and returns what ended it before the list did, nil for
// the end of ctx.
func (w *warmer) work(ctx context.Context, list *keyList, results chan<- warmed) error {
	group, ctx := errgroup.WithContext(ctx)
	keys := make(chan listedKey)
	// Nobody waits for it once ctx has ended: it may be reading from a terminal or a
	// pipe that says nothing more, which cannot be interrupted.
	go list.feed(ctx, keys, w.pace())
	for range w.concurrency {
		group.Go(func() error { return w.serve(ctx, keys, results) })
	}
	switch err := group.Wait(); {
	case errors.Is(err, context.Canceled):
		return nil
	case err != nil:
		return err
	}
	return list.err // all have seen the end of keys
}

// serve asks for keys on a connection of its own.
func (w *warmer) serve(ctx context.Context, keys <-chan listedKey, results chan<- warmed) (err error) {
	dialing, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	conn, err := w.dial(dialing, nil)
	if err != nil {
		return errors.Join(ctx.Err(), err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	for {
		var k listedKey
		select {
		case next, more := <-keys:
			if !more {
				return nil
			}
			k = next
		case <-ctx.Done():
			return ctx.Err()
		}
		result := warmed{key: k.key, outcome: failed, err: k.fault}
		if k.fault == nil {
			if result, err = w.ask(ctx, conn, k.key); err != nil {
				return errors.Join(ctx.Err(), err)
			}
		}
		results <- result // run takes them until all have ended
	}
}

// grace is how long an answer may take longer than the sidecar was told to wait.
const grace = time.Second

// ask has one key loaded. The error is that of the connection.
//
// A read does not tell whether it found the key or loaded it: EXPLAIN does, before.
func (w *warmer) ask(ctx context.Context, conn *resp.Client, key string) (warmed, error) {
	ctx, cancel := context.WithTimeout(ctx, w.timeout+grace)
	defer cancel()
	replies, err := conn.Pipeline(ctx,
		[]string{"NEAR.EXPLAIN", key},
		[]string{"NEAR.GET", key, "ANY", "WAIT", strconv.FormatInt(max(1, w.timeout.Milliseconds()), 10)})
	if err != nil {
		return warmed{}, w.failed(err)
	}
	var answers [2][]pair
	for i, r := range replies {
		if err := r.Err(); err != nil {
			return warmed{key, failed, err}, nil
		}
		if answers[i], err = pairsOf(r); err != nil {
			return warmed{}, err
		}
	}
	next, _ := find(answers[0], "next_read").(string)
	status, _ := find(answers[1], "status").(string)
	before, _, _ := strings.Cut(next, ":")
	return judge(key, before, status), nil
}

// judge tells what became of a key by the statuses before and after.
func judge(key, before, after string) warmed {
	held := []string{"HIT", "REGULAR", "STALE"}
	switch {
	case after == "NEGATIVE":
		return warmed{key, isAbsent, nil}
	case after == "MISS":
		return warmed{key, notLoaded, errors.New("MISS: it was not loaded in time, or not kept")}
	case !slices.Contains(held, after):
		return warmed{key, failed, fmt.Errorf("the sidecar answered %s", printable(after))}
	case slices.Contains(held, before):
		return warmed{key, wasHeld, nil}
	}
	return warmed{key, wasLoaded, nil}
}
