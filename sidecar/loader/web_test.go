package loader_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/loader"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

func TestAnswers(t *testing.T) {
	versioned := policy.Loader{VersionHeader: "X-Version", TagsHeader: "Cache-Tag"}
	inBody := policy.Loader{VersionField: "meta.version"}
	resident := loader.Request{ETag: `"6"`, Version: 6}
	for name, c := range map[string]struct {
		policy  policy.Loader
		request loader.Request
		origin  http.HandlerFunc
		want    loader.Result
		err     error
	}{
		"a value":        {origin: answers(200, "lamp"), want: loader.Result{Value: []byte("lamp")}},
		"an empty value": {origin: answers(200, ""), want: loader.Result{Value: []byte{}}},
		"everything": {versioned, resident, answers(200, "lamp", "X-Version", "7", "ETag", `"7"`, "Cache-Tag", "a, b c", "Cache-Tag", "d", "Cache-Control", "max-age=5"),
			loader.Result{Value: []byte("lamp"), Version: 7, ETag: `"7"`, Tags: []string{"a", "b", "c", "d"}}, nil},
		"none":                        {origin: answers(404, "no such thing"), want: loader.Result{Negative: true}},
		"none any more":               {versioned, resident, answers(410, "", "X-Version", "9"), loader.Result{Negative: true, Version: 9}, nil},
		"nothing new":                 {versioned, resident, answers(304, ""), loader.Result{NotModified: true, Version: 6, ETag: `"6"`}, nil},
		"nothing new but the version": {versioned, resident, answers(304, "", "X-Version", "7", "ETag", `"7"`), loader.Result{NotModified: true, Version: 7, ETag: `"7"`}, nil},
		"nothing new of nothing":      {origin: answers(304, ""), err: loader.ErrBadAnswer},
		"a version in the body":       {policy: inBody, origin: answers(200, `{"a":[{"meta":{"version":1}}],"meta":{"x":{},"version":7},"z`), want: loader.Result{Value: []byte(`{"a":[{"meta":{"version":1}}],"meta":{"x":{},"version":7},"z`), Version: 7}},
		"a version as text":           {policy: inBody, origin: answers(200, `{"meta":{"version":"18446744073709551615"}}`), want: loader.Result{Value: []byte(`{"meta":{"version":"18446744073709551615"}}`), Version: 1<<64 - 1}},
		"no version in a 404":         {policy: inBody, origin: answers(404, `{}`), want: loader.Result{Negative: true}},
		"no version in the header":    {policy: versioned, origin: answers(200, "lamp"), err: loader.ErrBadAnswer},
		"version 0":                   {policy: versioned, origin: answers(200, "lamp", "X-Version", "0"), err: loader.ErrBadAnswer},
		"a negative version":          {policy: versioned, origin: answers(200, "lamp", "X-Version", "-1"), err: loader.ErrBadAnswer},
		"a version too large":         {policy: versioned, origin: answers(200, "lamp", "X-Version", "18446744073709551616"), err: loader.ErrBadAnswer},
		"no version in the body":      {policy: inBody, origin: answers(200, `{"meta":{}}`), err: loader.ErrBadAnswer},
		"a fraction for a version":    {policy: inBody, origin: answers(200, `{"meta":{"version":7.5}}`), err: loader.ErrBadAnswer},
		"an object for a version":     {policy: inBody, origin: answers(200, `{"meta":{"version":{}}}`), err: loader.ErrBadAnswer},
		"a list":                      {policy: inBody, origin: answers(200, `[]`), err: loader.ErrBadAnswer},
		"no JSON":                     {policy: inBody, origin: answers(200, `lamp`), err: loader.ErrBadAnswer},
		"nesting":                     {policy: inBody, origin: answers(200, `{"a":`+strings.Repeat("[", 5000)), err: loader.ErrBadAnswer},
		"too many tags":               {policy: versioned, origin: answers(200, "", "X-Version", "1", "Cache-Tag", strings.Repeat("t ", 65)), err: loader.ErrBadAnswer},
		"an ETag too long is none":    {origin: answers(200, "", "ETag", strings.Repeat("e", 513)), want: loader.Result{Value: []byte{}}},
		"forbidden":                   {origin: answers(403, "lamp"), err: loader.ErrBadAnswer},
		"partial":                     {origin: answers(206, "lamp"), err: loader.ErrBadAnswer},
		"no content":                  {origin: answers(204, ""), err: loader.ErrBadAnswer},
		"encoded":                     {origin: answers(200, "lamp", "Content-Encoding", "gzip"), err: loader.ErrBadAnswer},
		"broken":                      {origin: answers(500, "lamp"), err: loader.ErrFailed},
		"busy":                        {origin: answers(429, "lamp"), err: loader.ErrFailed},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, c.policy, c.origin, func(t *testing.T, o *loader.Origin, _ *pipes) {
				got, err := load(t, o, c.request)
				require.ErrorIs(t, err, c.err)
				require.Equal(t, c.want, got)
				require.Equal(t, errors.Is(c.err, loader.ErrFailed), errors.Is(err, loader.ErrUnavailable))
			})
		})
	}
}

