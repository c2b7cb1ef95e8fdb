package sidecar

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nearside-cache/nearside/sidecar/session"
)

// line is a connection of a loop. Everything but start, wake and kill is for the
// loop's goroutine.
//
// INVARIANT: an open line that is not listed is watched, and waits for an event, for
// the operation that it is parked for, or for a deadline.
type line struct {
	conn
	loop  *loop
	fd    int
	place int32 // in loop.lines; noPlace before it is watched

	listed   bool // to be served
	readable bool // there may be something to read
	hungUp   bool // the end of the input is to be read
	writable bool // the socket may take more
	whole    bool // what is in conn.in must be served before more is read
	parked   bool // waits for an operation
	blocked  bool // the socket takes no more: answers wait in conn.out
	overdue  bool // the command that has begun is late
	closed   bool

	input []byte // to be served in this turn: part of loop.input, or conn.in
	reply []byte // to be sent in this turn: part of loop.output, or conn.out
	sent  int    // bytes of conn.out that are sent, while blocked
	end   ending // set when it is over but for what must still be sent

	frameBy, writeBy deadline

	posted   atomic.Bool // in the mail
	woken    atomic.Bool // something is to be pushed, or the server drains
	finished atomic.Bool // the operation has been run
	killed   atomic.Bool
}

const noPlace = -1

func newLine(l *loop, fd int, peer func() string) *line {
	c := &line{conn: newConn(l.server, &l.env, peer), loop: l, fd: fd, place: noPlace}
	c.conn.wake = c.wake
	c.frameBy.line, c.writeBy.line = c, c
	return c
}

func (c *line) start() { c.loop.mail.post(c) }

func (c *line) wake() {
	c.woken.Store(true)
	c.loop.mail.post(c)
}

func (c *line) kill() {
	c.killed.Store(true)
	c.loop.mail.post(c)
}

// notified looks at what the mail may be about.
func (c *line) notified() {
	if c.closed || c.place == noPlace && !c.watch() {
		return
	}
	if c.killed.Load() {
		c.abandon(endDrain)
	}
	if c.server.draining.Load() {
		c.readable = true // what has been asked before is answered
	}
	c.loop.enlist(c)
}

// watch gives the line its place and reports whether it is watched now.
func (c *line) watch() bool {
	l := c.loop
	if n := len(l.free); n > 0 {
		c.place, l.free = l.free[n-1], l.free[:n-1]
	} else {
		c.place = int32(len(l.lines))
		l.lines = append(l.lines, nil)
	}
	l.lines[c.place] = c
	c.control(unix.EPOLL_CTL_ADD, watched)
	return !c.closed
}

// watched is what a line is watched for when it is not blocked. That it may be
// written to is an event for every answer which the client reads.
const watched = unix.EPOLLIN | unix.EPOLLRDHUP | edges

// control changes what the line is watched for; it ends when that fails.
func (c *line) control(op int, events uint32) {
	event := unix.EpollEvent{Events: events, Fd: c.place}
	if err := unix.EpollCtl(c.loop.epoll, op, c.fd, &event); err != nil {
		c.server.log.Error("cannot watch a connection", "error", err)
		c.abandon(endError)
	}
}

// ready takes note of events.
func (c *line) ready(events uint32) {
	const broken = unix.EPOLLHUP | unix.EPOLLERR
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|broken) != 0 {
		c.readable = true
	}
	if events&(unix.EPOLLRDHUP|broken) != 0 {
		c.hungUp = true
	}
	if events&(unix.EPOLLOUT|broken) != 0 {
		c.writable = true
	}
	c.loop.enlist(c)
}

// receive finds the line's input for this turn.
func (c *line) receive() {
	c.input = nil
	switch {
	case c.closed || c.parked || c.blocked || c.end != "":
	case c.whole:
		c.input = c.in.bytes
	case !c.readable:
	case len(c.in.bytes) == 0:
		l := c.loop
		n := c.readInto(l.input[l.read : l.read+turnInput])
		c.input = l.input[l.read : l.read+n]
		l.read += n
	case !c.makeRoom():
		c.crowdedOut()
	default:
		b := &c.in.bytes
		n := c.readInto((*b)[len(*b):cap(*b)])
		*b = (*b)[:len(*b)+n]
		if n > 0 {
			c.input = *b
		}
	}
}

// readInto reads once and returns how many bytes came. A read that does not fill
// space has emptied the socket, unless only its end is left.
func (c *line) readInto(space []byte) int {
	n, err := readSocket(c.fd, space)
	c.readable = c.hungUp || n == len(space)
	switch {
	case n > 0:
		return n
	case err == 0:
		c.end = endClient
	case err == unix.EAGAIN:
		c.readable = false
	case err == unix.EINTR:
		c.readable = true
	default:
		c.end = endError
	}
	return 0
}

// ahead appends to keys those that serve will read first.
func (c *line) ahead(keys []string) []string {
	if c.talk == nil || c.parked || len(c.input) == 0 {
		return keys
	}
	return c.talk.Ahead(c.input, keys)
}

// serve lets the conversation answer what has come in, and what it has waited for.
func (c *line) serve() {
	if c.closed || c.blocked || c.parked && !c.finished.Swap(false) {
		return
	}
	space := c.space()
	out := space
	if c.parked {
		c.parked, c.whole = false, true
		c.input = c.in.bytes
		if out = c.talk.Finish(out); c.end != "" { // it was abandoned
			return
		}
	}
	if c.woken.Swap(false) && c.talk != nil {
		out = c.talk.Pushes(out)
	}
	if c.end == "" && (c.whole || len(c.input) > 0) {
		out = c.converse(out)
	}
	c.collect(space, out)
}

