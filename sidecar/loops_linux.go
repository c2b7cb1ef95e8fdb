package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// drivers are those that work on this system, the default first.
var drivers = []string{"loop", "goroutine"}

func newDriver(ctx context.Context, s *server) (driver, error) {
	if s.cfg.Driver == "goroutine" {
		return goroutines{s, ctx}, nil
	}
	return newLoops(ctx, s, loopCount())
}

// loopCount is how many loops share the connections. One is as fast as two on two
// processors, with a shorter tail, because clients need the other; see
// docs/benchmarks.md.
func loopCount() int { return max(1, runtime.GOMAXPROCS(0)/2) }

// loops is the driver with a few event loops, among which connections are spread.
type loops struct {
	all     []*loop
	running sync.WaitGroup

	mu   sync.Mutex
	next int // the loop for the next connection
}

func newLoops(ctx context.Context, s *server, n int) (*loops, error) {
	ls := &loops{}
	for range n {
		l, err := newLoop(ctx, s)
		if err != nil {
			return nil, errors.Join(err, ls.close())
		}
		ls.all = append(ls.all, l)
	}
	for _, l := range ls.all {
		ls.running.Go(l.run)
	}
	return ls, nil
}

func (ls *loops) take(nc net.Conn) (connection, error) {
	defer nc.Close()
	name := peerWords(nc)
	fd, err := detach(nc)
	if err != nil {
		return nil, err
	}
	ls.mu.Lock()
	l := ls.all[ls.next]
	ls.next = (ls.next + 1) % len(ls.all)
	ls.mu.Unlock()
	return newLine(l, fd, func() string { return name }), nil
}

// detach returns a descriptor of the connection that the runtime does not know of.
// It does not block, and outlives nc.
func detach(nc net.Conn) (fd int, err error) {
	raw, err := nc.(syscall.Conn).SyscallConn()
	if err == nil {
		var failed error
		err = raw.Control(func(of uintptr) { fd, failed = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) })
		err = errors.Join(err, failed)
	}
	if err != nil {
		return 0, fmt.Errorf("the connection's descriptor cannot be had: %w", err)
	}
	return fd, nil
}

func (ls *loops) stop() {
	for _, l := range ls.all {
		l.mail.stop()
	}
	ls.running.Wait()
	for _, l := range ls.all {
		l.operations.Wait() // whose last word is to the mail
	}
	if err := ls.close(); err != nil {
		ls.all[0].server.log.Error("closing the event loops", "error", err)
	}
}

// close gives the descriptors back.
func (ls *loops) close() error {
	var errs []error
	for _, l := range ls.all {
		errs = append(errs, l.close())
	}
	return errors.Join(errs...)
}
