package l2_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus/membus"
	"github.com/nearside-cache/nearside/sidecar/l2"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := sidecartest.NewStream(t).Attach(membus.Options{})
		s := l2.NewSet(b, "default", hclog.NewNullLogger())
		registry := prometheus.NewPedanticRegistry()
		require.NoError(t, registry.Register(s))
		exposed := func() string {
			w := httptest.NewRecorder()
			promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
			require.Equal(t, http.StatusOK, w.Code, w.Body.String())
			return w.Body.String()
		}
		require.NoError(t, s.Apply(&policy.Set{Namespaces: map[string]policy.Namespace{"product": {L2: &policy.L2{}}}}))
		require.Empty(t, exposed(), "no tier is in use")
		tier := s.Of("product")
		synctest.Wait()
		_, _, err := tier.Get(t.Context(), "product:1")
		require.NoError(t, err)
		require.NoError(t, tier.Put("product:1", entry(1, 1, 1)))
		synctest.Wait()
		text := exposed()
		for _, line := range []string{
			`nearside_shared_up{namespace="product"} 1`,
			`nearside_shared_calls_total{namespace="product",result="miss"} 1`,
			`nearside_shared_writes_total{namespace="product",result="stored"} 1`,
			`nearside_shared_queued{namespace="product"} 0`,
			`nearside_shared_vouched_total{namespace="product"} 0`,
		} {
			require.Contains(t, text, line+"\n")
		}
		b.MuteBuckets(true)
		require.NoError(t, s.Close())
		require.NoError(t, b.Close())
		require.NotContains(t, exposed(), `nearside_shared_up{namespace="product"} 1`)
	})
}
