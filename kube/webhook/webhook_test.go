package webhook_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/kube/cluster/clustertest"
	"github.com/nearside-cache/nearside/kube/webhook"
)

const patience = 20 * time.Second

// running is an injector that serves.
type running struct {
	*webhook.Server
	stop  context.CancelFunc
	ended chan error // gets what Run returned
}

func run(t *testing.T, c webhook.Config) *running {
	c.Listen, c.Admin, c.Version = "127.0.0.1:0", "127.0.0.1:0", "1.2.3"
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	s, err := webhook.Listen(c)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	r := &running{s, stop, make(chan error, 1)}
	done := make(chan struct{})
	go func() { r.ended <- s.Run(ctx); close(done) }()
	t.Cleanup(func() { stop(); <-done })
	return r
}

// get asks the admin port.
func (r *running) get(t *testing.T, path string) (int, string) {
	answer, err := http.DefaultTransport.(*http.Transport).Clone().RoundTrip(request(t, http.MethodGet, "http://"+r.AdminAddr()+path, nil))
	require.NoError(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(body)
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	r.Close = true
	return r
}

func (r *running) eventuallyReady(t *testing.T) {
	require.Eventually(t, func() bool {
		code, _ := r.get(t, "/readyz")
		return code == http.StatusOK
	}, patience, 5*time.Millisecond)
}

// client is an API server that trusts a bundle.
func client(bundle []byte) *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: names[0]},
	}}
}

// newCertificate returns a certificate and its key, and what to trust for them.
func newCertificate(t *testing.T) (data map[string][]byte, bundle []byte) {
	c, err := webhook.ReadChain(nil)
	require.NoError(t, err)
	_, err = c.Advance(time.Now(), webhook.DefaultLives(), names, false)
	require.NoError(t, err)
	data, err = c.Data()
	require.NoError(t, err)
	bundle, _, err = webhook.Bundle(data)
	require.NoError(t, err)
	return data, bundle
}

func write(t *testing.T, dir string, files map[string][]byte) {
	for name, data := range files {
		next := filepath.Join(dir, "."+name)
		require.NoError(t, os.WriteFile(next, data, 0o600))
		require.NoError(t, os.Rename(next, filepath.Join(dir, name)))
	}
}

// Certificates of somebody else are served, and served anew without a restart;
// nothing is asked of a cluster.
func TestCertificatesFromAFolder(t *testing.T) {
	dir := t.TempDir()
	r := run(t, webhook.Config{CertDir: dir})
	code, why := r.get(t, "/readyz")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Contains(t, why, "not ready")

	review, err := os.ReadFile(filepath.Join("testdata", "reviews", "injected.json"))
	require.NoError(t, err)
	for range 2 {
		data, bundle := newCertificate(t)
		write(t, dir, data)
		api := client(bundle)
		require.Eventually(t, func() bool {
			answer, err := api.Do(request(t, http.MethodPost, "https://"+r.Addr()+"/mutate", strings.NewReader(string(review))))
			if err != nil {
				return false // the one before is served still
			}
			defer answer.Body.Close()
			return answer.StatusCode == http.StatusOK && answer.ProtoMajor == 2
		}, patience, 5*time.Millisecond)
		r.eventuallyReady(t)
	}
	write(t, dir, map[string][]byte{"tls.crt": []byte("no certificate")})
	require.Eventually(t, func() bool {
		_, metrics := r.get(t, "/metrics")
		return strings.Contains(metrics, `nearside_injector_reloads_total{file="certificate",outcome="refused"}`) &&
			!strings.Contains(metrics, `nearside_injector_reloads_total{file="certificate",outcome="refused"} 0`)
	}, patience, 5*time.Millisecond)
	r.eventuallyReady(t) // the last good one is served on
	_, metrics := r.get(t, "/metrics")
	require.Contains(t, metrics, `nearside_injector_admissions_total{result="injected"} 2`)
	require.NotContains(t, metrics, "nearside_injector_certificate_expiry_timestamp_seconds 0")
}

