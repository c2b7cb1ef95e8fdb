//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/nearside-cache/nearside/api/resp"
)

// startTimeout bounds how long a process takes to answer.
const startTimeout = 30 * time.Second

// processes are those that this program started.
type processes struct{ all []*process }

type process struct {
	cmd *exec.Cmd
	log bytes.Buffer // read when it has ended
}

func (p *processes) start(name string, args ...string) error {
	one := &process{cmd: exec.Command(name, args...)} //nolint:gosec // the binaries that were asked for
	one.cmd.Stderr = &one.log
	// They end with this process, whatever ends it.
	one.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := one.cmd.Start(); err != nil {
		return err
	}
	p.all = append(p.all, one)
	return nil
}

// end ends all, in the reverse order of their starts. It fails if one had ended
// before.
func (p *processes) end() error {
	var faults []error
	for i := len(p.all) - 1; i >= 0; i-- {
		one := p.all[i]
		signaled := one.cmd.Process.Signal(syscall.SIGTERM)
		if err := one.cmd.Wait(); err != nil || signaled != nil {
			faults = append(faults, fmt.Errorf("%s: %w: %s", filepath.Base(one.cmd.Path), errors.Join(err, signaled), tail(one.log.Bytes())))
		}
	}
	return errors.Join(faults...)
}

func tail(log []byte) []byte { return log[max(0, len(log)-2000):] }

// namespaces of the fleet: one for each way to read that is measured.
const settings = `namespaces:
  plain: {loader: &origin {url: "http://origin/{key}", socket: %[1]s, version_header: X-Version}}
  shared: {loader: *origin, l2: {}}
  soft: {loader: *origin, soft_ttl: %[2]v, stale_while_revalidate: 10s}
`

// startFleet starts the sidecars and returns their sockets. The first one has the
// embedded NATS.
func startFleet(ctx context.Context, p *processes, o options, dir, origin string) ([]string, error) {
	config := filepath.Join(dir, "nearside.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, settings, origin, o.every), 0o600); err != nil {
		return nil, err
	}
	nats, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	sockets := make([]string, o.pods)
	for i := range sockets {
		sockets[i] = filepath.Join(dir, strconv.Itoa(i)+".sock")
		args := []string{"serve", "--socket", sockets[i], "--admin", "", "--config", config, "--log-level", "warn"}
		if i == 0 {
			args = append(args, "--nats", "embedded", "--data", filepath.Join(dir, "data"), "--nats-listen", nats)
		} else {
			args = append(args, "--nats", "nats://"+nats)
		}
		if err := p.start(o.nearside, args...); err != nil {
			return nil, err
		}
		if err := await(ctx, sockets[i], nearsideReady); err != nil {
			return nil, fmt.Errorf("sidecar %d: %w: %s", i, err, p.all[len(p.all)-1].log.Bytes())
		}
	}
	return sockets, nil
}

func freeAddress(ctx context.Context) (string, error) {
	var c net.ListenConfig
	l, err := c.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func startRedis(ctx context.Context, p *processes, server, dir string) (socket string, err error) {
	socket = filepath.Join(dir, "redis.sock")
	if err := p.start(server, "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir", dir, "--tcp-backlog", "4096"); err != nil {
		return "", err
	}
	return socket, await(ctx, socket, func(ctx context.Context, c *resp.Client) bool {
		_, err := c.Do(ctx, "PING")
		return err == nil
	})
}

// nearsideReady reports whether a sidecar follows its stream.
func nearsideReady(ctx context.Context, c *resp.Client) bool {
	r, err := c.Do(ctx, "NEAR.STATUS")
	if err != nil {
		return false
	}
	for i := 0; i+1 < len(r.Elems); i += 2 {
		if r.Elems[i].Str == "ready" {
			return r.Elems[i+1].Int == 1
		}
	}
	return false
}

// await connects to socket until is holds.
func await(ctx context.Context, socket string, is func(context.Context, *resp.Client) bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if c, err := resp.Dial(ctx, socket, resp.ClientConfig{}); err == nil {
			good := is(ctx, c)
			_ = c.Close() // nothing is lost with it
			if good {
				return nil
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s gives no answer: %w", socket, ctx.Err())
		}
	}
}
