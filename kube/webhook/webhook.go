// Package webhook is the injector: an admission webhook that gives pods their
// sidecar. It makes the certificates that it serves itself, keeps them in a Secret
// that all its replicas share, renews them without a restart, and tells the API
// servers whom to trust; or it serves those that somebody else puts into a folder,
// such as cert-manager.
//
//	review   what an API server asks, and the answer (pure)
//	patch    the answer's JSON patch (pure)
//	chain    certificates that follow one another (pure)
//	keeper   the chain in the cluster
//	files    settings and certificates in files
package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nearside-cache/nearside/kube/inject"
)

// Config says what an injector serves, and where.
type Config struct {
	// Listen is the TCP address for the API servers, by HTTPS on /mutate.
	Listen string
	// Admin is the TCP address of /metrics, /healthz and /readyz, by HTTP.
	Admin string
	// Settings is the path of the file with the settings of the sidecars; empty: the
	// defaults. Its folder is watched.
	Settings string
	// Version is the program's own, Kubernetes that of the API servers.
	Version, Kubernetes string

	// CertDir is a folder with tls.crt and tls.key that somebody else looks after.
	// With it API is not used, nor what stands below.
	CertDir string
	// API reaches the cluster.
	API API
	// Namespace is the injector's own, where its Service and Secret are.
	Namespace string
	// Service, Secret and Webhook are the names of the Service by which API servers
	// find the injector, of the Secret with the certificates, and of the
	// MutatingWebhookConfiguration.
	Service, Secret, Webhook string
	// Lives is how long certificates are valid.
	Lives Lives

	// Drain is how long Run goes on to serve, unready, once its context has ended:
	// until no API server sends anything new.
	Drain time.Duration
	// Logger gets what happens.
	Logger hclog.Logger
}

// Times of connections. An API server waits for an answer for 10 s at most, by
// default and in the chart for less.
const (
	headerTimeout = 5 * time.Second
	bodyTimeout   = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
)

// Server is one injector. Listen binds it, Run serves until its context ends.
type Server struct {
	cfg      Config
	settings atomic.Pointer[inject.Settings]
	last     []byte // the settings file's contents when it was read; used by Run
	served   []byte // the certificate of CertDir when it was read; used by Run
	identity *identity
	metrics  *metrics
	draining atomic.Bool

	reviews, admin net.Listener
	review, health *http.Server
}

// Listen reads the files and binds the addresses, so that what is wrong with them
// is known before anything runs. On an error nothing stays bound.
func Listen(c Config) (_ *Server, err error) {
	if c.CertDir == "" {
		if err := c.Lives.validate(); err != nil {
			return nil, fmt.Errorf("webhook: %w", err)
		}
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s := &Server{cfg: c, metrics: newMetrics(registry)}
	s.identity = &identity{metrics: s.metrics}
	if err := s.readSettings(); err != nil {
		return nil, err
	}
	if s.reviews, err = net.Listen("tcp", c.Listen); err != nil {
		return nil, fmt.Errorf("webhook: listen: %w", err)
	}
	if s.admin, err = net.Listen("tcp", c.Admin); err != nil {
		return nil, errors.Join(fmt.Errorf("webhook: admin: %w", err), s.reviews.Close())
	}
	s.review = newServer(s.reviewHandler(), c.Logger)
	s.review.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: s.identity.get, NextProtos: []string{"h2", "http/1.1"}}
	s.health = newServer(s.healthHandler(registry), c.Logger)
	return s, nil
}

func newServer(h http.Handler, log hclog.Logger) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: bodyTimeout, WriteTimeout: bodyTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader, ErrorLog: log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
}

// readSettings reads the settings for the first time.
func (s *Server) readSettings() error {
	settings := inject.Defaults()
	settings.Version, settings.Kubernetes = s.cfg.Version, s.cfg.Kubernetes
	if s.cfg.Settings != "" {
		var err error
		if settings, s.last, err = readSettings(s.cfg.Settings, s.cfg.Version, s.cfg.Kubernetes); err != nil {
			return err
		}
	}
	s.settings.Store(&settings)
	return nil
}

func (s *Server) reviewHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /mutate", newHandler(&s.settings, s.metrics, s.cfg.Logger.Named("review")))
	return mux
}

