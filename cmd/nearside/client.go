package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/nearside-cache/nearside/api"
	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar"
)

// client is the connection to a sidecar that a command asks for.
type client struct {
	socket   string
	password string
	timeout  time.Duration
	output   output
}

// clientTimeout is longer than what a sidecar waits for the stream by default,
// so that the sidecar's reason is seen.
const clientTimeout = 10 * time.Second

func (c *client) register(fs *pflag.FlagSet) {
	fs.StringVar(&c.socket, "socket", sidecar.DefaultConfig().Socket, "the sidecar's socket, or the host:port of its --tcp")
	c.registerSession(fs)
}

// registerSession registers everything but the socket.
func (c *client) registerSession(fs *pflag.FlagSet) {
	fs.StringVar(&c.password, "password", "", "what the sidecar asks for; better given as NEARSIDE_PASSWORD")
	fs.DurationVar(&c.timeout, "timeout", clientTimeout, "how long to wait for an answer")
	c.output.register(fs)
}

// connect connects. onPush gets what is pushed while a reply is awaited.
func (c *client) connect(ctx context.Context, onPush func(resp.Reply)) (*resp.Client, error) {
	if !strings.ContainsAny(c.socket, "/:") {
		c.socket = "./" + c.socket // a file, and no host
	}
	if strings.Contains(c.socket, "/") && len(c.socket) > api.MaxSocketPath {
		return nil, &codeError{codeUsage, fmt.Errorf("socket has a path of %d bytes: want at most %d, the longest that a Unix socket can have", len(c.socket), api.MaxSocketPath)}
	}
	conn, err := resp.Dial(ctx, c.socket, resp.ClientConfig{OnPush: onPush})
	if err != nil {
		return nil, c.unreachable(err)
	}
	return conn, nil
}

// dial connects and introduces itself.
func (c *client) dial(ctx context.Context, onPush func(resp.Reply)) (*resp.Client, error) {
	conn, err := c.connect(ctx, onPush)
	if err != nil {
		return nil, err
	}
	hello := []string{"HELLO", "3"}
	if c.password != "" {
		hello = append(hello, "AUTH", "default", c.password)
	}
	if _, err := conn.Do(ctx, append(hello, "SETNAME", "nearside-cli")...); err != nil {
		return nil, errors.Join(c.failed(err), conn.Close())
	}
	return conn, nil
}

// ask sends commands on a connection of their own and returns their replies,
// the first that is an error as the error.
func (c *client) ask(ctx context.Context, commands ...[]string) (_ []resp.Reply, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	conn, err := c.dial(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	replies, err := conn.Pipeline(ctx, commands...)
	if err != nil {
		return nil, c.failed(err)
	}
	for _, r := range replies {
		if err := r.Err(); err != nil {
			return nil, err
		}
	}
	return replies, nil
}

// failed words an error of an open connection.
func (c *client) failed(err error) error {
	var answered *resp.ServerError
	switch {
	case errors.As(err, &answered):
		if answered.Code() == "NOAUTH" {
			return &codeError{codeRefused, errors.New("the sidecar asks for a password: set NEARSIDE_PASSWORD")}
		}
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return &codeError{codeUnreachable, fmt.Errorf("no answer on %s within %v: is it a sidecar's socket? --timeout waits longer", c.socket, c.timeout)}
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted")
	}
	return &codeError{codeUnreachable, fmt.Errorf("the connection to %s broke: %w", c.socket, err)}
}

// unreachable says why nobody answers and what to do.
func (c *client) unreachable(err error) error {
	why := "nobody listens"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		why = "there is no such socket"
	case errors.Is(err, fs.ErrPermission):
		return &codeError{codeUnreachable, fmt.Errorf("cannot connect to %s: permission denied: see --socket-mode and --socket-group of nearside serve", c.socket)}
	case !errors.Is(err, syscall.ECONNREFUSED):
		why = err.Error()
	}
	return &codeError{codeUnreachable, fmt.Errorf("no sidecar on %s: %s. Is nearside serve running? Another socket: --socket or NEARSIDE_SOCKET", c.socket, why)}
}

// pairsOf returns a reply that is a map.
func pairsOf(r resp.Reply) ([]pair, error) {
	if r.Kind != resp.KindMap {
		return nil, &codeError{codeServer, errors.New("the sidecar's answer is no map: are both sides of the same version?")}
	}
	var pairs []pair
	for i := 0; i+1 < len(r.Elems); i += 2 {
		pairs = append(pairs, pair{r.Elems[i].Text(), plain(r.Elems[i+1])})
	}
	return pairs, nil
}

// plain returns a scalar reply as a Go value.
func plain(r resp.Reply) any {
	switch r.Kind {
	case resp.KindInt:
		return r.Int
	case resp.KindBool:
		return r.Int != 0
	case resp.KindNull:
		return nil
	default:
		return r.Text()
	}
}

// find returns the value of a pair, nil without.
func find(pairs []pair, name string) any {
	for _, p := range pairs {
		if p.name == name {
			return p.value
		}
	}
	return nil
}
