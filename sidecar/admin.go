package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/nearside-cache/nearside/sidecar/cache"
)

// admin serves what operators ask for, apart from the clients' socket.
type admin struct {
	listener net.Listener
	http     *http.Server
}

func listenAdmin(addr string, s *Sidecar, registry *prometheus.Registry) (*admin, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("admin: %w (choose another --admin, or none with --admin=\"\")", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", s.readyz)
	return &admin{listener: l, http: &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}}, nil
}

// readyz is ready from the first Resume until the drain. Losing the broker does
// not make it unready: a pod must not be taken out of service for what its cache
// can bridge.
func (s *Sidecar) readyz(w http.ResponseWriter, _ *http.Request) {
	select {
	case <-s.Ready():
	default:
		answer(w, http.StatusServiceUnavailable, "not ready: the stream is not being followed yet")
		return
	}
	if s.server.draining.Load() {
		answer(w, http.StatusServiceUnavailable, "not ready: draining")
		return
	}
	answer(w, http.StatusOK, "ready")
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text+"\n") // a client that has gone needs no answer
}

func (a *admin) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = a.http.Close() }) // what ends is ended
	defer stop()
	if err := a.http.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin: %w", err)
	}
	return nil
}

// ageSeconds is the age of the last proof of freshness. Without one it is over every
// bound, as an alert wants it.
func ageSeconds(c *cache.Cache) float64 {
	age := c.FreshAge(c.Now())
	if age == cache.Never {
		return math.Inf(1)
	}
	return age.Seconds()
}

// registerGauges exposes what is read from the cache when somebody scrapes.
func registerGauges(r prometheus.Registerer, c *cache.Cache) {
	for _, g := range []struct {
		name, help string
		read       func() float64
	}{
		{"entries", "Entries held, expired ones included.", func() float64 { return float64(c.Len()) }},
		{"entry_bytes", "Bytes of keys and values held.", func() float64 { return float64(c.Status().Store.Bytes) }},
		{"capacity_bytes", "Bytes that there is room for.", func() float64 { return float64(c.Status().Store.Capacity) }},
		{"applied_seq", "Stream sequence up to which every event was applied.", func() float64 { return float64(c.Applied().Seq) }},
		{"connected", "1 while there is a connection to the broker.", func() float64 {
			if c.Status().Bus.Connected {
				return 1
			}
			return 0
		}},
		{"fresh_age_seconds", "Time since the moment up to which everything published was provably applied here; +Inf: never since the start.", func() float64 { return ageSeconds(c) }},
		{"fences", "Fences held.", func() float64 { return float64(c.Status().Fences) }},
		{"outstanding_miss_keys", "Keys with a miss whose SET may follow.", func() float64 { return float64(c.Status().Misses) }},
	} {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "nearside", Name: g.name, Help: g.help}, g.read))
	}
}
