// Package bench measures a server that speaks RESP from outside: latency and
// throughput of reads and writes, how long an invalidation takes to arrive in
// other sidecars, and the hit ratio of a cache on a trace. It knows nothing of
// the server but its socket, so that the same run measures Redis.
//
// Moments are durations since the run began, latencies nanoseconds in memory and
// microseconds in results.
package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/nearside-cache/nearside/api/resp"
)

// Target is the server that is measured.
type Target struct {
	Address  string // the path of a Unix socket if it contains a slash, otherwise host:port
	Password string // of the default user; empty: none is given
	// Dial connects in place of the network; nil outside of tests.
	Dial func(context.Context) (net.Conn, error)
}

// connect opens a connection in RESP2 and logs in. An answer that refuses is a
// *resp.ServerError.
func (t Target) connect(ctx context.Context) (*conn, error) {
	network := "tcp"
	if strings.Contains(t.Address, "/") {
		network = "unix"
	}
	dial := t.Dial
	if dial == nil {
		dial = func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, t.Address)
		}
	}
	nc, err := dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	c := newConn(nc)
	if t.Password == "" {
		return c, nil
	}
	stop := context.AfterFunc(ctx, c.interrupt)
	defer stop()
	err = c.exchange(resp.AppendCommand(nil, "AUTH", "default", t.Password), 1, func(_ int, r reply) error { return r.err() })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("log in: %w", err), c.Close())
	}
	return c, nil
}

// Client opens a connection in RESP3 and logs in. onPush gets what is pushed
// while a reply is awaited.
func (t Target) Client(ctx context.Context, onPush func(resp.Reply)) (*resp.Client, error) {
	c, err := resp.Dial(ctx, t.Address, resp.ClientConfig{OnPush: onPush})
	if err != nil {
		return nil, err
	}
	hello := []string{"HELLO", "3"}
	if t.Password != "" {
		hello = append(hello, "AUTH", "default", t.Password)
	}
	if _, err := c.Do(ctx, hello...); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
