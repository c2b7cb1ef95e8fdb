package loader

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/nearside-cache/nearside/sidecar/loader/address"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

const (
	atLeastHeader = "X-Nearside-At-Least"
	maxRedirects  = 3
	maxDrain      = 4 << 10  // bytes of an unwanted body that are read so as to keep the connection
	maxHeader     = 64 << 10 // bytes of an answer's header
	idleTimeout   = time.Minute
)

// web asks over HTTP.
type web struct {
	at        address.Web
	policy    policy.Loader
	reading   reading
	header    http.Header
	host      string // instead of the URL's, empty for none
	limit     int
	dialer    *dialer
	transport *http.Transport
}

// newWeb expects a policy without faults and resolved headers.
func newWeb(p policy.Loader, headers map[string]string, d Deps) (*web, error) {
	at, err := address.ParseWeb(p.URL, p.Socket)
	if err != nil {
		return nil, err
	}
	w := &web{
		at: at, policy: p, header: make(http.Header), limit: p.MaxBody,
		reading: reading{field: splitField(p.VersionField), versioned: p.VersionHeader != "" || p.VersionField != ""},
		dialer:  newDialer(at.Socket, p.MaxTimeout, d.Dial),
	}
	w.header.Set("User-Agent", d.UserAgent)
	w.header.Set("Accept-Encoding", "identity") // what is kept is what the app's reader can use
	for name, value := range headers {
		if http.CanonicalHeaderKey(name) == "Host" {
			w.host = value
			continue
		}
		w.header.Set(name, value)
	}
	w.transport = &http.Transport{ // no proxy: the origin is near, or the policy names one
		DialContext:  w.dialer.dial,
		MaxIdleConns: p.Concurrency, MaxIdleConnsPerHost: p.Concurrency, MaxConnsPerHost: p.Concurrency,
		IdleConnTimeout: idleTimeout, DisableCompression: true, MaxResponseHeaderBytes: maxHeader,
		TLSHandshakeTimeout: p.MaxTimeout,
	}
	return w, nil
}

// splitField splits a path such as meta.version.
func splitField(path string) []string {
	if path == "" {
		return nil
	}
	return strings.Split(path, ".")
}

// fits implements asker.
func (w *web) fits(key string) error {
	_, err := w.at.Expand(key)
	return err
}

// ask implements asker.
func (w *web) ask(ctx context.Context, r Request) (Result, error) {
	request, conditional, err := w.request(ctx, r)
	if err != nil {
		return Result{}, err
	}
	response, err := w.follow(request)
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = response.Body.Close() }() // it was read, or is of no use
	a, err := w.read(response)
	if err != nil {
		return Result{}, err
	}
	return w.reading.result(a, r, conditional)
}

// follow sends the request, again where it is redirected to, and returns the last
// response. It stays with the origin: the headers may hold secrets, and another
// host is another trust.
func (w *web) follow(request *http.Request) (*http.Response, error) {
	for range maxRedirects + 1 {
		response, err := w.transport.RoundTrip(request)
		if err != nil {
			return nil, failed(err)
		}
		if !redirects(response.StatusCode) {
			return response, nil
		}
		drain(response)
		_ = response.Body.Close() // what fails, fails at the next use
		to, err := response.Location()
		if err != nil {
			return nil, fmt.Errorf("%w: it redirects to no readable place", ErrBadAnswer)
		}
		if to.Scheme != request.URL.Scheme || to.Host != request.URL.Host {
			return nil, fmt.Errorf("%w: it redirects to another host", ErrBadAnswer)
		}
		request = request.Clone(request.Context())
		request.URL = to
	}
	return nil, fmt.Errorf("%w: it redirects more than %d times", ErrBadAnswer, maxRedirects)
}

func redirects(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// drain reads a little of an unwanted body, so that the connection can be kept.
func drain(response *http.Response) {
	_, _ = io.CopyN(io.Discard, response.Body, maxDrain) // only so that the connection can be kept
}

// request makes the request. It is conditional only where what is resident is
// new enough: a 304 says nothing of a version that the sidecar does not have.
func (w *web) request(ctx context.Context, r Request) (_ *http.Request, conditional bool, err error) {
	u, err := w.at.Expand(r.Key)
	if err != nil {
		return nil, false, err
	}
	request := (&http.Request{Method: http.MethodGet, URL: u, Header: w.header.Clone(), Host: w.host}).WithContext(ctx)
	if u.User != nil {
		password, _ := u.User.Password()
		request.SetBasicAuth(u.User.Username(), password)
	}
	if r.AtLeast > 0 {
		request.Header.Set(atLeastHeader, strconv.FormatUint(r.AtLeast, 10))
	}
	conditional = r.ETag != "" && r.Version >= r.AtLeast
	if conditional {
		request.Header.Set("If-None-Match", r.ETag)
	}
	return request, conditional, nil
}

func (w *web) read(response *http.Response) (answer, error) {
	h := response.Header
	a := answer{status: response.StatusCode, etag: parseETag(h.Get("ETag")), after: parseAfter(h.Get("Retry-After"))}
	var err error
	if w.policy.VersionHeader != "" {
		a.version = h.Get(w.policy.VersionHeader)
	}
	if w.policy.TagsHeader != "" {
		if a.tags, err = parseTags(h.Values(w.policy.TagsHeader)); err != nil {
			return answer{}, err
		}
	}
	if w.policy.MaxAge {
		a.ttl = parseMaxAge(h.Values("Cache-Control"), h.Get("Age"))
	}
	if a.status != http.StatusOK {
		drain(response)
		return a, nil
	}
	if e := h.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return answer{}, fmt.Errorf("%w: it is encoded (Content-Encoding), which was not accepted", ErrBadAnswer)
	}
	a.body, err = readBody(response.Body, response.ContentLength, w.limit)
	if err != nil && !errors.Is(err, ErrTooLarge) {
		err = failed(err)
	}
	return a, err
}

// failed says that the connection failed. Only errors that are known to quote
// nothing of the answer keep their text: it may be a value.
func failed(err error) error {
	var op *net.OpError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &op), errors.As(err, &certificate), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrFailed, err)
	}
	return fmt.Errorf("%w: %w", ErrFailed, hiddenError{err, "the connection broke, or what came is not HTTP"})
}

// close implements asker.
func (w *web) close() {
	w.dialer.close()
	w.transport.CloseIdleConnections()
}
