package nearside

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearside-cache/nearside/api/near"
)

const (
	// maxPending is how many requests of a connection may be unanswered, and maxQueued
	// how many bytes may wait to be written. Beyond, requests fail at once.
	maxPending = 8192
	maxQueued  = 8 << 20
	// probes is how often a connection is looked after in the time of Options.Timeout.
	probes = 4
)

var (
	errFull   = errors.New("too much is under way on the connection already")
	errSilent = errors.New("nothing came in time")
	errCut    = errors.New("the sidecar closed the connection")
)

// call is a request that is under way. Until done has a value it belongs to the
// connection.
type call struct {
	kind   near.Kind
	answer near.Message
	keys   []string // for L0: what the answer tells of, in its order
	err    error
	done   chan struct{}
}

// conn is a connection and its two goroutines: one reads, one writes what callers have
// queued since its last write, in one go. Requests of many callers are under way at a
// time.
type conn struct {
	nc      net.Conn
	client  *Client
	welcome near.Welcome
	greeted time.Duration // the client's clock before HELLO
	// sameClock: moments of the sidecar are moments of the client's clock.
	sameClock bool

	mu      sync.Mutex
	queue   []byte // frames to be written
	pending map[uint32]*call
	id      uint32
	err     error // why it ended

	wake  chan struct{} // the queue has something
	ended chan struct{}
	heard atomic.Uint64 // reads that brought something
}

func newConn(c *Client, nc net.Conn) *conn {
	return &conn{nc: nc, client: c, pending: map[uint32]*call{}, wake: make(chan struct{}, 1), ended: make(chan struct{})}
}

// serve reads and writes until the connection ends, and returns why.
func (c *conn) serve() error {
	var writer sync.WaitGroup
	writer.Go(c.write)
	c.end(c.read())
	writer.Wait()
	return c.err
}

// end ends the connection: L0 first, so that nothing of it is served once a caller
// knows; then what is under way fails. It may be called again, from anywhere.
func (c *conn) end(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	calls := c.pending
	c.pending, c.queue = nil, nil
	c.mu.Unlock()
	c.client.l0.end(c)
	close(c.ended)
	_ = c.nc.Close() // it is over; there is nobody to tell
	for _, p := range calls {
		p.err = err
		p.done <- struct{}{}
	}
}

// send queues a request. It fails when the connection has ended, or too much is under
// way; then the request was not sent.
func (c *conn) send(p *call, m near.Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if len(c.pending) >= maxPending || len(c.queue) >= maxQueued {
		return errFull
	}
	id := c.freeID()
	c.queue = near.Append(c.queue, p.kind, id, m)
	c.pending[id] = p
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

// freeID returns an id that is not in use.
func (c *conn) freeID() uint32 {
	for {
		c.id++
		if _, used := c.pending[c.id]; c.id != 0 && !used {
			return c.id
		}
	}
}

// do sends a request and waits for its answer. sent reports whether it may have reached
// the sidecar. An answer that nobody waits for any more is still for the L0.
func (c *conn) do(ctx context.Context, p *call, m near.Message, timeout time.Duration) (sent bool, err error) {
	p.done = make(chan struct{}, 1)
	if err := c.send(p, m); err != nil {
		return false, unavailable(p.kind.String(), err)
	}
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-p.done:
		var answer *near.Error
		if p.err == nil || errors.As(p.err, &answer) {
			return true, p.err
		}
		return true, unavailable(p.kind.String(), p.err)
	case <-ctx.Done():
		return true, fmt.Errorf("nearside: %s: %w", p.kind, context.Cause(ctx))
	case <-t.C:
		return true, unavailable(p.kind.String(), fmt.Errorf("no answer within %s", timeout))
	}
}

