package nearside

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// libraryVersion is what a sidecar is told of this package.
const libraryVersion = "1"

// Client is a connection to a sidecar, or a few. Make one for the process with Open.
type Client struct {
	options  Options
	clock    *clock
	l0       *l0 // nil: none
	links    []*link
	turn     atomic.Uint32
	counters counters
	flights  flights
	watchers watchers

	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// Open returns a client. It does not connect: the first use does, and a sidecar that is
// away then may come later. It fails when options make no sense.
func Open(options Options) (*Client, error) {
	o, err := options.complete()
	if err != nil {
		return nil, err
	}
	c := &Client{options: o, clock: newClock(o.Clock)}
	if c.l0, err = newL0(o.L0, c.clock, &c.counters); err != nil {
		return nil, fmt.Errorf("nearside: L0: %w", err)
	}
	for range o.Connections {
		c.links = append(c.links, newLink(c))
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.watchers.client = c
	return c, nil
}

// Close ends the connections, and what is under way with ErrClosed; it waits for the
// client's goroutines. Afterwards everything fails. It may be called again.
func (c *Client) Close() error {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.running.Wait()
	if first {
		c.l0.close()
	}
	return nil
}

// begin sees to it that a link is kept connected, and reports whether the client is
// open.
func (c *Client) begin(l *link) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	if !l.begun {
		l.begun = true
		c.running.Go(func() { l.run(c.ctx) })
	}
	return true
}

// connection returns a connection for a read: at once, unless the first attempt to
// connect is under way.
func (c *Client) connection(ctx context.Context) (*conn, error) {
	return c.pick(ctx, false, c.options.Timeout)
}

// pick returns the connection whose turn it is, or another one if that is not open.
func (c *Client) pick(ctx context.Context, patient bool, timeout time.Duration) (*conn, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("nearside: %w", context.Cause(ctx))
	}
	if c.ctx.Err() != nil {
		return nil, ErrClosed
	}
	turn := int(c.turn.Add(1))
	preferred := c.links[turn%len(c.links)]
	if conn := preferred.current.Load(); conn != nil {
		return conn, nil
	}
	c.begin(preferred)
	for _, l := range c.links {
		if conn := l.current.Load(); conn != nil {
			return conn, nil
		}
	}
	conn, err := preferred.get(ctx, patient, timeout)
	if err != nil {
		c.counters.unavailable.Add(1)
	}
	return conn, err
}
