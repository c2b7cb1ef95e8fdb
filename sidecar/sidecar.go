// Package sidecar is the nearside daemon as a library: a coherent L1 cache on a
// Unix socket. See the subpackages for its parts:
//
//	coherence  what may be kept (a pure state machine)
//	cache      the store, the core and the bus, joined
//	session    a client's conversation, as a function from bytes to bytes
//	policy     how the keys of a namespace are treated
//	toggle     what of it is changed while serving
//	purge      which wide purges clients may publish
//	audit      who changed what
package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/nearside-cache/nearside/api"
	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/audit"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/clock"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/purge"
	"github.com/nearside-cache/nearside/sidecar/session"
	"github.com/nearside-cache/nearside/sidecar/toggle"
)

// Sidecar is one daemon. Listen binds it, Run serves until its context ends.
type Sidecar struct {
	cfg     Config
	sources *sources
	cache   *cache.Cache
	board   *toggle.Board
	gate    *purge.Gate
	// reloads counts new policies, by what became of them.
	reloads *prometheus.CounterVec
	server  *server
	admin   *admin
	socket  *socket
	tcp     net.Listener // nil without
}

// Listen checks the configuration and binds the addresses, so that everything
// that can be wrong with them is known before anything runs. On an error nothing
// stays bound.
func Listen(cfg Config) (_ *Sidecar, err error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.Boot()
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Sidecar{cfg: cfg}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	if s.socket, err = listenSocket(cfg); err != nil {
		return nil, err
	}
	if cfg.TCP != "" {
		if s.tcp, err = net.Listen("tcp", cfg.TCP); err != nil {
			return nil, fmt.Errorf("tcp: %w", err)
		}
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if s.sources, err = newSources(cfg, registry); err != nil {
		return nil, err
	}
	if s.cache, err = cache.New(cache.Config{
		Origins: s.sources.origins, Tiers: cache.TiersOf(s.sources.tiers),
		Memory: cfg.Memory, MaxValue: cfg.MaxValue, Policies: cfg.Policies, Bus: cfg.Bus, Clock: cfg.Clock,
		PublishTimeout: cfg.PublishTimeout, FirstLife: s.socket.life.first, Earlier: s.socket.life.earlier,
		Metrics: cache.NewMetrics(registry), Logger: cfg.Logger.Named("cache"),
	}); err != nil {
		return nil, fmt.Errorf("memory: %w", err)
	}
	s.socket.life.judging = s.cache.Judging
	if err := s.govern(registry); err != nil {
		return nil, err
	}
	s.server = newServer(cfg, s.env(registry), registry)
	registerGauges(registry, s.cache)
	if cfg.Admin != "" {
		if s.admin, err = listenAdmin(cfg.Admin, s, registry); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// govern makes what changes and bounds the policies while serving.
func (s *Sidecar) govern(registry prometheus.Registerer) error {
	log, err := audit.Open(s.cfg.AuditLog, s.cfg.Logger.Named("audit"), registry)
	if err != nil {
		return err
	}
	s.board = toggle.New(toggle.Config{
		Policies: s.cfg.Policies, Apply: s.cache.SetPolicies, Clock: s.cfg.Clock, Audit: log, Registerer: registry,
	})
	s.reloads = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "nearside", Name: "policy_reloads_total", Help: "New policies while serving, by what became of them.",
	}, []string{"outcome"})
	for _, outcome := range []string{reloadApplied, reloadRefused} {
		s.reloads.WithLabelValues(outcome)
	}
	registry.MustRegister(s.reloads)
	s.gate = purge.New(purge.Config{Policies: s.cache.Policies, Clock: s.cfg.Clock, Audit: log, Registerer: registry})
	return nil
}

func (s *Sidecar) env(registry prometheus.Registerer) *session.Env {
	return &session.Env{
		Cache:   s.cache,
		Clients: session.NewClients(),
		Limits: resp.Limits{
			MaxBulk:  max(s.cfg.MaxValue, api.MaxKey),
			MaxFrame: max(api.DefaultMaxFrame, 2*s.cfg.MaxValue),
		},
		Password: s.cfg.Password,
		Version:  s.cfg.Version,
		Started:  time.Now(),
		Memory:   s.cfg.Memory,

		BarrierTimeout: s.cfg.PublishTimeout,

		Metrics:  session.NewMetrics(registry),
		Toggles:  s.board,
		Purges:   s.gate,
		Settings: s.cfg.Settings,
	}
}

// unlisten stops accepting clients.
func (s *Sidecar) unlisten() {
	s.socket.listener.Close()
	if s.tcp != nil {
		s.tcp.Close()
	}
}

// release gives back what Listen took; what is closed already stays closed.
func (s *Sidecar) release() {
	if s.socket != nil {
		s.socket.Close()
	}
	if s.tcp != nil {
		s.tcp.Close()
	}
	if s.admin != nil {
		s.admin.listener.Close()
	}
	if s.cache != nil {
		if err := s.cache.Close(); err != nil {
			s.cfg.Logger.Error("closing the cache", "error", err)
		}
	}
	if s.sources != nil {
		if err := s.sources.close(); err != nil {
			s.cfg.Logger.Error("closing the loaders", "error", err)
		}
	}
}

// errDone ends a Run that has nothing to complain of.
var errDone = errors.New("sidecar: done")

// Run serves until ctx ends, then drains: it answers what has been asked, within
// DrainTimeout, and returns nil when everything it started has ended. It returns
// the first cause when something failed for good. It may be called once.
func (s *Sidecar) Run(ctx context.Context) error {
	defer s.release()
	if err := s.socket.life.write(); err != nil {
		return err
	}
	work, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(errDone)
	g, gctx := errgroup.WithContext(work)
	if err := s.server.start(gctx); err != nil {
		return err
	}
	g.Go(func() error { return s.follow(gctx) })
	g.Go(func() error { return s.socket.life.beat(gctx) })
	g.Go(func() error { return s.board.Run(gctx) })
	g.Go(func() error {
		s.cache.Refresh(gctx)
		return nil
	})
	g.Go(func() error {
		warmth{s.cfg.Socket + ".hot", s.cache, s.cfg.Logger.Named("warmth")}.run(gctx)
		return nil
	})
	g.Go(func() error { return s.server.serve(gctx, s.socket.listener) })
	if s.tcp != nil {
		g.Go(func() error { return s.server.serve(gctx, s.tcp) })
	}
	if s.admin != nil {
		g.Go(func() error { return s.admin.serve(gctx) })
	}
	g.Go(func() error {
		select {
		case <-ctx.Done():
		case <-gctx.Done():
		}
		s.unlisten()
		s.server.drain(s.cfg.DrainTimeout)
		stop(errDone)
		return nil
	})
	err := g.Wait()
	s.server.end()
	if err != nil && !errors.Is(err, errDone) {
		return err
	}
	return nil
}

func (s *Sidecar) follow(ctx context.Context) error {
	if err := s.cache.Follow(ctx); err != nil {
		return fmt.Errorf("following the stream: %w", err)
	}
	return nil
}

// Ready is closed when the sidecar follows its stream (C9).
func (s *Sidecar) Ready() <-chan struct{} { return s.cache.Ready() }

// Applied returns the position up to which every event has been applied.
func (s *Sidecar) Applied() bus.Position { return s.cache.Applied() }

// SetPolicies replaces the policies while serving, under the toggles in force.
// What is wrong with them is reported whole, and then nothing changes.
func (s *Sidecar) SetPolicies(p *policy.Set) error {
	err := p.Validate()
	if err == nil && p.Window != s.cfg.Policies.Window {
		err = fmt.Errorf("fill_window is %v and was %v: it can only change with a restart", p.Window, s.cfg.Policies.Window)
	}
	if err == nil {
		err = s.sources.apply(p)
	}
	if err != nil {
		s.PoliciesRefused()
		return err
	}
	s.board.SetPolicies(p)
	s.reloads.WithLabelValues(reloadApplied).Inc()
	return nil
}

// PoliciesRefused counts policies that could not even be read.
func (s *Sidecar) PoliciesRefused() { s.reloads.WithLabelValues(reloadRefused).Inc() }

// What becomes of new policies: labels of nearside_policy_reloads_total.
const (
	reloadApplied = "applied"
	reloadRefused = "refused"
)

// AdminAddr returns the address that the admin listener is bound to, empty
// without one.
func (s *Sidecar) AdminAddr() string {
	if s.admin == nil {
		return ""
	}
	return s.admin.listener.Addr().String()
}

// TCPAddr returns the address that the TCP listener is bound to, empty without
// one.
func (s *Sidecar) TCPAddr() string {
	if s.tcp == nil {
		return ""
	}
	return s.tcp.Addr().String()
}
