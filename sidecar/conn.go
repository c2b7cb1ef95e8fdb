package sidecar

import (
	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/session"
)

// conn is what a connection is to either driver: a conversation and what of it has
// come in or waits to be sent. It belongs to its driver.
type conn struct {
	server  *server
	env     *session.Env
	wake    func()        // makes the driver look; safe for concurrent use
	peer    func() string // names who is at the other end
	talk    conversation  // nil before the first byte
	in, out buffer
	frame   frame
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

// What a client is told whose connection ends.
const (
	crowdedText = "the memory for buffers is exhausted by all clients together; try again, or raise --memory"
	lateText    = "Protocol error: the command was not completed in time"
)

func newConn(s *server, env *session.Env, peer func() string) conn {
	return conn{server: s, env: env, peer: peer, in: buffer{shared: &s.buffers}, out: buffer{shared: &s.buffers}}
}

// begin starts the conversation that in, which is not empty, asks for.
func (c *conn) begin(in []byte) {
	if c.talk == nil {
		c.talk = converse(in[0], c.env, c.wake, c.peer)
	}
}

// makeRoom makes room for the next read and reports whether there was memory. A
// client's announcement is believed only as far as it has sent as much before.
func (c *conn) makeRoom() bool {
	want := 0
	if c.talk != nil {
		want = min(c.talk.WantMore(), max(len(c.in.bytes), keptBuffer/2))
	}
	return c.in.grow(max(want, firstBuffer/2))
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

// ended says why a conversation is over that said so itself.
func (c *conn) ended() ending {
	if c.talk.Fault() {
		return endInput
	}
	return endClient
}

// close ends the conversation and gives the memory back.
func (c *conn) close() {
	if c.talk != nil {
		c.talk.Close()
	}
	c.in.release()
	c.out.release()
}

// refusal is what tells the client why its connection ends.
func (c *conn) refusal(words string) []byte {
	if c.talk == nil {
		return resp.AppendError(nil, "ERR "+words)
	}
	return c.talk.Refuse(nil, words)
}

// drained reports whether the connection may end because the sidecar does.
func (c *conn) drained() bool {
	return c.server.draining.Load() && (c.talk == nil || c.talk.Pending() == 0)
}

// frame is the command that a client has begun and not completed. The time for it
// counts from its own first byte.
type frame struct {
	begun  bool
	number uint64 // commands received before it
}

// follow takes note of where the input stands and reports whether that is another
// command, or none any more.
func (f *frame) follow(c *conn, unread int) (changed bool) {
	begun, number := c.talk.Begun() || unread > 0, c.talk.Received()
	if begun == f.begun && (!begun || number == f.number) {
		return false
	}
	f.begun, f.number = begun, number
	return true
}
