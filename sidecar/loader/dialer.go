package loader

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// dialer connects to one origin. The transport dials on behind the back of a
// request that gave up: these dials have a timeout and an end of their own.
type dialer struct {
	socket  string // instead of the address, empty for none
	timeout time.Duration
	connect func(ctx context.Context, network, address string) (net.Conn, error)

	ctx  context.Context // ends with close
	stop context.CancelFunc

	mu     sync.Mutex
	closed bool
	dials  sync.WaitGroup
}

func newDialer(socket string, timeout time.Duration, connect func(context.Context, string, string) (net.Conn, error)) *dialer {
	d := &dialer{socket: socket, timeout: timeout, connect: connect}
	d.ctx, d.stop = context.WithCancel(context.Background())
	return d
}

var errDialerClosed = errors.New("the loader is closed")

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil, errDialerClosed
	}
	d.dials.Add(1)
	d.mu.Unlock()
	defer d.dials.Done()
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	defer context.AfterFunc(d.ctx, cancel)()
	if d.socket != "" {
		network, address = "unix", d.socket
	}
	return d.connect(ctx, network, address)
}

// close ends all dials and returns when none is under way.
func (d *dialer) close() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.stop()
	d.dials.Wait()
}
