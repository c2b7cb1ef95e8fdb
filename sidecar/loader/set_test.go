package loader_test

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/loader"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// policies returns a Set with these loaders; the name "" is the defaults.
func policies(t *testing.T, loaders map[string]*policy.Loader) *policy.Set {
	s := policy.DefaultSet()
	s.Namespaces = make(map[string]policy.Namespace)
	for name, l := range loaders {
		if name == "" {
			s.Default.Loader = l
			continue
		}
		n := policy.DefaultNamespace()
		n.Loader = l
		s.Namespaces[name] = n
	}
	require.NoError(t, s.Validate())
	return s
}

func newSet(t *testing.T, d loader.Deps) *loader.Set {
	s := loader.NewSet(d)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestSetFindsTheLoader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pipes := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) })
		s := newSet(t, loader.Deps{Dial: pipes.dial})
		_, err := s.Load(t.Context(), "product", loader.Request{Key: "product:1"})
		require.ErrorIs(t, err, loader.ErrNoLoader)
		require.NoError(t, s.Apply(policies(t, map[string]*policy.Loader{
			"": {URL: "http://app/d/{namespace}/{rest}"}, "product": {URL: "http://app/p/{rest}"}, "none": nil,
		})))
		for key, want := range map[string]string{"product:1": "/p/1", "user:1": "/d/user/1", "1": "/d/default/1"} {
			ns := map[string]string{"product:1": "product", "user:1": "user", "1": "default"}[key]
			got, err := s.Load(t.Context(), ns, loader.Request{Key: key})
			require.NoError(t, err)
			require.Equal(t, want, string(got.Value))
			got, err = s.Begin(ns, loader.Request{Key: key}).Wait(t.Context())
			require.NoError(t, err)
			require.Equal(t, want, string(got.Value))
		}
		_, err = s.Begin("none", loader.Request{Key: "none:1"}).Result()
		require.ErrorIs(t, err, loader.ErrNoLoader)
		require.Nil(t, s.Of("none"))
		require.Same(t, s.Of("user"), s.Of("cart"), "those without a policy share one")
	})
}

// A reload that does not change the block keeps what is known of the origin.
func TestReloadKeepsWhatDidNotChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pipes := serve(t, answers(500, ""))
		s := newSet(t, loader.Deps{Dial: pipes.dial})
		block := func() *policy.Loader {
			return &policy.Loader{URL: "http://app/{rest}", Tries: 1, BreakerFailures: 1, Headers: map[string]string{"A": "b"}}
		}
		changed := block()
		changed.Rate = 5
		require.NoError(t, s.Apply(policies(t, map[string]*policy.Loader{"product": block(), "user": block()})))
		for _, ns := range []string{"product", "user"} {
			_, err := s.Load(t.Context(), ns, loader.Request{Key: ns + ":1"})
			require.ErrorIs(t, err, loader.ErrFailed)
		}
		product, user := s.Of("product"), s.Of("user")
		next := policies(t, map[string]*policy.Loader{"product": block(), "user": changed})
		n := next.Namespaces["product"]
		n.TTL = time.Hour
		next.Namespaces["product"] = n
		require.NoError(t, s.Apply(next))
		require.Same(t, product, s.Of("product"))
		require.NotSame(t, user, s.Of("user"))
		_, err := s.Load(t.Context(), "product", loader.Request{Key: "product:1"})
		require.ErrorIs(t, err, loader.ErrBreakerOpen, "the breaker stays open")
		_, err = s.Load(t.Context(), "user", loader.Request{Key: "user:1"})
		require.ErrorIs(t, err, loader.ErrFailed, "another origin, nothing is known of it")
		_, err = user.Load(t.Context(), loader.Request{Key: "user:1"})
		require.ErrorIs(t, err, loader.ErrClosed)
	})
}

