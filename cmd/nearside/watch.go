package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/session"
)

func newWatch() *cobra.Command {
	var (
		c     client
		count int
	)
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Print every event as this sidecar applies it, with its lag",
		Long: `Prints one line for every event that this sidecar applies from now on: when,
sequence in the stream, lag, what it does, and to what. The lag is the time from
the stream's storing the event until it was applied here, by the clocks of two
machines. -o json prints one object a line.

Exit codes: 0 ended by Ctrl-C or --count, 3 no sidecar answers or it has ended,
5 refused, 7 the sidecar answered with an error.`,
		Example: `  nearside watch
  nearside watch -o json | jq -r '.keys[]?.key'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t := tail{out: cmd.OutOrStdout(), output: c.output, left: count}
			return t.run(cmd.Context(), &c, cmd.ErrOrStderr())
		},
	}
	c.register(cmd.Flags())
	cmd.Flags().IntVar(&count, "count", 0, "end after so many events; 0: never")
	return cmd
}

// tail prints events until enough were seen.
type tail struct {
	out    io.Writer
	output output
	left   int   // events to print; 0: no end
	err    error // of the first event that could not be printed
}

// errEnough says that --count events were printed.
var errEnough = errors.New("enough")

func (t *tail) run(ctx context.Context, c *client, notes io.Writer) (err error) {
	start, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	conn, err := c.dial(start, t.print)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := conn.Do(start, "NEAR.WATCH"); err != nil {
		return c.failed(err)
	}
	fmt.Fprintf(notes, "Watching %s. Ctrl-C ends.\n", c.socket)
	for t.err == nil {
		push, err := conn.WaitPush(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, io.EOF):
			return &codeError{codeUnreachable, fmt.Errorf("the sidecar on %s has ended", c.socket)}
		case err != nil:
			return c.failed(err)
		}
		t.print(push)
	}
	if errors.Is(t.err, errEnough) {
		return nil
	}
	return t.err
}

// print prints one push, unless one before was the last.
func (t *tail) print(push resp.Reply) {
	if t.err != nil || len(push.Elems) != 2 || push.Elems[0].Str != "near.event" {
		return
	}
	event := push.Elems[1].Str
	if t.output.isJSON() {
		_, t.err = fmt.Fprintln(t.out, event)
	} else {
		var e session.Event
		if t.err = json.Unmarshal([]byte(event), &e); t.err == nil {
			_, t.err = io.WriteString(t.out, describeEvent(e))
		}
	}
	if t.left--; t.err == nil && t.left == 0 {
		t.err = errEnough
	}
}

// describeEvent returns an event's line, and one before it if some were lost.
func describeEvent(e session.Event) string {
	var b strings.Builder
	if e.Lost > 0 {
		fmt.Fprintf(&b, "(%d events are not shown: they came faster than they were read)\n", e.Lost)
	}
	lag := time.Duration(e.LagMicros) * time.Microsecond
	applied := e.Stored.Add(lag).Local().Format("15:04:05.000")
	fmt.Fprintf(&b, "%s %16d %8s  %-10s %s\n", applied, e.Seq, roundLag(lag), e.Op, eventTarget(e))
	return b.String()
}

// roundLag leaves three digits at most.
func roundLag(d time.Duration) time.Duration {
	for _, unit := range []time.Duration{time.Second, time.Millisecond} {
		if d.Abs() >= unit {
			return d.Round(unit / 100)
		}
	}
	return d
}

// eventTarget says what an event is about.
func eventTarget(e session.Event) string {
	var parts []string
	for _, k := range e.Keys {
		part := printable(k.Key)
		if k.Version != 0 {
			part += fmt.Sprintf("@%d", k.Version)
		}
		parts = append(parts, part)
	}
	if e.MoreKeys > 0 {
		parts = append(parts, fmt.Sprintf("and %d more keys", e.MoreKeys))
	}
	for _, tag := range e.Tags {
		parts = append(parts, "tag "+printable(tag))
	}
	if e.Prefix != "" {
		parts = append(parts, "prefix "+printable(e.Prefix))
	}
	switch {
	case e.Error != "":
		parts = append(parts, "not understood, its namespace is flushed: "+printable(e.Error))
	case len(parts) == 0 && e.Namespace != "":
		parts = append(parts, "namespace "+printable(e.Namespace))
	case len(parts) == 0:
		parts = append(parts, "the whole domain")
	}
	return strings.Join(parts, " ")
}
