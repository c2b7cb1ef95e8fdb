package sidecar

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/clock"
	"github.com/nearside-cache/nearside/sidecar/session"
)

// What a loop does in one turn.
const (
	turnEvents = 256      // that one wait returns at most
	turnInput  = 16 << 10 // bytes read of one connection that has nothing half read
	inputSize  = 256 << 10
	outputSize = 512 << 10
	outputRoom = 128 << 10 // for one connection's answers in a turn, if they are to be collected
	sendAtOnce = 16 << 10  // bytes of answers that are not collected: they would only push others out of the processor's cache
)

// loop serves many connections with one goroutine, in turns: it waits until some
// have input, reads from each, reads the clock once, answers each, and then writes
// to each. A turn gives every connection a bounded share (turnInput of input, one
// Serve), so that a deep pipeline is served in many turns, with all others in
// between.
//
// Descriptors are watched edge by edge: a connection remembers whether there may be
// something to read. Everything but mail belongs to the loop's goroutine.
type loop struct {
	server *server
	env    session.Env // of its conversations: their time is that of the turn
	ctx    context.Context
	mail   *mail

	epoll  int
	events []unix.EpollEvent
	lines  []*line // by what their events carry
	free   []int32 // places in lines
	freed  []int32 // in this turn: events not yet looked at may still name them

	todo, doing []*line // to be served in the next turn, and in this one
	letters     []*line

	// Input and answers of one turn; what a connection must keep, it copies.
	input, output []byte
	read, written int // used so far
	keys          [cache.PrefetchKeys]string

	clock      clock.Clock   // the cache's
	now        time.Duration // by it, of this turn
	started    time.Time
	frames     deadlines      // for commands that have begun
	writes     deadlines      // for answers to be read
	operations sync.WaitGroup // and ends of connections, that the loop does not wait for

	spawned bool // a goroutine was started that the processor must not be kept from
}

func newLoop(ctx context.Context, s *server) (_ *loop, err error) {
	l := &loop{
		server: s, env: *s.env, ctx: ctx, epoll: -1, started: time.Now(),
		events: make([]unix.EpollEvent, turnEvents),
		input:  make([]byte, inputSize), output: make([]byte, outputSize),
		clock:  s.env.Cache.Now,
		frames: deadlines{each: s.cfg.FrameTimeout}, writes: deadlines{each: s.cfg.WriteTimeout},
	}
	l.env.Now = func() time.Duration { return l.now }
	if l.mail, err = newMail(); err != nil {
		return nil, fmt.Errorf("event loop: %w", err)
	}
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
		event := unix.EpollEvent{Events: unix.EPOLLIN | edges, Fd: bellPlace}
		err = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, l.mail.bell, &event)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("event loop: %w", err), l.close())
	}
	return l, nil
}

const (
	edges     = 1 << 31 // EPOLLET, which x/sys has as a negative number
	bellPlace = -1      // what events of the mail carry
)

func (l *loop) close() error {
	err := unix.Close(l.mail.bell)
	if l.epoll >= 0 {
		err = errors.Join(err, unix.Close(l.epoll))
	}
	return err
}

// run serves until it is stopped, when no connection is left.
func (l *loop) run() {
	for !l.mail.ending.Load() {
		l.step()
	}
}

// step waits, and serves everyone who has something to do once.
func (l *loop) step() {
	l.wait()
	l.letters = l.mail.take(l.letters[:0])
	for _, c := range l.letters {
		c.notified()
	}
	clear(l.letters)
	l.turn()
	l.expire()
	l.free = append(l.free, l.freed...)
	l.freed = l.freed[:0]
}

// wait returns when a connection is ready, mail has come, a deadline is over, or
// there is something left to do.
func (l *loop) wait() {
	patience := l.patience()
	if l.spawned && patience != 0 {
		l.spawned = false
		runtime.Gosched()
	}
	n, err := unix.EpollWait(l.epoll, l.events, patience)
	if err != nil && !errors.Is(err, unix.EINTR) {
		panic("sidecar: epoll_wait: " + err.Error()) // the descriptor is ours and open
	}
	for _, e := range l.events[:max(0, n)] {
		if e.Fd == bellPlace {
			continue
		}
		if c := l.lines[e.Fd]; c != nil {
			c.ready(e.Events)
		}
	}
}

// patience is how long a wait may be, in milliseconds; -1 is for ever.
func (l *loop) patience() int {
	if len(l.todo) > 0 {
		return 0
	}
	soonest, now := forever, l.elapsed()
	for _, ds := range []*deadlines{&l.frames, &l.writes} {
		soonest = min(soonest, ds.left(now))
	}
	if soonest == forever {
		return -1
	}
	return int((soonest + time.Millisecond - 1) / time.Millisecond)
}

// elapsed is the time that deadlines go by: that of the machine, whatever the
// cache's clock is.
func (l *loop) elapsed() time.Duration { return time.Since(l.started) }

// enlist has c served in the next turn.
func (l *loop) enlist(c *line) {
	if !c.listed {
		c.listed = true
		l.todo = append(l.todo, c)
	}
}

// turn serves all who are enlisted.
func (l *loop) turn() {
	l.doing, l.todo = l.todo, l.doing[:0]
	for rest := l.doing; len(rest) > 0; {
		n := l.receive(rest)
		// All bytes that are answered by this time were read before it (I5).
		l.now = l.clock()
		l.answer(rest[:n])
		rest = rest[n:]
	}
	clear(l.doing)
}

// receive reads from as many of lines as there is room for, and returns how many.
func (l *loop) receive(lines []*line) int {
	l.read = 0
	for i, c := range lines {
		if len(l.input)-l.read < turnInput {
			return i
		}
		c.listed = false
		c.receive()
	}
	return len(lines)
}

// answer serves lines and then writes to them: whoever is written to wakes up and
// wants the processor.
func (l *loop) answer(lines []*line) {
	l.written = 0
	sent, ahead := 0, 0
	for i, c := range lines {
		if i == ahead {
			ahead += l.lookAhead(lines[i:])
		}
		if len(l.output)-l.written < outputRoom {
			l.send(lines[sent:i])
			sent, l.written = i, 0
		}
		before := l.written
		if c.serve(); len(c.reply) >= sendAtOnce {
			c.send()
			l.written = before
		}
	}
	l.send(lines[sent:])
}

// lookAhead prefetches what the first of lines are about to read, and returns how many
// these are: one waits for memory as long as all of them.
func (l *loop) lookAhead(lines []*line) (n int) {
	keys := l.keys[:0]
	for ; n < len(lines) && len(keys) < cap(keys); n++ {
		keys = lines[n].ahead(keys)
	}
	if len(keys) > 0 {
		l.env.Cache.Prefetch(keys)
		clear(keys) // what they are views of may be given back
	}
	return n
}

func (l *loop) send(lines []*line) {
	for _, c := range lines {
		c.send()
		c.settle()
	}
}

// expire ends connections whose time is over.
func (l *loop) expire() {
	if l.frames.first == nil && l.writes.first == nil {
		return
	}
	now := l.elapsed()
	for c := l.writes.due(now); c != nil; c = l.writes.due(now) {
		c.abandon(endSlow)
	}
	for c := l.frames.due(now); c != nil; c = l.frames.due(now) {
		c.late()
	}
}
