package sidecar_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/membus"
	"github.com/nearside-cache/nearside/sidecar"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// source is an origin over HTTP of keys product:n, all of one version.
type webSource struct {
	*httptest.Server
	version, requests, revalidated atomic.Int64
	down                           atomic.Bool
}

func newWebSource(t *testing.T) *webSource {
	s := &webSource{}
	s.version.Store(1)
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *webSource) serve(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	version := s.version.Load()
	etag := fmt.Sprintf(`"%d"`, version)
	w.Header().Set("X-Version", strconv.FormatInt(version, 10))
	w.Header().Set("ETag", etag)
	switch {
	case s.down.Load():
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.URL.Path == "/product/absent":
		w.WriteHeader(http.StatusNotFound)
	case r.Header.Get("If-None-Match") == etag:
		s.revalidated.Add(1)
		w.WriteHeader(http.StatusNotModified)
	default:
		fmt.Fprintf(w, "%s at %d", r.URL.Path, version)
	}
}

// policies are those of a namespace product that is loaded from s.
func (s *webSource) policies(change func(*policy.Namespace)) *policy.Set {
	set := policy.DefaultSet()
	n := policy.DefaultNamespace()
	n.NegativeTTL = time.Minute
	n.Loader = &policy.Loader{URL: s.URL + "/product/{rest}", VersionHeader: "X-Version", Tries: 1}
	if change != nil {
		change(&n)
	}
	set.Namespaces = map[string]policy.Namespace{"product": n}
	return set
}

func with(p *policy.Set) func(*sidecar.Config) { return func(c *sidecar.Config) { c.Policies = p } }

// A client that only reads gets what the origin has, over its own socket, and what it
// has after an invalidation.
func TestReadThrough(t *testing.T) {
	s := newWebSource(t)
	stream := sidecartest.NewStream(t)
	a := sidecartest.Start(t, stream.Attach(membus.Options{}), with(s.policies(nil)))
	client := a.Dial(t)
	for range 3 {
		require.Equal(t, "/product/42 at 1", client.Do("GET", "product:42").Str)
		require.True(t, client.Do("GET", "product:absent").IsNull())
	}
	require.EqualValues(t, 2, s.requests.Load())
	s.version.Store(2)
	require.Equal(t, "/product/42 at 1", client.Do("GET", "product:42").Str, "nobody has said so")
	require.NoError(t, client.Do("NEAR.INVALIDATE", "KEYS", "1", "product:42", "2").Err())
	require.Equal(t, "/product/42 at 2", client.Do("GET", "product:42").Str)
	require.True(t, client.Do("GET", "other:42").IsNull(), "of another namespace")
	require.EqualValues(t, 3, s.requests.Load())
}

// While the origin is away what is past its soft TTL is served, and revalidated when
// it is back.
func TestReadThroughOutage(t *testing.T) {
	s := newWebSource(t)
	a := sidecartest.Start(t, sidecartest.NewStream(t).Attach(membus.Options{}), with(s.policies(func(n *policy.Namespace) {
		n.SoftTTL, n.StaleIfError = 20*time.Millisecond, 20*time.Second
		n.Loader.BreakerFailures, n.Loader.BreakerOpen = 2, 100*time.Millisecond
	})))
	client := a.Dial(t)
	require.Equal(t, "/product/42 at 1", client.Do("GET", "product:42").Str)
	s.down.Store(true)
	require.Eventually(t, func() bool {
		require.Equal(t, "/product/42 at 1", client.Do("GET", "product:42").Str)
		return s.requests.Load() >= 3
	}, sidecartest.Wait, 5*time.Millisecond)
	require.True(t, client.Do("GET", "product:43").IsNull())
	s.down.Store(false)
	require.Eventually(t, func() bool {
		require.Equal(t, "/product/42 at 1", client.Do("GET", "product:42").Str)
		return s.revalidated.Load() > 0
	}, sidecartest.Wait, 5*time.Millisecond)
}