func TestTTLOfTheOrigin(t *testing.T) {
	for control, want := range map[string]time.Duration{
		"":                                0,
		"public":                          0,
		"max-age=60":                      50 * time.Second,
		`Public, MAX-AGE="60"`:            50 * time.Second,
		"max-age=60, max-age=30":          20 * time.Second,
		"s-maxage=5, max-age=60":          50 * time.Second,
		"max-age=0":                       time.Millisecond,
		"max-age=5":                       time.Millisecond, // it is 10 s old
		"no-store":                        time.Millisecond,
		"max-age=60, no-cache":            time.Millisecond,
		"max-age=":                        time.Millisecond,
		"max-age=-1":                      time.Millisecond,
		"max-age=99999999999999999999999": (1<<31 - 11) * time.Second,
	} {
		for _, asked := range []bool{true, false} {
			virtual(t, policy.Loader{MaxAge: asked}, answers(200, "", "Cache-Control", control, "Age", "10"), func(t *testing.T, o *loader.Origin, _ *pipes) {
				got, err := load(t, o, loader.Request{})
				require.NoError(t, err)
				if !asked {
					require.Zero(t, got.TTL, "it was not asked for")
				} else {
					require.Equal(t, want, got.TTL, control)
				}
			})
		}
	}
}

func TestRequestOverHTTP(t *testing.T) {
	requests := make(chan *http.Request, 1)
	origin := func(w http.ResponseWriter, r *http.Request) {
		requests <- r
		w.WriteHeader(http.StatusNotFound)
	}
	p := policy.Loader{URL: "http://me:hunter2@app:8080/cache/{key}?in={namespace}", Headers: map[string]string{"X-A": "${A}!", "Host": "shop"}}
	synctest.Test(t, func(t *testing.T) {
		pipes := serve(t, origin)
		o := open(t, p, loader.Deps{Dial: pipes.dial, UserAgent: "nearside/1.2", Lookup: func(string) (string, bool) { return "b", true }})
		_, err := load(t, o, loader.Request{Key: "product:a b", ETag: `"6"`, Version: 6})
		require.NoError(t, err)
		r := <-requests
		require.Equal(t, "GET", r.Method)
		require.Equal(t, "/cache/product:a%20b?in=product", r.RequestURI)
		require.Equal(t, "shop", r.Host)
		require.Equal(t, http.Header{
			"User-Agent": {"nearside/1.2"}, "Accept-Encoding": {"identity"}, "X-A": {"b!"}, "If-None-Match": {`"6"`},
			"Authorization": {"Basic bWU6aHVudGVyMg=="},
		}, r.Header)

		_, err = load(t, o, loader.Request{ETag: `"6"`, Version: 6, AtLeast: 6})
		require.NoError(t, err)
		r = <-requests
		require.Equal(t, "6", r.Header.Get("X-Nearside-At-Least"))
		require.Equal(t, `"6"`, r.Header.Get("If-None-Match"))

		_, err = load(t, o, loader.Request{ETag: `"6"`, Version: 6, AtLeast: 7})
		require.NoError(t, err)
		r = <-requests
		require.Equal(t, "7", r.Header.Get("X-Nearside-At-Least"))
		require.Empty(t, r.Header.Get("If-None-Match"), "a 304 to what is too old would bring nothing")
		require.EqualValues(t, 1, pipes.dials.Load(), "the connection is kept")
	})
}

