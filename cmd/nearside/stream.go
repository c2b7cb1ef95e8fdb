package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/natsbus"
)

func newStream() *cobra.Command {
	return newGroup("stream", "Create and check the stream of a domain", newStreamEnsure(), newStreamInfo())
}

const streamCodes = `

Exit codes: 0 the stream gives the guarantees, 2 wrong usage, 3 no NATS server
answers, 5 NATS does not permit it, 6 the stream is missing or cannot give the
guarantees.`

func newStreamEnsure() *cobra.Command {
	return newStreamCommand(&cobra.Command{
		Use:   "ensure",
		Short: "Create the stream of a domain, or check the one that is there",
		Long: `Creates the stream with the settings that coherence needs, and changes nothing
when there is one: it is checked, and each setting that deviates is explained.` + streamCodes,
		Example: `  nearside stream ensure --nats nats://nats:4222
  nearside stream ensure --domain shop --replicas 3 --max-age 2h`,
	}, true)
}

func newStreamInfo() *cobra.Command {
	return newStreamCommand(&cobra.Command{
		Use:   "info",
		Short: "Show the stream of a domain and whether it gives the guarantees",
		Long: `Shows the stream and explains each setting that deviates from what coherence
needs. --replicas and --max-age say what to expect.` + streamCodes,
		Example: `  nearside stream info --nats nats://nats:4222
  nearside stream info -o json | jq '.deviations[]?.setting'`,
	}, false)
}

// newStreamCommand completes a command that asks the stream's leader.
func newStreamCommand(cmd *cobra.Command, create bool) *cobra.Command {
	var (
		o       natsOptions
		timeout time.Duration
		out     output
	)
	o.register(cmd.Flags())
	cmd.Flags().DurationVar(&timeout, "timeout", clientTimeout, "how long to wait for an answer")
	out.register(cmd.Flags())
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
		defer cancel()
		info, created, err := o.inspect(ctx, create)
		if info.Name == "" {
			return err
		}
		if err := printStream(cmd.OutOrStdout(), out, info, created); err != nil {
			return err
		}
		if err != nil {
			return &codeError{codeUnfit, fmt.Errorf("stream %s cannot give the guarantees: change the settings above, or delete it and run nearside stream ensure", info.Name)}
		}
		return nil
	}
	return cmd
}

// open connects to NATS with these settings.
func (o *natsOptions) open(ctx context.Context) (*natsbus.Bus, error) {
	if err := errors.Join(o.complete(), o.Validate()); err != nil {
		return nil, &codeError{codeUsage, err}
	}
	if o.URL == natsEmbedded {
		return nil, &codeError{codeUsage, errors.New("an embedded server belongs to its nearside serve: give that one --nats-listen, and its address here as --nats")}
	}
	return natsbus.Open(ctx, o.Config)
}

// inspect asks the leader, or creates the stream first.
func (o *natsOptions) inspect(ctx context.Context, create bool) (info natsbus.Info, created bool, err error) {
	b, err := o.open(ctx)
	if err != nil {
		return info, false, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if create {
		info, created, err = b.EnsureStream(ctx)
	} else {
		info, err = b.InspectStream(ctx)
	}
	switch {
	case errors.Is(err, natsbus.ErrNotConnected):
		err = fmt.Errorf("%w, on %s. Is it running, and are the credentials right? Another address: --nats or NEARSIDE_NATS", err, o.where())
	case errors.Is(err, context.DeadlineExceeded):
		err = &codeError{codeUnreachable, fmt.Errorf("no leader of stream %s answered on %s in time; --timeout waits longer", o.Stream.Subjects.Stream(), o.where())}
	case errors.Is(err, bus.ErrNotFound):
		err = &codeError{codeUnfit, fmt.Errorf("there is no stream %s: create it with nearside stream ensure", o.Stream.Subjects.Stream())}
	}
	return info, created, err
}

func printStream(w io.Writer, out output, i natsbus.Info, created bool) error {
	if out.isJSON() {
		return json.NewEncoder(w).Encode(struct {
			natsbus.Info
			MadeNow bool `json:"made_now"`
		}{i, created})
	}
	state := "was there"
	if created {
		state = "created now"
	}
	limit := "no limit"
	if i.MaxBytes >= 0 {
		limit = units.BytesSize(float64(i.MaxBytes))
	}
	pairs := []pair{
		{"stream", i.Name + ", " + state},
		{"created", i.Created.Local().Format(time.DateTime)},
		{"events", fmt.Sprintf("%d, %s", i.Messages, units.BytesSize(float64(i.Bytes)))},
		{"sequences", fmt.Sprintf("%d to %d", i.First, i.Last)},
		{"subjects", fmt.Sprintf("%v to %s", i.Subjects, i.Live)},
		{"kept for", i.MaxAge},
		{"kept bytes", limit},
		{"storage", i.Storage},
		{"replicas", i.Replicas},
	}
	if i.Leader != "" {
		pairs = append(pairs, pair{"leader", i.Leader})
	}
	if err := out.printPairs(w, pairs); err != nil {
		return err
	}
	printDeviations(w, i.Deviations)
	return nil
}

func printDeviations(w io.Writer, ds []natsbus.Deviation) {
	if len(ds) == 0 {
		fmt.Fprintln(w, "\nEvery setting is as coherence needs it.")
		return
	}
	fmt.Fprintln(w)
	for _, d := range ds {
		level := "warning"
		if d.Fatal {
			level = "FATAL"
		}
		fmt.Fprintf(w, "%s: %s is %s, wants %s\n  %s\n", level, d.Setting, d.Is, d.Wants, d.Why)
	}
}
