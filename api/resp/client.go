package resp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// ClientConfig says how a Client reads. The zero value is usable.
type ClientConfig struct {
	// OnPush receives the messages that answer no command, while a reply is
	// awaited; see also WaitPush. nil drops them.
	OnPush func(Reply)
	Limits ReplyLimits
}

// Client is one connection to a server. It is used by one goroutine at a time.
// After a failure to send or to receive it is finished: every later call
// returns the first failure.
type Client struct {
	conn   net.Conn
	r      *bufio.Reader
	out    []byte
	config ClientConfig
	broken error
}

// Dial connects to addr: the path of a Unix socket if it contains a slash,
// otherwise host:port.
func Dial(ctx context.Context, addr string, c ClientConfig) (*Client, error) {
	network := "tcp"
	if strings.Contains(addr, "/") {
		network = "unix"
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("resp: connect: %w", err)
	}
	return NewClient(conn, c), nil
}

// NewClient returns a Client on an open connection, which it then owns.
func NewClient(conn net.Conn, c ClientConfig) *Client {
	return &Client{conn: conn, r: bufio.NewReader(conn), config: c}
}

// Close closes the connection. It may be called more than once.
func (c *Client) Close() error {
	if err := c.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("resp: close: %w", err)
	}
	return nil
}

// Do sends one command and waits for its reply until ctx ends. A reply that is
// an error is returned as the error too, as a *ServerError.
func (c *Client) Do(ctx context.Context, args ...string) (Reply, error) {
	replies, err := c.Pipeline(ctx, args)
	if err != nil {
		return Reply{}, err
	}
	return replies[0], replies[0].Err()
}

// Pipeline sends the commands without waiting in between and returns one reply
// for each, in order. Replies that are errors are replies; the error says that
// the connection failed or ctx ended.
func (c *Client) Pipeline(ctx context.Context, commands ...[]string) ([]Reply, error) {
	if c.broken != nil {
		return nil, c.broken
	}
	for i, args := range commands {
		if len(args) == 0 {
			return nil, fmt.Errorf("resp: command %d of the pipeline is empty", i)
		}
	}
	var replies []Reply
	err := c.until(ctx, func() (err error) {
		replies, err = c.transfer(commands)
		return err
	})
	if err != nil {
		return nil, err
	}
	return replies, nil
}

// WaitPush waits for the next message that answers no command until ctx ends,
// and returns it; OnPush does not get it. A reply instead is a failure: no
// command awaits one.
func (c *Client) WaitPush(ctx context.Context) (Reply, error) {
	if c.broken != nil {
		return Reply{}, c.broken
	}
	var push Reply
	err := c.until(ctx, func() (err error) {
		push, err = ReadReply(c.r, c.config.Limits)
		if err == nil && push.Kind != KindPush {
			err = &ProtocolError{Reason: "a reply came that no command awaits"}
		}
		return err
	})
	if err != nil {
		return Reply{}, err
	}
	return push, nil
}

// until does until ctx ends. Any failure finishes the client.
func (c *Client) until(ctx context.Context, do func() error) error {
	err := c.interruptible(ctx, do)
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	c.broken = fmt.Errorf("resp: connection failed: %w", err)
	return errors.Join(c.broken, c.Close())
}

// interruptible makes what do waits for on the connection fail when ctx ends.
func (c *Client) interruptible(ctx context.Context, do func() error) error {
	interrupted := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		interrupted <- c.conn.SetDeadline(time.Unix(1, 0))
	})
	err := do()
	if stop() {
		return err
	}
	if late := <-interrupted; err == nil {
		err = late
	}
	if err == nil { // it was done before the deadline took effect
		err = c.conn.SetDeadline(time.Time{})
	}
	return err
}

// transfer writes the commands while it reads the replies: a server that waits
// for its replies to be read does not read the rest of a long pipeline. When
// one side fails, the connection is closed to end the other.
func (c *Client) transfer(commands [][]string) ([]Reply, error) {
	c.out = c.out[:0]
	for _, args := range commands {
		c.out = AppendCommand(c.out, args...)
	}
	written := make(chan error, 1)
	go func() {
		_, err := c.conn.Write(c.out)
		if err != nil {
			err = errors.Join(err, c.Close())
		}
		written <- err
	}()
	replies, readErr := c.receive(len(commands))
	if readErr != nil {
		readErr = errors.Join(readErr, c.Close())
	}
	writeErr := <-written
	if readErr == nil || errors.Is(readErr, net.ErrClosed) && writeErr != nil {
		return replies, writeErr
	}
	return nil, readErr
}

func (c *Client) receive(n int) ([]Reply, error) {
	replies := make([]Reply, 0, n)
	for len(replies) < n {
		r, err := ReadReply(c.r, c.config.Limits)
		if err != nil {
			return nil, err
		}
		if r.Kind != KindPush {
			replies = append(replies, r)
		} else if c.config.OnPush != nil {
			c.config.OnPush(r)
		}
	}
	return replies, nil
}

// AppendCommand appends a command as a client sends it.
func AppendCommand(dst []byte, args ...string) []byte {
	dst = AppendArray(dst, len(args))
	for _, a := range args {
		dst = AppendBulkString(dst, a)
	}
	return dst
}