// converse serves the input once.
func (c *line) converse(out []byte) []byte {
	if c.talk == nil {
		c.begin(c.input)
	}
	n, out, next := c.talk.Serve(c.input, out)
	c.whole = next == session.Flush
	if !c.keep(n) {
		c.crowdedOut()
		return nil
	}
	switch next {
	case session.Input:
		c.expectRest()
	case session.Run:
		c.park()
	case session.End:
		c.end = c.ended()
	}
	return out
}

// keep copies what is left of the input after n bytes, if it is not there already,
// and reports whether there was memory.
func (c *line) keep(n int) bool {
	if len(c.in.bytes) > 0 {
		c.consume(n)
		return true
	}
	rest := c.input[n:]
	if len(rest) == 0 {
		return true
	}
	if !c.in.grow(len(rest)) {
		return false
	}
	c.in.bytes = append(c.in.bytes, rest...)
	return true
}

// expectRest gives the rest of a command that has begun its time.
func (c *line) expectRest() {
	if !c.frame.follow(&c.conn, len(c.in.bytes)) {
		return
	}
	c.overdue = false
	c.frameBy.end()
	if c.frame.begun {
		c.loop.frames.begin(&c.frameBy, c.loop.elapsed())
	}
}

// late ends a line whose client did not complete its command in time. While it waits
// for something else, that is not yet known.
func (c *line) late() {
	if c.overdue = c.parked || c.blocked || c.listed; c.overdue {
		return
	}
	c.end, c.reply = endFrame, c.refusal(lateText)
	c.send()
	c.settle()
}

// crowdedOut ends a line for whose buffers there is no memory. Answers not yet sent
// are dropped, whose place the error takes. What it held is free at once: another, that
// is served in the same turn, may go on with it.
func (c *line) crowdedOut() {
	c.in.release()
	c.out.release()
	c.end = endBuffers
}

// space is where answers are appended: the loop's output, or for a line that has had
// large ones, a buffer of its own.
func (c *line) space() []byte {
	if cap(c.out.bytes) > 0 {
		return c.out.bytes[:0]
	}
	l := c.loop
	return l.output[l.written:l.written]
}

// collect takes note of answers that were appended to space.
func (c *line) collect(space, out []byte) {
	l := c.loop
	switch {
	case c.end == endBuffers:
	case len(out) == 0:
		return
	case cap(c.out.bytes) == 0 && unsafe.SliceData(out) == unsafe.SliceData(space):
		l.written += len(out)
		c.reply = out
		return
	case c.out.adopt(out):
		c.reply = out
		return
	default:
		c.crowdedOut()
	}
	c.reply = c.refusal(crowdedText)
}

// park runs what the conversation waits for.
func (c *line) park() {
	c.parked, c.loop.spawned = true, true
	wait := c.talk.Waiting()
	c.loop.operations.Go(func() {
		wait.Run(c.loop.ctx)
		c.finished.Store(true)
		c.loop.mail.post(c)
	})
}

// send writes what waits to be sent, as far as the socket takes it.
func (c *line) send() {
	reply := c.reply
	if c.reply = nil; c.blocked && c.writable {
		reply = c.out.bytes[c.sent:]
	}
	if c.closed || len(reply) == 0 {
		return
	}
	c.writable = false
	switch n, err := writeSocket(c.fd, reply); {
	case n == len(reply):
		c.allSent()
	case err == 0 || err == unix.EAGAIN || err == unix.EINTR:
		c.block(reply, n)
	default:
		c.abandon(endError)
	}
}

// block makes the line wait until the socket takes more than the first n bytes of
// reply.
func (c *line) block(reply []byte, n int) {
	switch {
	case c.blocked:
		c.sent += n
		return
	case len(c.out.bytes) > 0:
		c.sent = n
	case !c.out.grow(len(reply) - n):
		c.abandon(endBuffers)
		return
	default:
		c.out.bytes, c.sent = append(c.out.bytes, reply[n:]...), 0
	}
	c.blocked = true
	c.loop.writes.begin(&c.writeBy, c.loop.elapsed())
	c.control(unix.EPOLL_CTL_MOD, watched|unix.EPOLLOUT)
}

func (c *line) allSent() {
	if n := len(c.out.bytes); n > 0 {
		if c.out.usedUp(n); cap(c.out.bytes) <= keptBuffer {
			c.out.release() // the loop's output does as well
		}
	}
	if c.blocked {
		c.blocked = false
		c.writeBy.end()
		c.control(unix.EPOLL_CTL_MOD, watched)
	}
}

// settle decides what the line does next, once everything was sent that can be.
func (c *line) settle() {
	switch {
	case c.closed || c.blocked:
	case c.parked:
		if c.finished.Load() {
			c.loop.enlist(c)
		}
	case c.end != "":
		c.finish()
	case c.whole || c.readable || c.woken.Load():
		c.loop.enlist(c)
	case c.overdue:
		c.late()
	case c.drained():
		c.abandon(endDrain)
	}
}

// abandon ends the line whatever waits to be sent.
func (c *line) abandon(end ending) {
	c.end, c.blocked, c.reply = end, false, nil
	c.writeBy.end()
	if !c.parked { // the operation must have ended before its conversation does
		c.finish()
	}
}

// finish closes the line.
func (c *line) finish() {
	if c.closed {
		return
	}
	c.closed = true
	c.frameBy.end()
	l := c.loop
	l.lines[c.place] = nil
	l.freed = append(l.freed, c.place)
	if err := unix.Close(c.fd); err != nil {
		c.server.log.Error("closing a connection", "error", err)
	}
	if c.talk != nil && c.talk.Pending() > 0 {
		// Its requests must end first, for which no other connection waits (I14).
		l.operations.Go(c.leave)
		return
	}
	c.leave()
}

func (c *line) leave() {
	c.close()
	c.server.leave(c, c.end)
}