func TestRedirects(t *testing.T) {
	origin := func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/cache/here":
			http.Redirect(w, r, "/there", http.StatusFound)
		case "/cache/elsewhere":
			http.Redirect(w, r, "http://evil/?key=hunter2", http.StatusFound)
		case "/cache/scheme":
			http.Redirect(w, r, "https://app:8080/there", http.StatusFound)
		case "/cache/loop":
			http.Redirect(w, r, "/cache/loop", http.StatusTemporaryRedirect)
		case "/cache/nowhere":
			w.Header().Set("Location", "http://hunter2:%zz/")
			w.WriteHeader(http.StatusMovedPermanently)
		default:
			_, _ = io.WriteString(w, r.Header.Get("Authorization"))
		}
	}
	virtual(t, policy.Loader{Headers: map[string]string{"Authorization": "secret"}}, origin, func(t *testing.T, o *loader.Origin, net *pipes) {
		got, err := load(t, o, loader.Request{Key: "product:here"})
		require.NoError(t, err)
		require.Equal(t, "secret", string(got.Value))
		for key, why := range map[string]string{"elsewhere": "to another host", "scheme": "to another host", "loop": "more than 3 times", "nowhere": "no readable place"} {
			before := o.Counts().Requests
			_, err := load(t, o, loader.Request{Key: "product:" + key})
			require.ErrorIs(t, err, loader.ErrBadAnswer)
			require.ErrorContains(t, err, why)
			require.NotContains(t, err.Error(), "hunter2")
			require.EqualValues(t, 1, o.Counts().Requests-before, "trying again does not help")
		}
		require.EqualValues(t, 1, net.dials.Load(), "nobody else was asked")
	})
}

// What an origin announces is no reason to allocate, and what it sends beyond the
// limit is not read.
func TestBodyOverTheLimit(t *testing.T) {
	const limit = 100 << 10
	huge := func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/cache/announced":
			w.Header().Set("Content-Length", "1000000000000")
			_, _ = io.WriteString(w, "x")
		case "/cache/fits":
			_, _ = w.Write(make([]byte, limit))
		case "/cache/stingy": // announces less than the limit, and sends nothing
			w.Header().Set("Content-Length", "100000")
		default:
			for {
				if _, err := w.Write(make([]byte, 10<<10)); err != nil {
					return
				}
			}
		}
	}
	virtual(t, policy.Loader{MaxBody: limit, Tries: 1}, huge, func(t *testing.T, o *loader.Origin, _ *pipes) {
		_, err := load(t, o, loader.Request{Key: "product:announced"})
		require.ErrorIs(t, err, loader.ErrTooLarge)
		require.ErrorContains(t, err, "1000000000000 bytes, at most 102400")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = load(t, o, loader.Request{Key: "product:endless"})
		runtime.ReadMemStats(&after)
		require.ErrorIs(t, err, loader.ErrTooLarge)
		require.NotErrorIs(t, err, loader.ErrUnavailable)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(10*limit))
		got, err := load(t, o, loader.Request{Key: "product:fits"})
		require.NoError(t, err)
		require.Len(t, got.Value, limit)
		_, err = load(t, o, loader.Request{Key: "product:stingy"})
		require.ErrorIs(t, err, loader.ErrFailed, "a body that ends early is no value")
	})
	synctest.Test(t, func(t *testing.T) {
		pipes := serve(t, huge)
		o := open(t, policy.Loader{URL: template, MaxBody: 2 * limit}, loader.Deps{Dial: pipes.dial, MaxValue: limit - 1})
		_, err := load(t, o, loader.Request{Key: "product:fits"})
		require.ErrorIs(t, err, loader.ErrTooLarge, "what cannot be stored is not read")
	})
}

// Announcing a long body is no reason to allocate either, where it would fit.
func TestAnnouncedBodyIsNotAllocated(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got, err := loader.ReadBody(strings.NewReader("lamp"), 256<<20, 512<<20)
	runtime.ReadMemStats(&after)
	require.NoError(t, err)
	require.Equal(t, "lamp", string(got))
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.sock")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Host, r.RequestURI)
	}))
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	for want, p := range map[string]policy.Loader{
		"localhost/cache/42": {URL: "unix://" + path + ":/cache/{rest}"},
		"app:8080/cache/42":  {URL: template, Socket: path},
	} {
		o := open(t, p, loader.Deps{})
		got, err := load(t, o, loader.Request{})
		require.NoError(t, err)
		require.Equal(t, want, string(got.Value))
	}
}

