package loader_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/nearside-cache/nearside/sidecar/loader"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipes is a listener whose connections are in memory, so that time between a
// loader and its origin is virtual.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	dials  atomic.Int64
	down   atomic.Bool // dials are refused
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
}

var errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	p.dials.Add(1)
	if p.down.Load() {
		return nil, errRefused
	}
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.closed:
		return nil, errRefused
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	close(p.closed)
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// serve has h answer on pipes until the test ends.
func serve(t *testing.T, h http.HandlerFunc) *pipes {
	p := newPipes()
	s := &http.Server{Handler: h}
	ended := make(chan error)
	go func() { ended <- s.Serve(p) }()
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		require.ErrorIs(t, <-ended, http.ErrServerClosed)
	})
	return p
}

// open makes an origin that ends with the test.
func open(t *testing.T, p policy.Loader, d loader.Deps) *loader.Origin {
	requireValid(t, p)
	o, err := loader.New("product", p, d)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, o.Close()) })
	return o
}

func requireValid(t *testing.T, p policy.Loader) {
	s := policy.DefaultSet()
	n := s.Default
	n.Loader = &p
	s.Namespaces = map[string]policy.Namespace{"product": n}
	require.NoError(t, s.Validate())
}

const template = "http://app:8080/cache/{rest}"

// virtual runs f in virtual time with an origin that h is.
func virtual(t *testing.T, p policy.Loader, h http.HandlerFunc, f func(t *testing.T, o *loader.Origin, net *pipes)) {
	synctest.Test(t, func(t *testing.T) {
		pipes := serve(t, h)
		if p.URL == "" {
			p.URL = template
		}
		f(t, open(t, p, loader.Deps{Dial: pipes.dial}), pipes)
	})
}

func load(t *testing.T, o loader.Loader, r loader.Request) (loader.Result, error) {
	if r.Key == "" {
		r.Key = "product:42"
	}
	return o.Load(t.Context(), r)
}

// answers returns a handler that answers always the same. Headers are pairs.
func answers(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Add(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}
