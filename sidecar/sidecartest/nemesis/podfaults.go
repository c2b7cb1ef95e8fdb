package nemesis

import (
	"context"
	"net"
	"syscall"
	"time"
)

var podFaults = []Fault{
	{"kill-sidecar", "kill -9 of a sidecar, which comes back (I1 I2 I4; C3, C9)", pods, anywhere, func(ctx context.Context, w *worker) error {
		s := w.pod()
		s.end(syscall.SIGKILL)
		if w.chance(2) {
			w.last(ctx)
		}
		err := s.start()
		w.settled(ctx, s)
		return err
	}},
	{"stop-sidecar", "SIGSTOP of a sidecar for up to 30 s, then SIGCONT (I1 I5 I6; B5)", pods, anywhere, stopSidecar},
	{"roll-sidecars", "SIGTERM and start of one sidecar after the other (I2 I4; C9)", pods, anywhere, func(ctx context.Context, w *worker) error {
		for _, s := range w.sidecars {
			s.end(syscall.SIGTERM)
			if err := s.start(); err != nil {
				return err
			}
			w.settled(ctx, s)
		}
		return nil
	}},
	{"cold-start", "kill -9 of all sidecars at once, which come back (I1 I3 I6; C9)", pods, anywhere, func(ctx context.Context, w *worker) error {
		for _, s := range w.sidecars {
			s.end(syscall.SIGKILL)
		}
		for _, s := range w.sidecars {
			if err := s.start(); err != nil {
				return err
			}
		}
		w.settled(ctx, w.sidecars...)
		return nil
	}},
	{"partition", "a sidecar and NATS hear nothing of each other (I5 I6 I8; B4, B6)", pods, anywhere, cutting(true, true)},
	{"deaf", "a sidecar is heard by NATS and hears nothing (I5 I6; B4)", pods, anywhere, cutting(false, true)},
	{"mute", "a sidecar hears NATS and is not heard (I4 I6; B8)", pods, anywhere, cutting(true, false)},
	{"delay", "what a sidecar and NATS say to each other takes long (I5 I6; B5)", pods, anywhere, func(ctx context.Context, w *worker) error {
		s := w.pod()
		s.slow(time.Millisecond + w.span(400*time.Millisecond))
		w.last(ctx)
		s.slow(0)
		return nil
	}},
	{"sever", "a sidecar's connections to NATS break, again and again (I1 I7; B2, B3)", pods, anywhere, func(ctx context.Context, w *worker) error {
		s := w.pod()
		for range 1 + w.rng.IntN(8) {
			for _, p := range s.ways {
				p.sever()
			}
			wait(w.span(w.longest/4), ctx.Done())
		}
		return nil
	}},
	{"jump-sidecar", "the wall clock of a sidecar jumps by minutes to hours, forward or back (I2 I5 I15; B5)", pods, anywhere, func(ctx context.Context, w *worker) error {
		w.judge.clocksJump()
		if w.jumpClock(ctx, w.pod().machine) {
			w.bite("jump-sidecar", 1)
		}
		return nil
	}},
	{"no-files", "a sidecar can open no file and no connection, then it can again (I5 I14; B2, B4)", pods, anywhere, noFiles},
}

func (w *worker) pod() *sidecar { return w.sidecars[w.rng.IntN(len(w.sidecars))] }

// stopSidecar pauses one.
func stopSidecar(ctx context.Context, w *worker) error {
	s, long := w.pod(), w.long()
	if long { // nobody's SET may wait in the socket for longer than the fill window
		s.loads.Lock()
		defer s.loads.Unlock()
	}
	s.signal(syscall.SIGSTOP)
	w.pause(ctx, long)
	s.signal(syscall.SIGCONT)
	w.judge.paused(s.name)
	return nil
}

// noFiles leaves a sidecar the files that it has open, and half of the time not
// its connections to NATS.
func noFiles(ctx context.Context, w *worker) error {
	s := w.pod()
	since := s.logged()
	if err := s.setFiles(false); err != nil {
		return err
	}
	if w.chance(2) {
		for _, p := range s.ways {
			p.sever()
		}
	}
	var conns []net.Conn
	defer func() { // after the limit is gone, or what they free could be used again
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for range 4 { // they wait for somebody who accepts them
		if c, err := net.DialTimeout("unix", s.socket, patience); err == nil {
			conns = append(conns, c)
		}
	}
	w.last(ctx)
	err := s.setFiles(true)
	w.bite("no-files", s.said(since, "too many open files"))
	return err
}

// cutting makes a sidecar unable to send, to receive, or both.
func cutting(up, down bool) func(context.Context, *worker) error {
	return func(ctx context.Context, w *worker) error {
		s := w.pod()
		s.cut(up, down)
		w.last(ctx)
		if w.chance(2) { // as when what lies between has forgotten the connection
			for _, p := range s.ways {
				p.sever()
			}
		}
		s.cut(false, false)
		return nil
	}
}

// settled waits until the sidecars are ready again, but not for ever: NATS may
// be away.
func (w *worker) settled(ctx context.Context, all ...*sidecar) {
	ctx, cancel := context.WithTimeout(ctx, w.longest)
	defer cancel()
	for _, s := range all {
		_ = s.ready(ctx) // the end of the run waits, and complains
	}
}