func (s *Server) healthHandler(registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	say := func(w http.ResponseWriter, code int, text string) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, text+"\n") // a client that has gone needs no answer
	}
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		err := s.identity.ready(time.Now())
		switch {
		case s.draining.Load():
			say(w, http.StatusServiceUnavailable, "not ready: draining")
		case err != nil:
			say(w, http.StatusServiceUnavailable, "not ready: "+err.Error())
		default:
			say(w, http.StatusOK, "ready")
		}
	})
	return mux
}

// Addr and AdminAddr return the addresses that are bound.
func (s *Server) Addr() string { return s.reviews.Addr().String() }

// AdminAddr is as Addr, of /metrics, /healthz and /readyz.
func (s *Server) AdminAddr() string { return s.admin.Addr().String() }

// Run serves until ctx ends, and then goes on for Drain, and until what was asked
// is answered. It returns when everything it started has ended, with the first
// cause when something failed for good. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, work := errgroup.WithContext(work)
	g.Go(func() error { return ended(s.review.ServeTLS(s.reviews, "", "")) })
	g.Go(func() error { return ended(s.health.Serve(s.admin)) })
	s.look(work, g)
	g.Go(func() error {
		select {
		case <-ctx.Done():
			s.draining.Store(true)
			s.cfg.Logger.Info("draining", "for", s.cfg.Drain)
			wait(work, s.cfg.Drain)
		case <-work.Done():
		}
		defer stop()
		return s.close()
	})
	return g.Wait()
}

// look starts what follows files and certificates.
func (s *Server) look(ctx context.Context, g *errgroup.Group) {
	if s.cfg.Settings != "" {
		g.Go(func() error {
			follow(ctx, filepath.Dir(s.cfg.Settings), s.cfg.Logger, s.reloadSettings)
			return nil
		})
	}
	if s.cfg.CertDir != "" {
		g.Go(func() error {
			follow(ctx, s.cfg.CertDir, s.cfg.Logger, s.reloadCertificate)
			return nil
		})
		return
	}
	k := s.cfg.keeper(s.identity, s.metrics)
	g.Go(func() error {
		k.run(ctx)
		return nil
	})
}

func (c Config) keeper(i *identity, m *metrics) *keeper {
	return &keeper{
		api: c.API, lives: c.Lives, identity: i, metrics: m, log: c.Logger.Named("certificates"),
		secret: types.NamespacedName{Namespace: c.Namespace, Name: c.Secret}, webhook: types.NamespacedName{Name: c.Webhook},
		names: []string{c.Service + "." + c.Namespace + ".svc", c.Service + "." + c.Namespace},
	}
}

// wait returns after d, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func ended(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("webhook: serve: %w", err)
}

// close ends both servers once what was asked is answered.
func (s *Server) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), bodyTimeout)
	defer cancel()
	err := s.review.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.review.Close()
	}
	return errors.Join(err, s.health.Close())
}

// reloadSettings takes over a changed file without fault, and refuses another
// whole.
func (s *Server) reloadSettings() {
	settings, data, err := readSettings(s.cfg.Settings, s.cfg.Version, s.cfg.Kubernetes)
	if data == nil || bytes.Equal(data, s.last) {
		return // it may be about to be replaced, or another file changed
	}
	s.last = data
	if err != nil {
		s.metrics.reloads.WithLabelValues(fileSettings, reloadRefused).Inc()
		s.cfg.Logger.Error("the settings were not reloaded, the old ones stay", "error", err)
		return
	}
	s.settings.Store(&settings)
	s.metrics.reloads.WithLabelValues(fileSettings, reloadApplied).Inc()
	s.cfg.Logger.Info("the settings were reloaded")
}

// reloadCertificate takes over a changed certificate from CertDir.
func (s *Server) reloadCertificate() {
	c, err := readCertificates(s.cfg.CertDir)
	if err != nil {
		s.metrics.reloads.WithLabelValues(fileCertificate, reloadRefused).Inc()
		s.cfg.Logger.Error("the certificate was not loaded", "error", err)
		s.identity.settled(err)
		return
	}
	if !bytes.Equal(c.Certificate[0], s.served) {
		s.served = c.Certificate[0]
		s.metrics.reloads.WithLabelValues(fileCertificate, reloadApplied).Inc()
		s.cfg.Logger.Info("the certificate was loaded", "expires", c.Leaf.NotAfter)
	}
	s.identity.serve(c)
	s.identity.settled(nil) // whoever looks after the folder tells the API servers
}
