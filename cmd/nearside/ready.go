package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
	"github.com/nearside-cache/nearside/sidecar"
)

// readyInterval is how long ready pauses between two tries.
const readyInterval = 50 * time.Millisecond

func newReady() *cobra.Command {
	var (
		c    client
		wait time.Duration
	)
	cmd := &cobra.Command{
		Use:   "ready",
		Short: "Tell whether the sidecar answers on its socket",
		Long: `Ends with 0 if the sidecar answers PING on its socket, for the startup probe of
its container. It says nothing of NATS: an app starts without NATS, too, and
misses until it is there. That, /readyz of --admin tells.

An answer that refuses, for want of a password or by --allow-uids, counts: the
sidecar is there.

Exit codes: 0 it answers, 2 wrong usage, 3 it does not.`,
		Example: `  nearside ready
  nearside ready --wait 1m && redis-cli -s /run/nearside/nearside.sock PING`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.ready(cmd.Context(), wait)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&c.socket, "socket", sidecar.DefaultConfig().Socket, "the sidecar's socket, or the host:port of its --tcp")
	fs.DurationVar(&c.timeout, "timeout", 2*time.Second, "how long to wait for an answer")
	fs.DurationVar(&wait, "wait", 0, "try again for so long until it answers")
	settings.CommandLineOnly(fs, "timeout") // what NEARSIDE_TIMEOUT is for other commands, a probe has no time for
	settings.CommandLineOnly(fs, "wait")
	return cmd
}

// ready asks until the sidecar answers, or wait has passed.
func (c *client) ready(ctx context.Context, wait time.Duration) error {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		err := c.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-waiting.Done():
			return err
		case <-time.After(readyInterval):
		}
	}
}

// ping reports whether anything that speaks as a sidecar does answers.
func (c *client) ping(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	conn, err := c.connect(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	var refused *resp.ServerError
	if _, err := conn.Do(ctx, "PING"); err != nil && !errors.As(err, &refused) {
		return c.failed(err)
	}
	return nil
}
