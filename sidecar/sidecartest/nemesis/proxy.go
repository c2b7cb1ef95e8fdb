package nemesis

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// proxy is a way to a TCP address that can be cut. It is safe for concurrent
// use.
type proxy struct {
	listener net.Listener
	target   string
	up, down gate         // from the dialer to the target, and back
	held     atomic.Int64 // how often something was delayed or stood at a closed gate

	wait sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

func newProxy(target string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("proxy to %s: %w", target, err)
	}
	p := &proxy{listener: l, target: target, conns: make(map[net.Conn]struct{})}
	p.wait.Go(p.accept)
	return p, nil
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.wait.Go(func() { p.join(near) })
	}
}

// join connects near with the target until one of them ends.
func (p *proxy) join(near net.Conn) {
	far, err := net.DialTimeout("tcp", p.target, time.Second)
	if err != nil {
		_ = near.Close()
		return
	}
	if !p.keep(near, far) {
		return
	}
	var pumps sync.WaitGroup
	end := make(chan struct{}) // lets go of whoever waits at a gate
	stop := sync.OnceFunc(func() { close(end); p.forget(near, far) })
	pumps.Go(func() { defer stop(); p.pump(far, near, &p.up, end) })
	pumps.Go(func() { defer stop(); p.pump(near, far, &p.down, end) })
	pumps.Wait()
}

func (p *proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.closed {
			_ = c.Close()
			continue
		}
		p.conns[c] = struct{}{}
	}
	return !p.closed
}

func (p *proxy) forget(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
		delete(p.conns, c)
	}
}

const (
	chunk   = 32 << 10
	pending = 256 // chunks under way on a delayed line
)

// parcel is what arrives at due.
type parcel struct {
	due  time.Time
	data []byte
}

// pump carries from src to dst. What a closed gate holds up arrives when it
// opens, as TCP would send it again.
func (p *proxy) pump(dst, src net.Conn, g *gate, end chan struct{}) {
	line := make(chan parcel, pending)
	var writer sync.WaitGroup
	defer writer.Wait()
	defer close(line)
	writer.Go(func() {
		for x := range line {
			if g.shut() {
				p.held.Add(1)
			}
			if !wait(time.Until(x.due), end) || !g.pass(end) {
				return
			}
			if _, err := dst.Write(x.data); err != nil {
				_ = src.Close() // ends the reading side
				return
			}
		}
	})
	for {
		buf := make([]byte, chunk)
		n, err := src.Read(buf)
		if n > 0 {
			lag := g.lag()
			if lag > 0 {
				p.held.Add(1)
			}
			select {
			case line <- parcel{time.Now().Add(lag), buf[:n]}:
			case <-end:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// wait waits for d, and reports whether end did not come first.
func wait(d time.Duration, end <-chan struct{}) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-end:
		return false
	}
}

// open lets everything through at once.
func (p *proxy) open() {
	p.up.set(false, 0)
	p.down.set(false, 0)
}

// sever breaks the connections there are.
func (p *proxy) sever() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *proxy) close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	err := p.listener.Close()
	p.open()
	p.sever()
	p.wait.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// gate is one direction of a proxy. The zero value is open.
type gate struct {
	mu     sync.Mutex
	opened chan struct{} // nil when it is open; closed when it opens
	delay  time.Duration
}

func (g *gate) set(shut bool, delay time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.delay = delay
	switch {
	case shut && g.opened == nil:
		g.opened = make(chan struct{})
	case !shut && g.opened != nil:
		close(g.opened)
		g.opened = nil
	}
}

func (g *gate) shut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.opened != nil
}

func (g *gate) lag() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.delay
}

// pass waits until the gate is open, and reports whether end did not come first.
func (g *gate) pass(end <-chan struct{}) bool {
	g.mu.Lock()
	opened := g.opened
	g.mu.Unlock()
	if opened == nil {
		return true
	}
	select {
	case <-opened:
		return true
	case <-end:
		return false
	}
}
