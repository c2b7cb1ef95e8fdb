package loader_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/loader"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// exposed returns the metrics as a scrape would.
func exposed(t *testing.T, registry *prometheus.Registry) string {
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	require.Equal(t, http.StatusOK, w.Code)
	return w.Body.String()
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pipes := serve(t, script(answers(404, ""), answers(500, ""), func(w http.ResponseWriter, r *http.Request) {
			after(100*time.Millisecond, answers(200, "lamp"))(w, r)
		}))
		registry := prometheus.NewRegistry()
		p := policy.Loader{URL: template, SoftTimeout: 50 * time.Millisecond, MaxTimeout: time.Second}
		o := open(t, p, loader.Deps{Dial: pipes.dial, Metrics: loader.NewMetrics(registry)})
		_, err := load(t, o, loader.Request{})
		require.NoError(t, err)
		pending := o.Begin(loader.Request{Key: "product:1"})
		_, err = pending.Wait(t.Context())
		require.ErrorIs(t, err, loader.ErrSlow)
		synctest.Wait()
		_, err = pending.Result()
		require.NoError(t, err)
		text := exposed(t, registry)
		for _, line := range []string{
			`nearside_load_results_total{namespace="product",outcome="negative"} 1`,
			`nearside_load_results_total{namespace="product",outcome="loaded"} 1`,
			`nearside_load_results_total{namespace="product",outcome="timeout"} 0`,
			`nearside_load_requests_total{namespace="product"} 3`,
			`nearside_load_slow_total{namespace="product"} 1`,
			`nearside_load_duration_seconds_count{namespace="product"} 2`,
			`nearside_load_requests_in_flight{namespace="product"} 0`,
			`nearside_load_timeout_seconds{namespace="product"} 1`,
			`nearside_load_breaker_state{namespace="product"} 0`,
		} {
			require.Contains(t, text, line+"\n")
		}
		require.Equal(t, len(loader.Outcomes), strings.Count(text, "nearside_load_results_total{"))
	})
}
