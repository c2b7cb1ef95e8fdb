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

// server accepts connections and drives each with a goroutine of its own.
type server struct {
	cfg      Config
	env      *session.Env
	log      hclog.Logger
	buffers  buffers
	draining atomic.Bool

	accepted prometheus.Counter
	closed   *prometheus.CounterVec // by ending

	mu    sync.Mutex
	conns map[*conn]struct{}
	left  sync.WaitGroup // one for each of conns
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
		conns:   make(map[*conn]struct{}),
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
	}, func() float64 { return float64(env.Clients.Len()) }), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "nearside", Name: "buffer_bytes", Help: "Memory that connections' buffers have taken beyond what each starts with.",
	}, func() float64 { return float64(s.buffers.used.Load()) }))
	return s
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
		s.accept(ctx, nc)
	}
}

// accept starts a connection's goroutine, or refuses it.
func (s *server) accept(ctx context.Context, nc net.Conn) {
	s.accepted.Inc()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining.Load():
		nc.Close()
		s.closed.WithLabelValues(string(endDrain)).Inc()
		return
	case len(s.conns) >= s.cfg.MaxConnections:
		s.refuse(nc, fmt.Sprintf("ERR max number of clients reached (%d): raise --max-connections", s.cfg.MaxConnections))
		return
	}
	if fault := s.forbids(nc); fault != "" {
		s.refuse(nc, fault)
		return
	}
	c := newConn(s, nc)
	s.conns[c] = struct{}{}
	s.left.Add(1)
	go func() {
		defer s.left.Done()
		end := c.run(ctx)
		nc.Close()
		s.closed.WithLabelValues(string(end)).Inc()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
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

func (s *server) refuse(nc net.Conn, text string) {
	// The client may be gone already; there is nobody to tell then.
	_ = nc.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	_, _ = nc.Write(resp.AppendError(nil, text))
	nc.Close()
	s.closed.WithLabelValues(string(endRefused)).Inc()
}

// drain lets every connection finish what it has been asked, then closes it; at
// the latest after timeout. It returns when all have ended.
func (s *server) drain(timeout time.Duration) {
	s.draining.Store(true)
	s.env.Cache.EndWaits()
	s.eachConn((*conn).wake)
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
		s.eachConn(func(c *conn) { c.net.Close() })
	}
}

func (s *server) eachConn(do func(*conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		do(c)
	}
}
