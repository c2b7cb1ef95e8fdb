// Package sidecartest starts sidecars for tests: real ones on real sockets, on a
// stream in memory whose faults a test can switch on.
package sidecartest

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/membus"
	"github.com/nearside-cache/nearside/sidecar"
)

// Driver is the Config.Driver of the sidecars that are started; empty leaves it as it
// is. It is changed only while no test runs.
var Driver string

// Wait is how long tests wait for what should happen soon.
const Wait = 20 * time.Second

// Sidecar is a running sidecar under test.
type Sidecar struct {
	*sidecar.Sidecar
	Socket string
	Bus    bus.Bus

	stop  context.CancelFunc
	ended chan error
}

// NewStream returns an empty stream in memory.
func NewStream(t testing.TB) *membus.Stream {
	t.Helper()
	s, err := membus.NewStream(bus.DefaultDomain)
	require.NoError(t, err)
	return s
}

// Start runs a sidecar on b, ready to serve, until the test ends. change, which
// may be nil, adjusts its configuration.
func Start(t testing.TB, b bus.Bus, change func(*sidecar.Config)) *Sidecar {
	t.Helper()
	s := StartUnready(t, b, change)
	s.AwaitReady(t)
	return s
}

// StartUnready is Start for a sidecar that may not become ready.
func StartUnready(t testing.TB, b bus.Bus, change func(*sidecar.Config)) *Sidecar {
	t.Helper()
	cfg := sidecar.DefaultConfig()
	cfg.Socket = filepath.Join(Dir(t), "near.sock")
	cfg.Admin = ""
	cfg.Bus = b
	cfg.Driver = Driver
	cfg.Logger = hclog.New(&hclog.LoggerOptions{Output: logTo{t}, Level: hclog.Info})
	if change != nil {
		change(&cfg)
	}
	daemon, err := sidecar.Listen(cfg)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	s := &Sidecar{Sidecar: daemon, Socket: cfg.Socket, Bus: b, stop: stop, ended: make(chan error, 1)}
	go func() { s.ended <- daemon.Run(ctx) }()
	t.Cleanup(func() { s.Stop(t) })
	return s
}

// AwaitReady waits until the sidecar follows its stream.
func (s *Sidecar) AwaitReady(t testing.TB) {
	t.Helper()
	select {
	case <-s.Ready():
	case <-time.After(Wait):
		t.Fatal("the sidecar did not become ready")
	}
}

// Stop drains the sidecar and waits for its end. It may be called more than
// once.
func (s *Sidecar) Stop(t testing.TB) {
	t.Helper()
	s.stop()
	select {
	case err := <-s.ended:
		require.NoError(t, err)
		s.ended <- nil
	case <-time.After(Wait):
		t.Fatal("the sidecar did not end")
	}
}

// AwaitApplied waits until the sidecar has applied everything up to p.
func (s *Sidecar) AwaitApplied(t testing.TB, p bus.Position) {
	t.Helper()
	require.Eventually(t, func() bool { return s.Applied().Covers(p) }, Wait, time.Millisecond)
}

// Dial connects a client to the sidecar's socket until the test ends.
func (s *Sidecar) Dial(t testing.TB) *Client {
	t.Helper()
	return Dial(t, s.Socket)
}

// Client is a connection that fails its test when a command cannot be answered.
type Client struct {
	*resp.Client
	t testing.TB
}

// Dial connects to a socket path or TCP address until the test ends.
func Dial(t testing.TB, addr string) *Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Wait)
	defer cancel()
	c, err := resp.Dial(ctx, addr, resp.ClientConfig{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return &Client{Client: c, t: t}
}

// Do sends a command and returns its reply, an error reply included.
func (c *Client) Do(args ...string) resp.Reply {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Wait)
	defer cancel()
	replies, err := c.Pipeline(ctx, args)
	require.NoError(c.t, err, "%.100q", args)
	return replies[0]
}

// Dir returns a folder for the test whose path is short enough for a socket in
// it, which that of testing.T.TempDir may not be.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "near") //nolint:usetesting // t.TempDir has the test's name in its path
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// logTo writes log lines to a test's output.
type logTo struct{ t testing.TB }

func (l logTo) Write(p []byte) (int, error) {
	l.t.Logf("%s", p)
	return len(p), nil
}
