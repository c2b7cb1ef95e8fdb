//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// conn is one connection with one batch of requests on its way.
type conn struct {
	fd   int
	got  int // bytes of the batch's answer
	sent time.Duration
}

// loop asks on all connections from one thread.
type loop struct {
	p      *protocol
	load   load
	epoll  int
	conns  []conn
	start  time.Time
	answer int // bytes of a whole batch's answer

	out, in []byte
	hist    *hdrhistogram.Histogram // nanoseconds
}

const highest = int64(10 * time.Second) // latency that is told apart

// measure asks for the warm-up and the duration and returns what it saw in the
// latter.
func measure(o options, p *protocol) (r result, err error) {
	runtime.LockOSThread()
	l := &loop{
		p: p, load: o.load, start: time.Now(), answer: o.Depth * len(p.hit),
		in: make([]byte, 256<<10), hist: hdrhistogram.New(100, highest, 3),
	}
	defer func() { err = errors.Join(err, l.close()) }()
	if err := l.connect(o.socket); err != nil {
		return r, err
	}
	for i := range l.conns {
		if err := l.send(&l.conns[i]); err != nil {
			return r, err
		}
	}
	if err := l.run(o.warmup); err != nil {
		return r, err
	}
	l.hist.Reset()
	begin := l.now()
	cpu, err := cpuTime(o.pid)
	if err != nil {
		return r, err
	}
	if err := l.run(begin + o.duration); err != nil {
		return r, err
	}
	took := l.now() - begin
	after, err := cpuTime(o.pid)
	if err != nil {
		return r, err
	}
	r.CPU = float64((after - cpu).Microseconds()) / float64(l.hist.TotalCount())
	micros := func(ns int64) float64 { return float64(ns) / 1e3 }
	r.OpsPerSecond = float64(l.hist.TotalCount()) / took.Seconds()
	r.P50, r.P99 = micros(l.hist.ValueAtQuantile(50)), micros(l.hist.ValueAtQuantile(99))
	r.Max = micros(l.hist.Max())
	return r, nil
}

func (l *loop) now() time.Duration { return time.Since(l.start) }

func (l *loop) connect(socket string) (err error) {
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	for i := range l.load.Conns {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("socket: %w", err)
		}
		l.conns = append(l.conns, conn{fd: fd})
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
			return fmt.Errorf("connect to %s: %w", socket, err)
		}
		if err := unix.SetNonblock(fd, true); err != nil {
			return fmt.Errorf("socket: %w", err)
		}
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)} // Fd carries the index
		if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
			return fmt.Errorf("epoll: %w", err)
		}
	}
	return nil
}

func (l *loop) close() error {
	var errs []error
	for _, c := range l.conns {
		errs = append(errs, unix.Close(c.fd))
	}
	if l.epoll != 0 {
		errs = append(errs, unix.Close(l.epoll))
	}
	return errors.Join(errs...)
}

// run serves answers until the moment until, and until there was one.
func (l *loop) run(until time.Duration) error {
	events := make([]unix.EpollEvent, 256)
	heard := l.now()
	for now := heard; now < until || l.hist.TotalCount() == 0; now = l.now() {
		n, err := unix.EpollWait(l.epoll, events, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("epoll: %w", err)
		}
		if n > 0 {
			heard = now
		} else if now-heard > answerTimeout {
			return fmt.Errorf("no whole answer for %v: does the server hold all keys (-fill)?", answerTimeout)
		}
		for _, e := range events[:max(n, 0)] {
			if err := l.receive(&l.conns[e.Fd]); err != nil {
				return err
			}
		}
	}
	return nil
}

// send sends a batch of GETs of random keys.
func (l *loop) send(c *conn) error {
	l.out = l.out[:0]
	for range l.load.Depth {
		l.out = l.p.appendGet(l.out, rand.IntN(l.load.Keys))
	}
	c.got, c.sent = 0, l.now()
	n, err := unix.Write(c.fd, l.out)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if n < len(l.out) { // the socket's buffer is empty now
		return fmt.Errorf("a batch of %d bytes does not fit the socket's buffer: lower -depth", len(l.out))
	}
	return nil
}

// receive counts what has come, and sends the next batch when this one is whole.
// What a batch begins with is looked at: a miss or an error is no hit.
func (l *loop) receive(c *conn) error {
	n, err := unix.Read(c.fd, l.in)
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return fmt.Errorf("read: %w", err)
	case n == 0:
		return errors.New("the server closed a connection")
	}
	const head = 4
	if c.got == 0 && n >= head && !bytes.Equal(l.in[:head], l.p.hit[:head]) {
		return fmt.Errorf("no hit: %.60q", l.in[:n])
	}
	if c.got += n; c.got < l.answer {
		return nil
	}
	if c.got > l.answer {
		return fmt.Errorf("an answer of %d bytes, want %d", c.got, l.answer)
	}
	if err := l.hist.RecordValues(min(int64(l.now()-c.sent), highest), int64(l.load.Depth)); err != nil {
		return fmt.Errorf("latency: %w", err)
	}
	return l.send(c)
}
