package nearside

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearside-cache/nearside/api/near"
)

// How long to wait before the next attempt to connect: from minBackoff doubling to
// maxBackoff, of which a random part is left out, so that the clients of a sidecar that
// comes back do not come all at once.
const (
	minBackoff = 10 * time.Millisecond
	maxBackoff = time.Second
)

// link is one of the client's places for a connection. From its first use on a goroutine
// keeps it connected.
type link struct {
	client  *Client
	begun   bool                 // guarded by the client's lock
	current atomic.Pointer[conn] // nil: none is open

	mu      sync.Mutex
	failed  error         // why the last attempt failed; nil while one is under way that may succeed
	changed chan struct{} // closed when current or failed change
}

func newLink(c *Client) *link { return &link{client: c, changed: make(chan struct{})} }

// get returns the open connection. Without one it waits while the first attempt is under
// way; a patient caller waits for the ones after it, too. It fails with ErrUnavailable,
// ErrClosed, or the context's error.
func (l *link) get(ctx context.Context, patient bool, timeout time.Duration) (*conn, error) {
	if c := l.current.Load(); c != nil {
		return c, nil
	}
	if !l.client.begin(l) {
		return nil, ErrClosed
	}
	t := time.NewTimer(timeout)
	defer t.Stop()
	for {
		l.mu.Lock()
		failed, changed := l.failed, l.changed
		l.mu.Unlock()
		if c := l.current.Load(); c != nil {
			return c, nil
		}
		if failed != nil && !patient {
			return nil, failed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("nearside: connecting: %w", context.Cause(ctx))
		case <-l.client.ctx.Done():
			return nil, ErrClosed
		case <-t.C:
			if failed == nil {
				failed = unavailable("connecting", fmt.Errorf("no connection within %s", timeout))
			}
			return nil, failed
		}
	}
}

// set says what became of the link and wakes who waits for it.
func (l *link) set(c *conn, failed error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current.Store(c)
	l.failed = failed
	close(l.changed)
	l.changed = make(chan struct{})
}

// run keeps the link connected until the client is closed.
func (l *link) run(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; {
		began := time.Now()
		opened, err := l.once(ctx)
		if opened {
			l.client.counters.disconnects.Add(1)
		} else {
			l.client.counters.failedDials.Add(1)
		}
		if opened && time.Since(began) >= maxBackoff {
			failures = 0
			l.set(nil, nil) // who comes now waits: the next attempt may succeed at once
			continue
		}
		failures++
		l.set(nil, err)
		d := min(maxBackoff, minBackoff<<min(failures-1, 10))
		d = d/2 + rand.N(d/2)
		t := time.NewTimer(d)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
}

// once connects, and serves the connection until it ends. opened reports whether the
// sidecar had welcomed the client.
func (l *link) once(ctx context.Context) (opened bool, err error) {
	dialing, cancel := context.WithTimeout(ctx, l.client.options.Timeout)
	defer cancel()
	nc, err := l.client.options.Dial(dialing)
	if err != nil {
		return false, unavailable("connecting", err)
	}
	c := newConn(l.client, nc)
	stop := context.AfterFunc(ctx, func() { c.end(ErrClosed) })
	defer stop()
	var serving sync.WaitGroup
	serving.Go(func() { err = c.serve() })
	greeting := c.greet(dialing)
	if greeting == nil {
		l.set(c, nil)
		l.client.watchers.connected(l, c)
	} else {
		c.end(greeting)
	}
	serving.Wait()
	if greeting != nil {
		return false, greeting
	}
	return true, unavailable("the connection ended", err)
}

// greet agrees with the sidecar on a version, and begins tracking for the L0. A sidecar
// that does not track is used without.
func (c *conn) greet(ctx context.Context) error {
	o := &c.client.options
	hello := near.Hello{Min: near.MinVersion, Max: near.Version, Name: o.Name, Password: o.Password, Library: "nearside-go", LibraryVersion: libraryVersion}
	c.greeted = c.client.clock.precise()
	if _, err := c.do(ctx, &call{kind: near.KindHello, answer: &c.welcome}, &hello, o.Timeout); err != nil {
		return unavailable("HELLO", err)
	}
	if v := c.welcome.Version; v < near.MinVersion || v > near.Version {
		return unavailable("HELLO", fmt.Errorf("the sidecar chose version %d of the protocol, this is %d to %d", v, near.MinVersion, near.Version))
	}
	// L8: the same clock, of the same boot, and in the same time namespace.
	w := &c.welcome
	c.sameClock = c.client.clock.shared && w.BootID == bootID() && c.greeted <= w.Clock && w.Clock <= c.client.clock.precise()
	if c.client.l0 == nil || !c.sameClock {
		return nil
	}
	_, err := c.do(ctx, &call{kind: near.KindTrack, answer: &near.Fresh{}}, &near.Track{On: true}, o.Timeout)
	var answer *near.Error
	if errors.As(err, &answer) {
		return nil // no room for another one that tracks, or none that can
	}
	return err
}
