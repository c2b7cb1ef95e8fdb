package loader_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/membus"
	"github.com/nearside-cache/nearside/sidecar/loader"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

const subject = "cache.load.{namespace}.{rest}"

// asked runs f in virtual time with an origin that answers on a subject.
func asked(t *testing.T, p policy.Loader, respond membus.Responder, f func(t *testing.T, o *loader.Origin, b *membus.Bus)) {
	synctest.Test(t, func(t *testing.T) {
		s, err := membus.NewStream("test")
		require.NoError(t, err)
		s.Respond(respond)
		b := s.Attach(membus.Options{})
		t.Cleanup(func() { require.NoError(t, b.Close()) })
		p.Subject = subject
		f(t, open(t, p, loader.Deps{Requester: b, UserAgent: "nearside/1.2", MaxValue: 100}), b)
	})
}

func replies(body string, headers ...string) membus.Responder {
	return func(context.Context, string, map[string][]string, []byte) (bus.Reply, error) {
		header := make(map[string][]string)
		for i := 0; i < len(headers); i += 2 {
			header[headers[i]] = append(header[headers[i]], headers[i+1])
		}
		return bus.Reply{Header: header, Body: []byte(body)}, nil
	}
}

func TestReplies(t *testing.T) {
	resident := loader.Request{ETag: "e6", Version: 6}
	for name, c := range map[string]struct {
		policy  policy.Loader
		request loader.Request
		origin  membus.Responder
		want    loader.Result
		err     error
	}{
		"a body alone": {origin: replies("lamp"), want: loader.Result{Value: []byte("lamp")}},
		"everything": {
			origin: replies("lamp", "Nearside-Status", "200", "Nearside-Version", "7", "Nearside-ETag", "e7", "Nearside-TTL", "1500", "Nearside-Tags", "a, b"),
			want:   loader.Result{Value: []byte("lamp"), Version: 7, ETag: "e7", TTL: 1500 * time.Millisecond, Tags: []string{"a", "b"}},
		},
		"names in another case":  {origin: replies("lamp", "nearside-version", "7"), want: loader.Result{Value: []byte("lamp"), Version: 7}},
		"a version in the body":  {policy: policy.Loader{VersionField: "v"}, origin: replies(`{"v":7}`), want: loader.Result{Value: []byte(`{"v":7}`), Version: 7}},
		"a TTL of 0":             {origin: replies("", "Nearside-TTL", "0"), want: loader.Result{Value: []byte{}, TTL: time.Millisecond}},
		"a TTL for ever":         {origin: replies("", "Nearside-TTL", "18446744073709551615"), want: loader.Result{Value: []byte{}, TTL: (1<<31 - 1) * time.Second}},
		"none":                   {origin: replies("gone", "Nearside-Status", "404"), want: loader.Result{Negative: true}},
		"none any more":          {origin: replies("", "Nearside-Status", "410", "Nearside-Version", "8"), want: loader.Result{Negative: true, Version: 8}},
		"nothing new":            {request: resident, origin: replies("", "Nearside-Status", "304"), want: loader.Result{NotModified: true, Version: 6, ETag: "e6"}},
		"nothing new of nothing": {origin: replies("", "Nearside-Status", "304"), err: loader.ErrBadAnswer},
		"broken":                 {origin: replies("", "Nearside-Status", "503"), err: loader.ErrFailed},
		"a service that fails":   {origin: replies("", "Nats-Service-Error-Code", "500", "Nats-Service-Error", "oops"), err: loader.ErrFailed},
		"a service without it":   {origin: replies("", "Nats-Service-Error-Code", "404"), want: loader.Result{Negative: true}},
		"no status":              {origin: replies("", "Nearside-Status", "gone"), err: loader.ErrBadAnswer},
		"no version":             {origin: replies("", "Nearside-Version", "seven"), err: loader.ErrBadAnswer},
		"no TTL":                 {origin: replies("", "Nearside-TTL", "1s"), err: loader.ErrBadAnswer},
		"too large":              {origin: replies(strings.Repeat("x", 101)), err: loader.ErrTooLarge},
		"nobody":                 {err: bus.ErrNoResponders},
	} {
		t.Run(name, func(t *testing.T) {
			asked(t, c.policy, c.origin, func(t *testing.T, o *loader.Origin, _ *membus.Bus) {
				got, err := load(t, o, c.request)
				require.ErrorIs(t, err, c.err)
				require.Equal(t, c.want, got)
			})
		})
	}
}