// write writes what is queued, and looks after the other side: with requests under way
// and nothing heard, it asks (PING, which is answered at once), and gives up when
// nothing comes for as long again.
func (c *conn) write() {
	interval := c.client.options.Timeout / probes
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var heard uint64
	silent := 0
	var spare []byte
	for {
		select {
		case <-c.ended:
			return
		case <-c.wake:
			c.mu.Lock()
			frames := c.queue
			c.queue = spare[:0]
			c.mu.Unlock()
			if err := c.nc.SetWriteDeadline(time.Now().Add(c.client.options.Timeout)); err != nil {
				c.end(err)
			}
			if _, err := c.nc.Write(frames); err != nil {
				c.end(err)
			}
			if spare = frames; cap(spare) > readBuffer {
				spare = nil
			}
		case <-tick.C:
			now := c.heard.Load()
			if now != heard || !c.busy() {
				heard, silent = now, 0
				continue
			}
			if silent++; silent > probes {
				c.end(errSilent)
			} else if silent == 1 {
				c.probe()
			}
		}
	}
}

func (c *conn) busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pending) > 0
}

// probe sends a PING that nobody waits for.
func (c *conn) probe() {
	_ = c.send(&call{kind: near.KindPing, answer: &near.Pong{}, done: make(chan struct{}, 1)}, &near.None{}) // if there is no room, others are asking
}

// read takes frames in the order in which they come, until there are no more.
func (c *conn) read() error {
	f := newFrames(c.nc)
	f.limit = smallFrame
	for {
		h, body, err := f.next()
		if err != nil {
			return fmt.Errorf("%w: %w", errCut, err)
		}
		c.heard.Add(1)
		if err := c.take(h, body, f); err != nil {
			return err
		}
	}
}

// smallFrame bounds what a sidecar may send before it has said how long its frames are,
// and apart from values.
const smallFrame = 16 << 20

// take processes a frame. What it means for L0 happens here, before the next one is
// looked at and before a caller learns of it (L2).
func (c *conn) take(h near.Header, body []byte, f *frames) error {
	switch {
	case h.Kind.IsPush():
		return c.push(h.Kind, body)
	case !h.Kind.IsAnswer():
		return fmt.Errorf("%w: a %s from a sidecar", near.ErrFraming, h.Kind)
	}
	c.mu.Lock()
	p := c.pending[h.ID]
	delete(c.pending, h.ID)
	c.mu.Unlock()
	if p == nil {
		return fmt.Errorf("%w: an answer to request %d, which was not sent", near.ErrFraming, h.ID)
	}
	p.err = c.parse(h, body, p)
	if w, ok := p.answer.(*near.Welcome); ok && p.err == nil {
		f.limit = max(smallFrame, int(min(w.Limits.Value, near.MaxFrame/2))*2)
	}
	broken := errors.Is(p.err, near.ErrMalformed) || errors.Is(p.err, near.ErrFraming)
	if !broken {
		c.client.l0.answered(c, p)
		if p.kind == near.KindSubscribe && p.err == nil {
			c.client.watchers.subscribed(c)
		}
	}
	err := p.err
	p.done <- struct{}{}
	if broken {
		return err
	}
	return nil
}

// parse reads an answer into its call. The body is copied: what is kept are views of
// the copy.
func (c *conn) parse(h near.Header, body []byte, p *call) error {
	if h.Kind == near.KindError {
		var e near.Error
		if err := near.Parse(body, &e); err != nil {
			return err
		}
		return &e
	}
	if h.Kind != p.kind.Answer() {
		return fmt.Errorf("%w: a %s to a %s", near.ErrFraming, h.Kind, p.kind)
	}
	return near.Parse(append([]byte(nil), body...), p.answer)
}

// push processes a push. One that cannot be read ends the connection: what it would have
// made stale is not known.
func (c *conn) push(kind near.Kind, body []byte) error {
	switch kind {
	case near.KindInvalidated:
		var m near.Invalidated
		if err := near.Parse(body, &m); err != nil {
			return err
		}
		c.client.l0.invalidated(c, &m)
	case near.KindFresh:
		var m near.Fresh
		if err := near.Parse(body, &m); err != nil {
			return err
		}
		return c.client.l0.fresh(c, &m)
	case near.KindEvent:
		var m near.Event
		if err := near.Parse(append([]byte(nil), body...), &m); err != nil {
			return err
		}
		c.client.watchers.event(&m)
	case near.KindGoodbye:
		var m near.Goodbye
		if err := near.Parse(body, &m); err != nil {
			return err
		}
		return fmt.Errorf("%w: %w", errCut, &m.Error)
	}
	return nil
}
