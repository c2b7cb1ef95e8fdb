package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/session"
)

// server accepts connections and gives them to a driver.
type server struct {
	cfg      Config
	env      *session.Env
	log      hclog.Logger
	buffers  buffers
	driver   driver
	draining atomic.Bool

	accepted prometheus.Counter
	closed   *prometheus.CounterVec // by ending

	mu    sync.Mutex
	open  int // connections admitted and not ended
	conns map[connection]struct{}
	left  sync.WaitGroup // one for each of open
}

// driver brings the bytes of connections to their conversations, and back. Its
// methods are called by several goroutines.
type driver interface {
	// take makes nc its own, which it closes also when it fails. It does not block.
	take(nc net.Conn) (connection, error)
	// stop ends the driver when all its connections have ended.
	stop()
}

// connection is one that a driver has taken. When it has ended, its driver calls
// the server's leave. wake and kill are safe for concurrent use.
type connection interface {
	start() // serves it; called once
	wake()  // makes its driver look whether the server drains
	kill()  // ends it as soon as it waits for no operation
}

// Buffers may take a quarter of the memory budget, at least minBuffers.
const (
	bufferShare = 25
	minBuffers  = 32 << 20
)

func newServer(cfg Config, env *session.Env, r prometheus.Registerer) *server {
	s := &server{
		cfg: cfg, env: env, log: cfg.Logger.Named("server"),
		buffers: buffers{limit: max(minBuffers, cfg.Memory*bufferShare/100)},
		conns:   make(map[connection]struct{}),
		accepted: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "nearside", Name: "connections_accepted_total", Help: "Connections accepted, refused ones included.",
		}),
		closed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "nearside", Name: "connections_closed_total", Help: "Connections that ended, by why.",
		}, []string{"reason"}),
	}
	env.Reserve = s.buffers.reserve
	for _, e := range endings {
		s.closed.WithLabelValues(string(e))
	}
	r.MustRegister(s.accepted, s.closed, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "nearside", Name: "connections", Help: "Connections open now.",
	}, func() float64 { return float64(s.opened()) }), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "nearside", Name: "buffer_bytes", Help: "Memory that connections' buffers have taken beyond what each starts with.",
	}, func() float64 { return float64(s.buffers.used.Load()) }))
	return s
}

// start makes the driver; operations that wait end with ctx.
func (s *server) start(ctx context.Context) (err error) {
	if s.driver, err = newDriver(ctx, s); err != nil {
		return fmt.Errorf("driver: %w", err)
	}
	return nil
}

// serve accepts on l until the server drains.
func (s *server) serve(ctx context.Context, l net.Listener) error {
	for {
		nc, err := l.Accept()
		switch {
		case s.draining.Load():
			if err == nil {
				nc.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			// Out of file descriptors, most likely: connections that end free some.
			s.log.Error("cannot accept a connection", "listener", l.Addr(), "error", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return nil
			}
			continue
		}
		s.accept(nc)
	}
}

// accept gives a connection to the driver, or refuses it.
func (s *server) accept(nc net.Conn) {
	s.accepted.Inc()
	if end, text := s.enter(nc); end != "" {
		s.refuse(nc, end, text)
		return
	}
	c, err := s.driver.take(nc)
	if err != nil {
		s.log.Error("cannot serve a connection", "error", err)
		s.leave(nil, endError)
		return
	}
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	c.start()
	if s.draining.Load() {
		c.wake() // drain may not have seen it
	}
}

// enter admits a connection, or returns why not. Who was admitted must leave.
func (s *server) enter(nc net.Conn) (end ending, text string) {
	if fault := s.forbids(nc); fault != "" {
		return endRefused, fault
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining.Load():
		return endDrain, ""
	case s.open >= s.cfg.MaxConnections:
		return endRefused, fmt.Sprintf("ERR max number of clients reached (%d): raise --max-connections", s.cfg.MaxConnections)
	}
	s.open++
	s.left.Add(1)
	return "", ""
}

// leave takes note that an admitted connection has ended; c is nil when it was
// never taken.
func (s *server) leave(c connection, end ending) {
	s.closed.WithLabelValues(string(end)).Inc()
	s.mu.Lock()
	s.open--
	delete(s.conns, c)
	s.mu.Unlock()
	s.left.Done()
}

func (s *server) opened() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// forbids returns why a client may not connect; empty when it may.
func (s *server) forbids(nc net.Conn) string {
	if len(s.cfg.AllowUIDs) == 0 {
		return ""
	}
	switch p, err := peerOf(nc); {
	case errors.Is(err, errNoUnixSocket):
		return "NOPERM who connects cannot be told here, and --allow-uids is set"
	case err != nil:
		return "NOPERM who connects cannot be told, and --allow-uids is set: " + err.Error()
	case !slices.Contains(s.cfg.AllowUIDs, p.uid):
		return fmt.Sprintf("NOPERM user %d may not connect: --allow-uids does not list it", p.uid)
	}
	return ""
}

// refuse closes a connection that was not admitted, and tells the client text.
func (s *server) refuse(nc net.Conn, end ending, text string) {
	if text != "" {
		// The client may be gone already; there is nobody to tell then.
		_ = nc.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		_, _ = nc.Write(resp.AppendError(nil, text))
	}
	nc.Close()
	s.closed.WithLabelValues(string(end)).Inc()
}

// drain lets every connection finish what it has been asked, then closes it; at
// the latest after timeout. It returns when all have ended, or have been killed.
func (s *server) drain(timeout time.Duration) {
	s.draining.Store(true)
	s.env.Cache.EndWaits()
	s.eachConn(connection.wake)
	done := make(chan struct{})
	go func() {
		s.left.Wait()
		close(done)
	}()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		s.eachConn(connection.kill)
	}
}

// end returns when every connection has ended and nothing of the driver runs.
func (s *server) end() {
	s.left.Wait()
	s.driver.stop()
}

func (s *server) eachConn(do func(connection)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		do(c)
	}
}
