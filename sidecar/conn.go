package sidecar

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/session"
)

// conn drives one session with one goroutine over one connection: it reads,
// lets the session answer, and writes when no more input is buffered.
type conn struct {
	server  *server
	net     net.Conn
	session *session.Session
	in, out buffer
	woken   atomic.Bool // something is to be pushed, or the server drains

	writeBy time.Time // the deadline set for writing
	frameBy time.Time // the deadline for the rest of the command that has begun; zero without one
	frame   uint64    // commands received before that one
}

// ending is why a connection ended: a label of nearside_connections_closed_total.
type ending string

// Endings of connections.
const (
	endClient  ending = "client"       // the client closed it, or QUIT
	endInput   ending = "bad-input"    // what came was no protocol we speak
	endFrame   ending = "half-command" // a command was not completed in time
	endSlow    ending = "slow-reader"  // answers were not read in time
	endBuffers ending = "buffers"      // the memory for buffers is exhausted
	endDrain   ending = "drain"        // the sidecar ends
	endError   ending = "error"        // the connection failed
	endRefused ending = "refused"      // too many connections, or not allowed
)

var endings = []ending{endClient, endInput, endFrame, endSlow, endBuffers, endDrain, endError, endRefused}

func newConn(s *server, nc net.Conn) *conn {
	c := &conn{server: s, net: nc, in: buffer{shared: &s.buffers}, out: buffer{shared: &s.buffers}}
	c.session = session.New(s.env, c.wake)
	c.session.Identify(func() string { return peerWords(nc) })
	return c
}

// wake makes the goroutine return from its read. Safe for concurrent use.
func (c *conn) wake() {
	c.woken.Store(true)
	// Failing means that the connection is closed, which its goroutine notices.
	_ = c.net.SetReadDeadline(time.Unix(1, 0))
}

// run serves until the connection ends and returns why.
func (c *conn) run(ctx context.Context) ending {
	defer func() {
		c.session.Close()
		c.in.release()
		c.out.release()
	}()
	for {
		if end := c.receive(); end != "" {
			return end
		}
		if end := c.serve(ctx); end != "" {
			return end
		}
		if c.server.draining.Load() {
			return endDrain
		}
	}
}

// receive waits for input, and sends what is pushed meanwhile.
func (c *conn) receive() ending {
	// A client's announcement is believed only as far as it has sent as much
	// before.
	room := min(c.session.WantMore(), max(len(c.in.bytes), keptBuffer/2))
	if !c.in.grow(max(room, firstBuffer/2)) {
		return c.crowdedOut()
	}
	b := &c.in.bytes
	for {
		n, err := c.net.Read((*b)[len(*b):cap(*b)])
		*b = (*b)[:len(*b)+n]
		switch {
		case n > 0:
			return ""
		case err == nil:
		case errors.Is(err, io.EOF):
			return endClient
		case errors.Is(err, os.ErrDeadlineExceeded):
			if !c.woken.Swap(false) {
				return c.refuse(endFrame, "ERR Protocol error: the command was not completed in time")
			}
			if end := c.awake(); end != "" {
				return end
			}
		default:
			return endError
		}
	}
}

// awake handles a wake-up: the read deadline is put back first, so that a wake
// that comes now is seen by the next read.
func (c *conn) awake() ending {
	if c.net.SetReadDeadline(c.frameBy) != nil {
		return endError
	}
	if c.server.draining.Load() {
		return endDrain
	}
	if !c.out.adopt(c.session.Pushes(c.out.bytes)) {
		return c.crowdedOut()
	}
	return c.flush()
}

// serve answers all that has come in.
func (c *conn) serve(ctx context.Context) ending {
	done := 0
	for {
		n, out, next := c.session.Serve(c.in.bytes[done:], c.out.bytes)
		done += n
		if !c.out.adopt(out) {
			return c.crowdedOut()
		}
		switch next {
		case session.Input:
			c.consume(done)
			if end := c.flush(); end != "" {
				return end
			}
			return c.expectRest()
		case session.Flush:
			if end := c.flush(); end != "" {
				return end
			}
		case session.Run:
			if end := c.flush(); end != "" {
				return end
			}
			c.session.Waiting().Run(ctx)
			c.out.bytes = c.session.Finish(c.out.bytes)
		case session.End:
			if end := c.flush(); end != "" {
				return end
			}
			if c.session.Fault() {
				return endInput
			}
			return endClient
		}
	}
}

// consume takes n bytes from the front of the input.
func (c *conn) consume(n int) {
	rest := c.in.bytes[n:]
	if len(rest) == 0 {
		c.in.usedUp(n)
		return
	}
	c.in.bytes = c.in.bytes[:copy(c.in.bytes, rest)]
}

// expectRest sets a deadline for the rest of a command that has begun, and takes
// it away when there is none.
func (c *conn) expectRest() ending {
	switch begun := c.session.Begun() || len(c.in.bytes) > 0; {
	case begun && !c.frameBy.IsZero() && c.frame == c.session.Received(),
		!begun && c.frameBy.IsZero():
		return ""
	case begun:
		c.frameBy, c.frame = time.Now().Add(c.server.cfg.FrameTimeout), c.session.Received()
	default:
		c.frameBy = time.Time{}
	}
	if c.net.SetReadDeadline(c.frameBy) != nil {
		return endError
	}
	if c.woken.Load() {
		c.wake() // its deadline was overwritten
	}
	return ""
}

// flush writes the answers.
func (c *conn) flush() ending {
	n := len(c.out.bytes)
	if n == 0 {
		return ""
	}
	// A deadline costs as much as a small answer: it is moved on now and then.
	if now := time.Now(); c.writeBy.Sub(now) < c.server.cfg.WriteTimeout {
		c.writeBy = now.Add(2 * c.server.cfg.WriteTimeout)
		if c.net.SetWriteDeadline(c.writeBy) != nil {
			return endError
		}
	}
	_, err := c.net.Write(c.out.bytes)
	c.out.usedUp(n)
	switch {
	case err == nil:
		return ""
	case errors.Is(err, os.ErrDeadlineExceeded):
		return endSlow
	}
	return endError
}

// crowdedOut ends a connection for whose buffers there is no memory. Answers not
// yet written are dropped, whose place the error takes.
func (c *conn) crowdedOut() ending {
	c.out.release()
	return c.refuse(endBuffers, "ERR the memory for buffers is exhausted by all clients together; try again, or raise --memory")
}

// refuse tells the client why its connection ends.
func (c *conn) refuse(end ending, text string) ending {
	c.out.bytes = resp.AppendError(c.out.bytes, text)
	if failed := c.flush(); failed != "" {
		return failed
	}
	return end
}
