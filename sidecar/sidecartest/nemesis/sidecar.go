package nemesis

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nearside-cache/nearside/api/resp"
)

// sidecar is one "nearside serve" with its own ways to the NATS servers.
type sidecar struct {
	*process
	socket string
	ways   []*proxy // one for each server

	// loads is held by plain clients from their miss to the end of their SET. A
	// pause that may exceed the fill window waits for them, as C3 assumes.
	loads sync.RWMutex
}

// maxConnections of each sidecar: more than the usual clients and herds need.
const maxConnections = 256

// newSidecar starts one. On an error what was started is the caller's to close.
func newSidecar(dir, binary string, i int, c *cluster, o *web, failed func(error)) (*sidecar, error) {
	name := fmt.Sprintf("pod-%d", i)
	s := &sidecar{socket: filepath.Join(dir, name+".sock")}
	var urls []string
	for _, srv := range c.servers {
		p, err := newProxy(srv.addr())
		if err != nil {
			return s, err
		}
		s.ways = append(s.ways, p)
		urls = append(urls, "nats://"+p.addr())
	}
	config := filepath.Join(dir, name+".yaml")
	if err := os.WriteFile(config, []byte(policies(o.url(name))), 0o600); err != nil {
		return s, fmt.Errorf("configuration of %s: %w", name, err)
	}
	var err error
	s.process, err = newProcess(dir, name, "", func() *exec.Cmd {
		return exec.Command(binary, "serve", "--config", config, "--socket", s.socket, "--admin", "",
			"--max-connections", strconv.Itoa(maxConnections),
			"--nats", strings.Join(urls, ","), "--memory", "8MiB", "--publish-timeout", publishTimeout.String(), "--log-level", "info")
	}, failed)
	if err != nil {
		return s, err
	}
	return s, s.start()
}

func (s *sidecar) current() life { return life{name: s.name, number: s.life()} }

// dial connects to the life that runs now.
func (s *sidecar) dial(ctx context.Context) (*client, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	l := s.current()
	conn, err := resp.Dial(ctx, s.socket, resp.ClientConfig{})
	if err != nil {
		return nil, err
	}
	// A life is counted before its process starts, and the one before has ended by
	// then: a connection between two equal answers is to that life.
	if now := s.current(); now != l {
		return nil, errors.Join(fmt.Errorf("%s was restarted meanwhile", s.name), conn.Close())
	}
	return &client{life: l, conn: conn}, nil
}

// ready waits until it follows the stream.
func (s *sidecar) ready(ctx context.Context) error {
	for {
		c, err := s.dial(ctx)
		if err == nil {
			var st status
			st, err = c.status(ctx)
			_ = c.close()
			if err == nil && st.ready {
				return nil
			}
		}
		if !s.running() || !wait(pause, ctx.Done()) {
			return fmt.Errorf("%s did not become ready (%w): %s", s.name, errors.Join(err, context.Cause(ctx)), s.tail())
		}
	}
}

// cut closes the ways to and from NATS, or one of the directions.
func (s *sidecar) cut(up, down bool) {
	for _, p := range s.ways {
		p.up.set(up, 0)
		p.down.set(down, 0)
	}
}

// slow delays what goes to and comes from NATS.
func (s *sidecar) slow(d time.Duration) {
	for _, p := range s.ways {
		p.up.set(false, d)
		p.down.set(false, d)
	}
}

// heal opens the ways and runs the process.
func (s *sidecar) heal() error {
	for _, p := range s.ways {
		p.open()
	}
	s.machine.heal()
	s.signal(syscall.SIGCONT)
	return errors.Join(s.setFiles(true), s.start())
}

func (s *sidecar) close() error {
	var errs []error
	if s.process != nil {
		s.end(syscall.SIGKILL)
		errs = append(errs, s.machine.close())
	}
	for _, p := range s.ways {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}
