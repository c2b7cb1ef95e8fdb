package sidecar_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus/membus"
	"github.com/nearside-cache/nearside/sidecar"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// origin counts the loads of each key and answers a new version each time.
type origin struct {
	*httptest.Server
	loads atomic.Int64
}

func newOrigin(t *testing.T) *origin {
	o := &origin{}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := o.loads.Add(1)
		w.Header().Set("Version", fmt.Sprint(n))
		fmt.Fprintf(w, "%s %d", strings.TrimPrefix(r.URL.Path, "/"), n)
	}))
	t.Cleanup(o.Close)
	return o
}

// loading are policies by which everything is loaded from o.
func loading(o *origin) *policy.Set {
	p := policy.DefaultSet()
	p.Default.Loader = &policy.Loader{URL: o.URL + "/{key}", VersionHeader: "Version"}
	p.Default.Refresh.Window = time.Millisecond
	return p
}

// A REFRESH event brings back what was read lately, in every sidecar, and not what
// was not there (C10).
func TestRefreshEventLoadsWhatIsRead(t *testing.T) {
	o := newOrigin(t)
	stream := sidecartest.NewStream(t)
	a := startWith(t, stream, filepath.Join(sidecartest.Dir(t), "a"), loading(o)).Dial(t)
	b := startWith(t, stream, filepath.Join(sidecartest.Dir(t), "b"), loading(o)).Dial(t)
	a.Do("GET", "k")
	b.Do("GET", "k")
	require.EqualValues(t, 2, o.loads.Load())
	require.NoError(t, a.Do("NEAR.INVALIDATE", "KEYS", "2", "k", "0", "unknown", "0", "REFRESH").Err())
	// Nobody reads meanwhile: that would load, too.
	require.Eventually(t, func() bool { return o.loads.Load() >= 4 }, sidecartest.Wait, time.Millisecond)
	for _, c := range []*sidecartest.Client{a, b} {
		require.Eventually(t, func() bool {
			hit := c.Do("NEAR.GET", "k", "ANY", "WAIT", "5000")
			return hit.Elems[1].Str == "HIT" && hit.Elems[3].Str > "k 2"
		}, sidecartest.Wait, time.Millisecond)
	}
	require.EqualValues(t, 4, o.loads.Load(), "nobody else asked for it, nor was one made void by its own event")
}

// The next life at a socket loads what was hot before anybody asks (C7).
func TestHotKeysOutliveARestart(t *testing.T) {
	o := newOrigin(t)
	stream := sidecartest.NewStream(t)
	socket := filepath.Join(sidecartest.Dir(t), "s")
	first := startWith(t, stream, socket, loading(o))
	c := first.Dial(t)
	for range 2000 { // of which one in 32 is counted
		c.Do("GET", "hot")
	}
	require.EqualValues(t, 1, o.loads.Load())
	first.Stop(t)
	kept, err := os.ReadFile(socket + ".hot")
	require.NoError(t, err)
	require.Contains(t, string(kept), `"hot"`)
	startWith(t, stream, socket, loading(o))
	require.Eventually(t, func() bool { return o.loads.Load() == 2 }, sidecartest.Wait, time.Millisecond)
}

func startWith(t *testing.T, stream *membus.Stream, socket string, p *policy.Set) *sidecartest.Sidecar {
	t.Helper()
	b := stream.Attach(membus.Options{})
	t.Cleanup(func() { _ = b.Close() })
	return sidecartest.Start(t, b, func(c *sidecar.Config) { c.Socket, c.Policies = socket, p })
}
