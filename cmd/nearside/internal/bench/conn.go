package bench

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/nearside-cache/nearside/api"
	"github.com/nearside-cache/nearside/api/resp"
)

// reply is what is kept of an answer: enough to tell a hit from a miss and from
// an error. Values are counted, not kept.
type reply struct {
	kind byte   // its first byte
	size int    // of a bulk string; -1: there is none
	text string // of an error
	at   time.Time
}

// isNull reports whether there is no such thing.
func (r reply) isNull() bool { return r.kind == '_' || r.kind == '$' && r.size < 0 }

// err returns an error's answer as a *resp.ServerError.
func (r reply) err() error {
	if r.kind == '-' {
		return &resp.ServerError{Text: r.text}
	}
	return nil
}

// conn is one connection on which batches are asked. One goroutine uses it,
// beside interrupt.
type conn struct {
	net.Conn
	buf  []byte
	r, w int       // what of buf has come and is not consumed yet
	at   time.Time // when the last of it came
}

// inBuffer is how much is read at once. No line of an answer is longer.
const inBuffer = 64 << 10

func newConn(nc net.Conn) *conn { return &conn{Conn: nc, buf: make([]byte, inBuffer)} }

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// interrupt makes everything that waits on the connection fail.
func (c *conn) interrupt() { _ = c.SetDeadline(longAgo) } // it fails only where the connection is closed

// inlineBatch is how many bytes are written before answers are read. A server
// that waits for its answers to be read might not read more of them.
const inlineBatch = 64 << 10

// exchange sends n requests and gives each of their answers to got, in order. It
// returns the first error of got or of the connection, which is finished then.
func (c *conn) exchange(requests []byte, n int, got func(i int, r reply) error) error {
	if len(requests) <= inlineBatch {
		if _, err := c.Write(requests); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		return c.receive(n, got)
	}
	written := make(chan error, 1)
	go func() {
		_, err := c.Write(requests)
		if err != nil {
			err = fmt.Errorf("send: %w", err)
			c.interrupt()
		}
		written <- err
	}()
	err := c.receive(n, got)
	if err != nil {
		c.interrupt()
	}
	writeErr := <-written
	if err == nil || writeErr != nil && !errors.Is(writeErr, os.ErrDeadlineExceeded) {
		return writeErr // reading fails because writing did
	}
	return err
}

func (c *conn) receive(n int, got func(int, reply) error) error {
	for i := range n {
		r, err := c.next()
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if err := got(i, r); err != nil {
			return err
		}
	}
	return nil
}

// next reads the next answer.
func (c *conn) next() (reply, error) {
	line, err := c.line()
	if err != nil {
		return reply{}, err
	}
	r := reply{kind: line[0], at: c.at}
	switch r.kind {
	case '+', ':', '_':
		return r, nil
	case '-':
		r.text = string(line[1:])
		return r, nil
	case '$':
		if r.size, err = strconv.Atoi(string(line[1:])); err != nil || r.size < -1 || r.size > api.MaxBulk {
			return reply{}, &resp.ProtocolError{Reason: fmt.Sprintf("invalid length %.20q in reply", line[1:])}
		}
		if r.size >= 0 {
			err = c.skip(r.size + len(resp.CRLF))
		}
		r.at = c.at
		return r, err
	default:
		return reply{}, &resp.ProtocolError{Reason: fmt.Sprintf("unexpected reply %.20q: is it a server that speaks RESP?", line)}
	}
}

// line returns the next line without its end; it is valid until the next call.
func (c *conn) line() ([]byte, error) {
	for searched := c.r; ; {
		if i := bytes.IndexByte(c.buf[searched:c.w], '\n'); i >= 0 {
			line, ok := bytes.CutSuffix(c.buf[c.r:searched+i+1], []byte(resp.CRLF))
			if !ok || len(line) == 0 {
				return nil, &resp.ProtocolError{Reason: "malformed line in reply: is it a server that speaks RESP?"}
			}
			c.r = searched + i + 1
			return line, nil
		}
		if c.r > 0 {
			c.r, c.w = 0, copy(c.buf, c.buf[c.r:c.w])
		}
		if searched = c.w; searched == len(c.buf) {
			return nil, &resp.ProtocolError{Reason: "too long line in reply"}
		}
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

// skip consumes n bytes.
func (c *conn) skip(n int) error {
	for {
		have := min(n, c.w-c.r)
		c.r += have
		if n -= have; n == 0 {
			return nil
		}
		c.r, c.w = 0, 0
		if err := c.fill(); err != nil {
			return err
		}
	}
}

// fill reads what has come, at least a byte, into the rest of buf.
func (c *conn) fill() error {
	n, err := c.Read(c.buf[c.w:])
	c.at = time.Now()
	c.w += n
	if n > 0 {
		return nil
	}
	return err
}
