//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// origin is the source of truth: a version for each key, which is its value too,
// served over HTTP on a Unix socket. Each answer takes the same time, in the middle
// of which the version is read.
type origin struct {
	socket  string
	latency time.Duration
	loads   atomic.Int64 // answered or under way
	server  *http.Server
	ended   chan error

	mu       sync.Mutex
	versions map[string]uint64
	took     []time.Duration // by answers since taken was called
}

func serveOrigin(socket string, latency time.Duration) (*origin, error) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	o := &origin{socket: socket, latency: latency, versions: map[string]uint64{}, ended: make(chan error, 1)}
	o.server = &http.Server{Handler: o, ReadHeaderTimeout: time.Minute}
	go func() { o.ended <- o.server.Serve(l) }()
	return o, nil
}

func (o *origin) close() error {
	err := o.server.Close()
	if ended := <-o.ended; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}

// ServeHTTP answers GET /key.
func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.loads.Add(1)
	defer o.note(time.Now())
	time.Sleep(o.latency / 2)
	version := strconv.FormatUint(o.version(strings.TrimPrefix(r.URL.Path, "/")), 10)
	time.Sleep(o.latency / 2)
	w.Header().Set("X-Version", version)
	_, _ = io.WriteString(w, version) // whoever does not read it loads again
}

func (o *origin) note(began time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.took = append(o.took, time.Since(began))
}

// taken returns what the answers took since the last call: longer than they should
// where the machine is busy.
func (o *origin) taken() []time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	took := o.took
	o.took = nil
	return took
}

func (o *origin) version(key string) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return 1 + o.versions[key] // 0 would be none
}

// commit makes a new version of key and returns it.
func (o *origin) commit(key string) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.versions[key]++
	return 1 + o.versions[key]
}

// loader is how readers load by themselves: over connections that are kept, as
// many as there are readers.
type loader struct{ client *http.Client }

func newLoader(socket string, readers int) loader {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return loader{&http.Client{Transport: &http.Transport{
		DialContext: dial, MaxIdleConns: readers, MaxIdleConnsPerHost: readers, DisableCompression: true,
	}}}
}

func (l loader) load(ctx context.Context, key string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://origin/"+key, http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := l.client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }() // it was only read
	value, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("the origin answered with status %d", response.StatusCode)
	}
	return string(value), err
}