// Loads under way end as they would have, by the policy that they began with;
// new ones do not wait for them.
func TestReloadLetsLoadsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pipes := serve(t, func(w http.ResponseWriter, r *http.Request) {
			after(time.Second, answers(200, r.URL.Path))(w, r)
		})
		registry := prometheus.NewRegistry()
		s := newSet(t, loader.Deps{Dial: pipes.dial, Metrics: loader.NewMetrics(registry)})
		require.NoError(t, s.Apply(policies(t, map[string]*policy.Loader{"product": {URL: "http://app/old/{rest}"}, "gone": {URL: "http://app/{rest}"}})))
		old, gone := s.Begin("product", loader.Request{Key: "product:1"}), s.Begin("gone", loader.Request{Key: "gone:1"})
		synctest.Wait()
		began := time.Now()
		require.NoError(t, s.Apply(policies(t, map[string]*policy.Loader{"product": {URL: "http://app/new/{rest}"}})))
		require.Zero(t, time.Since(began))
		got, err := s.Load(t.Context(), "product", loader.Request{Key: "product:1"})
		require.NoError(t, err)
		require.Equal(t, "/new/1", string(got.Value))
		got, err = old.Result()
		require.NoError(t, err)
		require.Equal(t, "/old/1", string(got.Value))
		_, err = gone.Result()
		require.NoError(t, err)
		require.Equal(t, time.Second, time.Since(began))
		synctest.Wait()
		require.NotContains(t, exposed(t, registry), `namespace="gone"`)
		require.Contains(t, exposed(t, registry), `nearside_load_results_total{namespace="product",outcome="loaded"} 2`)
	})
}

// A policy that cannot be put in force changes nothing.
func TestReloadIsWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pipes := serve(t, answers(500, ""))
		registry := prometheus.NewRegistry()
		s := newSet(t, loader.Deps{
			Dial: pipes.dial, Metrics: loader.NewMetrics(registry), Lookup: func(string) (string, bool) { return "", false },
		})
		require.NoError(t, s.Apply(policies(t, map[string]*policy.Loader{"product": {URL: "http://app/{rest}", Tries: 1, BreakerFailures: 1}})))
		_, err := s.Load(t.Context(), "product", loader.Request{Key: "product:1"})
		require.ErrorIs(t, err, loader.ErrFailed)
		product := s.Of("product")
		err = s.Apply(policies(t, map[string]*policy.Loader{
			"product": {URL: "http://app/new/{rest}"},
			"user":    {URL: "http://app/{rest}", Headers: map[string]string{"A": "${NONE}"}},
			"cart":    {Subject: "cart.{rest}"},
			"order":   {URL: "http://app/{rest}"},
		}))
		require.ErrorContains(t, err, "loader of user: ")
		require.ErrorContains(t, err, "NONE")
		require.ErrorContains(t, err, "loader of cart: ")
		require.Same(t, product, s.Of("product"))
		require.Nil(t, s.Of("order"))
		text := exposed(t, registry)
		require.NotContains(t, text, `"order"`)
		require.NotContains(t, text, `"user"`)
		require.Contains(t, text, `nearside_load_breaker_state{namespace="product"} 2`)
	})
}

// Close ends what replaced origins still do, and does not wait for an origin.
func TestSetCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pipes := serve(t, hangs)
		s := newSet(t, loader.Deps{Dial: pipes.dial})
		var pending []*loader.Pending
		for i := range 3 {
			set := policies(t, map[string]*policy.Loader{"product": {URL: fmt.Sprintf("http://app/%d/{rest}", i)}})
			require.NoError(t, s.Apply(set))
			pending = append(pending, s.Begin("product", loader.Request{Key: "product:1"}))
		}
		synctest.Wait()
		began := time.Now()
		for range 2 {
			require.NoError(t, s.Close())
		}
		for _, p := range pending {
			_, err := p.Result()
			require.ErrorIs(t, err, loader.ErrClosed)
		}
		require.Zero(t, time.Since(began))
		_, err := s.Load(t.Context(), "product", loader.Request{Key: "product:1"})
		require.ErrorIs(t, err, loader.ErrClosed)
		require.ErrorIs(t, s.Apply(policies(t, nil)), loader.ErrClosed)
	})
}

// No load finds its origin closed while policies change under it.
func TestLoadsDuringReloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pipes := serve(t, answers(200, ""))
		s := newSet(t, loader.Deps{Dial: pipes.dial})
		var stop atomic.Bool
		var all sync.WaitGroup
		apply := func(i int) {
			require.NoError(t, s.Apply(policies(t, map[string]*policy.Loader{"product": {URL: fmt.Sprintf("http://app/%d/{rest}", i), Rate: 1e6}})))
		}
		apply(0)
		for range 4 {
			all.Go(func() {
				for !stop.Load() {
					_, err := s.Load(t.Context(), "product", loader.Request{Key: "product:1"})
					require.NoError(t, err)
				}
			})
		}
		for i := range 100 {
			apply(i + 1)
		}
		stop.Store(true)
		all.Wait()
	})
}