// Two sidecars with a shared tier: what one has loaded the other one does not load.
func TestReadThroughASharedTier(t *testing.T) {
	s := newWebSource(t)
	stream := sidecartest.NewStream(t)
	p := s.policies(func(n *policy.Namespace) { n.L2 = &policy.L2{Timeout: time.Second} })
	a := sidecartest.Start(t, stream.Attach(membus.Options{}), with(p))
	b := sidecartest.Start(t, stream.Attach(membus.Options{}), with(p))
	clients := []*sidecartest.Client{a.Dial(t), b.Dial(t)}
	writer := stream.Attach(membus.Options{})
	t.Cleanup(func() { require.NoError(t, writer.Close()) })
	// The tier is opened by the first load, and what that brings may not be shared yet.
	require.Eventually(t, func() bool {
		at, err := writer.Publish(t.Context(), "product", bus.Event{Keys: []bus.KeyVersion{{Key: "product:42"}}})
		require.NoError(t, err)
		a.AwaitApplied(t, at)
		b.AwaitApplied(t, at)
		before := s.requests.Load()
		for _, c := range clients {
			require.Equal(t, "/product/42 at 1", c.Do("GET", "product:42").Str)
		}
		return s.requests.Load() == before+1
	}, sidecartest.Wait, time.Millisecond)
}

// Policies that cannot be had leave everything as it was, the loaders too.
func TestPoliciesAreAppliedWholeOrNotAtAll(t *testing.T) {
	former, next := newWebSource(t), newWebSource(t)
	next.version.Store(2)
	noBuckets := struct{ bus.Bus }{sidecartest.NewStream(t).Attach(membus.Options{})}
	a := sidecartest.Start(t, noBuckets, with(former.policies(nil)))
	client := a.Dial(t)
	require.Error(t, a.SetPolicies(next.policies(func(n *policy.Namespace) { n.L2 = &policy.L2{} })))
	require.Equal(t, "/product/1 at 1", client.Do("GET", "product:1").Str)
	require.Error(t, a.SetPolicies(next.policies(func(n *policy.Namespace) { n.Loader.Headers = map[string]string{"A": "${NEARSIDE_TEST_UNSET}"} })))
	require.Equal(t, "/product/2 at 1", client.Do("GET", "product:2").Str)
	require.NoError(t, a.SetPolicies(next.policies(nil)))
	require.Equal(t, "/product/3 at 2", client.Do("GET", "product:3").Str)

	_, err := sidecar.Listen(func() sidecar.Config {
		c := sidecar.DefaultConfig()
		c.Socket, c.Admin, c.Bus = sidecartest.Dir(t)+"/s", "", noBuckets
		c.Policies = next.policies(func(n *policy.Namespace) { n.L2 = &policy.L2{} })
		return c
	}())
	require.ErrorContains(t, err, "remove l2")
}

// A sidecar that ends while its origin hangs ends all the same.
func TestStopWhileTheOriginHangs(t *testing.T) {
	hang, asked := make(chan struct{}), make(chan struct{}, 16)
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-hang
	}))
	t.Cleanup(hanging.Close)
	t.Cleanup(func() { close(hang) })
	s := newWebSource(t)
	a := sidecartest.Start(t, sidecartest.NewStream(t).Attach(membus.Options{}), with(s.policies(func(n *policy.Namespace) {
		n.Loader.URL = hanging.URL + "/{rest}"
		n.Loader.HardTimeout, n.Loader.MaxTimeout, n.Loader.SoftTimeout = time.Hour/6, time.Hour/6, time.Millisecond
		n.Loader.MinTimeout = time.Hour / 6
	})))
	client := a.Dial(t)
	require.True(t, client.Do("GET", "product:1").IsNull(), "at the soft timeout")
	<-asked
	began := time.Now()
	a.Stop(t)
	require.Less(t, time.Since(began), sidecartest.Wait/2)
}