// Settings are taken over when their file changes, and a bad file is refused whole.
func TestSettingsReload(t *testing.T) {
	certs, dir := t.TempDir(), t.TempDir()
	data, bundle := newCertificate(t)
	write(t, certs, data)
	file := filepath.Join(dir, "sidecar.yaml")
	write(t, dir, map[string][]byte{"sidecar.yaml": []byte("domain: shop\n")})
	r := run(t, webhook.Config{CertDir: certs, Settings: file})
	r.eventuallyReady(t)
	review, err := os.ReadFile(filepath.Join("testdata", "reviews", "injected.json"))
	require.NoError(t, err)
	api := client(bundle)
	injects := func(text string) bool {
		answer, err := api.Do(request(t, http.MethodPost, "https://"+r.Addr()+"/mutate", strings.NewReader(string(review))))
		require.NoError(t, err)
		defer answer.Body.Close()
		var a struct{ Response struct{ Patch []byte } }
		decode(t, answer.Body, &a)
		return strings.Contains(string(a.Response.Patch), text)
	}
	require.True(t, injects(`"value":"shop"`))
	write(t, dir, map[string][]byte{"sidecar.yaml": []byte("domain: mall\n")})
	require.Eventually(t, func() bool { return injects(`"value":"mall"`) }, patience, 5*time.Millisecond)
	write(t, dir, map[string][]byte{"sidecar.yaml": []byte("domain: N O\nwhatever: 1\n")})
	require.Eventually(t, func() bool {
		_, metrics := r.get(t, "/metrics")
		return strings.Contains(metrics, `nearside_injector_reloads_total{file="settings",outcome="refused"} 1`)
	}, patience, 5*time.Millisecond)
	require.True(t, injects(`"value":"mall"`))
}

func TestListenRefuses(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string][]byte{"bad.yaml": []byte("domain: N O\nwhatever: 1\n"), "large.yaml": make([]byte, 1<<20+1)})
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	for _, c := range []struct {
		config webhook.Config
		says   []string
	}{
		{webhook.Config{Settings: filepath.Join(dir, "bad.yaml")}, []string{"domain", "whatever"}},
		{webhook.Config{Settings: filepath.Join(dir, "large.yaml")}, []string{"more than"}},
		{webhook.Config{Settings: filepath.Join(dir, "missing.yaml")}, []string{"no such file"}},
		{webhook.Config{Listen: taken.Addr().String()}, []string{"listen"}},
		{webhook.Config{Listen: "127.0.0.1:0", Admin: taken.Addr().String()}, []string{"admin"}},
	} {
		c.config.CertDir, c.config.Logger = dir, hclog.NewNullLogger()
		_, err := webhook.Listen(c.config)
		for _, text := range c.says {
			require.ErrorContains(t, err, text)
		}
	}
}

// Once it is told to end, it says that it is not ready, answers on for a while,
// and finishes what it was asked.
func TestGracefulEnd(t *testing.T) {
	server := new(clustertest.Server)
	require.NoError(t, server.Put(webhookPath, configuration(nil)))
	api, err := server.Client()
	require.NoError(t, err)
	r := run(t, webhook.Config{
		API: api, Namespace: "nearside", Service: "nearside-injector", Secret: secretAt.Name, Webhook: webhookAt.Name,
		Lives: webhook.DefaultLives(), Drain: 1500 * time.Millisecond,
	})
	r.eventuallyReady(t)
	s := &scene{t: t, client: api}
	caller := client(s.caBundle())
	review, err := os.ReadFile(filepath.Join("testdata", "reviews", "injected.json"))
	require.NoError(t, err)
	body, sending := io.Pipe()
	answered := make(chan error, 1)
	go func() {
		answer, err := caller.Do(request(t, http.MethodPost, "https://"+r.Addr()+"/mutate", body))
		if err == nil {
			err = answer.Body.Close()
		}
		answered <- err
	}()
	half := len(review) / 2
	_, err = sending.Write(review[:half])
	require.NoError(t, err)
	r.stop()
	require.Eventually(t, func() bool {
		code, why := r.get(t, "/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(why, "draining")
	}, patience, time.Millisecond)
	answer, err := caller.Do(request(t, http.MethodPost, "https://"+r.Addr()+"/mutate", strings.NewReader(string(review))))
	require.NoError(t, err, "an API server that has not heard of the end")
	require.NoError(t, answer.Body.Close())
	_, err = sending.Write(review[half:])
	require.NoError(t, err)
	require.NoError(t, sending.Close())
	require.NoError(t, <-answered)
	require.NoError(t, <-r.ended)
	_, err = net.Dial("tcp", r.Addr())
	require.Error(t, err)
}

// Nothing but reviews is served to whoever finds the port.
func TestOtherPaths(t *testing.T) {
	dir := t.TempDir()
	data, bundle := newCertificate(t)
	write(t, dir, data)
	r := run(t, webhook.Config{CertDir: dir})
	r.eventuallyReady(t)
	api := client(bundle)
	for path, want := range map[string]int{"GET /mutate": 405, "POST /": 404, "GET /metrics": 404} {
		method, path, _ := strings.Cut(path, " ")
		answer, err := api.Do(request(t, method, "https://"+r.Addr()+path, nil))
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Equal(t, want, answer.StatusCode)
	}
	code, _ := r.get(t, "/healthz")
	require.Equal(t, http.StatusOK, code)
	_, err := tls.Dial("tcp", r.Addr(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	require.Error(t, err)
}