func TestRequestOnASubject(t *testing.T) {
	type request struct {
		subject string
		header  map[string][]string
		body    string
	}
	var got request
	respond := func(_ context.Context, subject string, header map[string][]string, body []byte) (bus.Reply, error) {
		got = request{subject, header, string(body)}
		return bus.Reply{}, nil
	}
	asked(t, policy.Loader{Headers: map[string]string{"X-A": "b"}}, respond, func(t *testing.T, o *loader.Origin, _ *membus.Bus) {
		_, err := load(t, o, loader.Request{Key: "product:4 2.*>\r\n", AtLeast: 6, ETag: "e6", Version: 6})
		require.NoError(t, err)
		require.Equal(t, request{
			"cache.load.product.4%202%2E%2A%3E%0D%0A",
			map[string][]string{
				"Nearside-Key": {"product%3A4%202%2E%2A%3E%0D%0A"}, "Nearside-At-Least": {"6"}, "Nearside-ETag": {"e6"},
				"User-Agent": {"nearside/1.2"}, "X-A": {"b"},
			},
			"product:4 2.*>\r\n",
		}, got)
		_, err = load(t, o, loader.Request{AtLeast: 7, ETag: "e6", Version: 6})
		require.NoError(t, err)
		require.NotContains(t, got.header, "Nearside-ETag", "a 304 to what is too old would bring nothing")
		_, err = load(t, o, loader.Request{Key: "product:"})
		require.ErrorIs(t, err, loader.ErrBadKey)
	})
}

// Errors of the bus name the subject, which has the key in it.
func TestSubjectStaysSecret(t *testing.T) {
	cause := errors.New("permissions violation")
	respond := func(_ context.Context, subject string, _ map[string][]string, _ []byte) (bus.Reply, error) {
		return bus.Reply{}, errors.Join(errors.New("cannot ask on "+subject), cause)
	}
	asked(t, policy.Loader{Tries: 1}, respond, func(t *testing.T, o *loader.Origin, _ *membus.Bus) {
		_, err := load(t, o, loader.Request{Key: "product:hunter2"})
		require.ErrorIs(t, err, loader.ErrFailed)
		require.ErrorIs(t, err, cause)
		require.ErrorContains(t, err, "load product from nats cache.load.{namespace}.{rest}: the origin is unavailable: it fails: cannot ask on the subject")
		require.NotContains(t, err.Error(), "hunter2")
	})
}

// Breaker, timeouts and retries are those of any origin.
func TestSubjectOutage(t *testing.T) {
	p := policy.Loader{Tries: 2, BreakerFailures: 4}
	asked(t, p, replies("lamp"), func(t *testing.T, o *loader.Origin, b *membus.Bus) {
		b.Disconnect()
		for range 2 {
			_, err := load(t, o, loader.Request{})
			require.ErrorIs(t, err, loader.ErrFailed)
		}
		b.Reconnect()
		_, err := load(t, o, loader.Request{})
		require.ErrorIs(t, err, loader.ErrBreakerOpen)
		time.Sleep(6 * time.Second)
		_, err = load(t, o, loader.Request{})
		require.NoError(t, err)
	})
	hang := func(ctx context.Context, _ string, _ map[string][]string, _ []byte) (bus.Reply, error) {
		<-ctx.Done()
		return bus.Reply{}, ctx.Err()
	}
	asked(t, policy.Loader{MaxTimeout: time.Second}, hang, func(t *testing.T, o *loader.Origin, _ *membus.Bus) {
		began := time.Now()
		_, err := load(t, o, loader.Request{})
		require.ErrorIs(t, err, loader.ErrTimeout)
		require.Less(t, time.Since(began), 3200*time.Millisecond)
	})
}

func TestSubjectNeedsABus(t *testing.T) {
	_, err := loader.New("product", policy.Loader{Subject: subject}, loader.Deps{})
	require.ErrorContains(t, err, "this sidecar has no bus that can ask")
}
