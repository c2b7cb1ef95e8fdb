package sidecar

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/nearside-cache/nearside/sidecar/session"
)

// goroutines is the driver with a goroutine for each connection. It works on every
// system.
type goroutines struct {
	server *server
	ctx    context.Context // of operations that wait
}

func (g goroutines) take(nc net.Conn) (connection, error) {
	a := &attendant{conn: newConn(g.server, g.server.env, func() string { return peerWords(nc) }), ctx: g.ctx, net: nc}
	a.conn.wake = a.wake
	return a, nil
}

func (goroutines) stop() {}

// attendant is one connection with the goroutine that drives it: it reads, lets the
// conversation answer, and writes when no more input is buffered.
type attendant struct {
	conn
	ctx   context.Context
	net   net.Conn
	woken atomic.Bool // something is to be pushed, or the server drains

	writeBy time.Time // the deadline set for writing
	frameBy time.Time // the deadline for the rest of the command that has begun; zero without one
}

func (a *attendant) start() {
	go func() {
		end := a.run()
		a.close()
		a.net.Close()
		a.server.leave(a, end)
	}()
}

// wake makes the goroutine return from its read. Safe for concurrent use.
func (a *attendant) wake() {
	a.woken.Store(true)
	// Failing means that the connection is closed, which its goroutine notices.
	_ = a.net.SetReadDeadline(time.Unix(1, 0))
}

func (a *attendant) kill() { a.net.Close() }

// run serves until the connection ends and returns why.
func (a *attendant) run() ending {
	for {
		if end := a.receive(); end != "" {
			return end
		}
		a.begin(a.in.bytes)
		if end := a.serve(); end != "" {
			return end
		}
		if a.drained() {
			return endDrain
		}
	}
}

// receive waits for input, and sends what is pushed meanwhile.
func (a *attendant) receive() ending {
	if !a.makeRoom() {
		return a.crowdedOut()
	}
	b := &a.in.bytes
	for {
		n, err := a.net.Read((*b)[len(*b):cap(*b)])
		*b = (*b)[:len(*b)+n]
		switch {
		case n > 0:
			return ""
		case err == nil:
		case errors.Is(err, io.EOF):
			return endClient
		case errors.Is(err, os.ErrDeadlineExceeded):
			woken := a.woken.Swap(false)
			if late := !a.frameBy.IsZero() && !time.Now().Before(a.frameBy); !woken && late {
				return a.refuse(endFrame, lateText)
			}
			// Also without woken: of two who wake, one's flag may have been seen to
			// before it has set its deadline.
			if end := a.awake(); end != "" {
				return end
			}
		default:
			return endError
		}
	}
}

// awake handles a wake-up: the read deadline is put back first, so that a wake
// that comes now is seen by the next read.
func (a *attendant) awake() ending {
	if a.net.SetReadDeadline(a.frameBy) != nil {
		return endError
	}
	if a.talk != nil {
		if !a.out.adopt(a.talk.Pushes(a.out.bytes)) {
			return a.crowdedOut()
		}
		if end := a.flush(); end != "" {
			return end
		}
	}
	if a.drained() {
		return endDrain
	}
	return ""
}

// serve answers all that has come in.
func (a *attendant) serve() ending {
	done := 0
	for {
		n, out, next := a.talk.Serve(a.in.bytes[done:], a.out.bytes)
		done += n
		if !a.out.adopt(out) {
			return a.crowdedOut()
		}
		if next == session.Input {
			a.consume(done)
		}
		if end := a.flush(); end != "" {
			return end
		}
		switch next {
		case session.Input:
			return a.expectRest()
		case session.Run:
			a.talk.Waiting().Run(a.ctx)
			a.out.bytes = a.talk.Finish(a.out.bytes)
		case session.End:
			return a.ended()
		}
	}
}

// expectRest sets a deadline for the rest of a command that has begun, and takes
// it away when there is none.
func (a *attendant) expectRest() ending {
	if !a.frame.follow(&a.conn, len(a.in.bytes)) {
		return ""
	}
	a.frameBy = time.Time{}
	if a.frame.begun {
		a.frameBy = time.Now().Add(a.server.cfg.FrameTimeout)
	}
	if a.net.SetReadDeadline(a.frameBy) != nil {
		return endError
	}
	if a.woken.Load() {
		a.wake() // its deadline was overwritten
	}
	return ""
}

// flush writes the answers.
func (a *attendant) flush() ending {
	n := len(a.out.bytes)
	if n == 0 {
		return ""
	}
	// A deadline costs as much as a small answer: it is moved on now and then.
	if now := time.Now(); a.writeBy.Sub(now) < a.server.cfg.WriteTimeout {
		a.writeBy = now.Add(2 * a.server.cfg.WriteTimeout)
		if a.net.SetWriteDeadline(a.writeBy) != nil {
			return endError
		}
	}
	_, err := a.net.Write(a.out.bytes)
	a.out.usedUp(n)
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
func (a *attendant) crowdedOut() ending {
	a.out.release()
	return a.refuse(endBuffers, crowdedText)
}

// refuse tells the client why its connection ends.
func (a *attendant) refuse(end ending, text string) ending {
	a.out.bytes = append(a.out.bytes, a.refusal(text)...)
	if failed := a.flush(); failed != "" {
		return failed
	}
	return end
}