// Nothing that may be secret gets into an error or a log: not the headers, not
// the user and the query of the URL, not the key, not the value.
func TestSecretsStaySecret(t *testing.T) {
	const secret = "hunter2"
	log := new(strings.Builder)
	logger := hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Trace})
	p := policy.Loader{
		URL: "http://u:" + secret + "@app:8080/" + secret + "/{rest}?token=" + secret, VersionField: "v",
		Headers: map[string]string{"Authorization": "Bearer ${TOKEN}"}, BreakerFailures: 1, Tries: 1, HardTimeout: time.Second,
	}
	deps := loader.Deps{Logger: logger, Lookup: func(string) (string, bool) { return secret, true }}
	// Each answers as it is asked, over the connection alone.
	for name, serve := range map[string]func(net.Conn){
		"closes":     func(net.Conn) {},
		"no HTTP":    func(c net.Conn) { fmt.Fprintf(c, "%s\r\n\r\n", secret) },
		"bad status": func(c net.Conn) { fmt.Fprintf(c, "HTTP/1.1 %s\r\n\r\n", secret) },
		"bad header": func(c net.Conn) { fmt.Fprintf(c, "HTTP/1.1 200 OK\r\n%s\r\n\r\n", secret) },
		"bad length": func(c net.Conn) { fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n", secret) },
		"bad JSON":   func(c net.Conn) { fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n%s", secret) },
		"bad version": func(c net.Conn) {
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"v\":\"%s\"}", secret)
		},
		"redirects": func(c net.Conn) {
			fmt.Fprintf(c, "HTTP/1.1 302 Found\r\nLocation: http://%s/\r\nContent-Length: 0\r\n\r\n", secret)
		},
		"fails": func(c net.Conn) { fmt.Fprintf(c, "HTTP/1.1 500 %s\r\nContent-Length: 0\r\n\r\n", secret) },
		"hangs": func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := deps
				d.Dial = func(context.Context, string, string) (net.Conn, error) {
					near, far := net.Pipe()
					go func() {
						defer far.Close()
						if _, err := http.ReadRequest(bufio.NewReader(far)); err == nil {
							serve(far)
						}
					}()
					return near, nil
				}
				o := open(t, p, d)
				_, err := load(t, o, loader.Request{Key: "product:" + secret})
				require.Error(t, err)
				require.NotContains(t, err.Error(), secret)
				require.ErrorContains(t, err, "load product from http://app:8080: ")
				require.NotContains(t, fmt.Sprintf("%+v", o.State()), secret)
			})
		})
	}
	require.Contains(t, log.String(), "left alone")
	require.NotContains(t, log.String(), secret)

	o, err := loader.New("product", policy.Loader{URL: template, Headers: map[string]string{"A": "${TOKEN}${NONE}"}}, loader.Deps{
		Lookup: func(name string) (string, bool) { return secret, name == "TOKEN" },
	})
	require.Nil(t, o)
	require.ErrorContains(t, err, "environment variable NONE, which is not set")
	require.NotContains(t, err.Error(), secret)
}

// What went wrong on the way is told where it can be.
func TestConnectionErrorsAreTold(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l.Close()
	o := open(t, policy.Loader{URL: "http://" + l.Addr().String() + "/{rest}", Tries: 1}, loader.Deps{})
	_, err = load(t, o, loader.Request{})
	require.ErrorIs(t, err, loader.ErrFailed)
	require.ErrorContains(t, err, "connection refused")

	s := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	s.Config.ErrorLog = hclog.NewNullLogger().StandardLogger(nil)
	o = open(t, policy.Loader{URL: s.URL + "/{rest}", Tries: 1}, loader.Deps{})
	_, err = load(t, o, loader.Request{})
	require.ErrorIs(t, err, loader.ErrFailed)
	require.ErrorContains(t, err, "certificate")
	var certificate *tls.CertificateVerificationError
	require.ErrorAs(t, err, &certificate)
}

func TestKeyWithoutAddress(t *testing.T) {
	virtual(t, policy.Loader{}, answers(200, ""), func(t *testing.T, o *loader.Origin, net *pipes) {
		_, err := load(t, o, loader.Request{Key: "product:../admin"})
		require.ErrorIs(t, err, loader.ErrBadKey)
		require.NotContains(t, err.Error(), "admin")
		require.Zero(t, net.dials.Load())
		require.Zero(t, o.Counts().Requests)
	})
}
