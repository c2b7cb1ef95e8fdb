package loader_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/loader"
)

// A version comes out of JSON only where a decoder of the whole finds the same
// number, or none at all because what stands behind it is broken.
func FuzzFieldVersion(f *testing.F) {
	for _, s := range []string{
		`{"a":{"b":7}}`, `{"a":{"b":"7"}}`, `{"x":[{"a":1}],"a":{"c":null,"b":7}}`, `{"a":{"b":7`, `{"a":[7]}`, `{"a":{"b":1e3}}`,
		`{"a":{"b":18446744073709551616}}`, `[`, ``, `{"a":{}}`, `{"a":{"b":7},"a":{"b":8}}`, `{"a"}`, `{]`, `{"a":}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := loader.FieldVersion(body, []string{"a", "b"})
		if err != nil {
			require.ErrorIs(t, err, loader.ErrBadAnswer)
			return
		}
		require.NotZero(t, got)
		var whole, inner map[string]json.RawMessage
		if strings.Contains(string(body), `\`) || strings.Count(string(body), `"a"`) != 1 || strings.Count(string(body), `"b"`) != 1 {
			return // it may be there more than once, spelled otherwise: the first counts
		}
		if json.Unmarshal(body, &whole) != nil || json.Unmarshal(whole["a"], &inner) != nil {
			return // broken behind it
		}
		if raw, ok := inner["b"]; ok {
			text := strings.TrimSpace(strings.Trim(string(raw), `"`))
			var v uint64
			if json.Unmarshal([]byte(text), &v) == nil {
				require.Equal(t, v, got)
			}
		}
	})
}

func FuzzHeaders(f *testing.F) {
	f.Add("max-age=60, no-cache", "5", "a, b c", `W/"x"`, "120")
	f.Add(`private="x, max-age=7"`, "-1", ",,,", "\x00", "Fri, 31 Dec 1999 23:59:59 GMT")
	f.Add("max-age=99999999999999999999", "99999999999999999999", strings.Repeat("t,", 70), strings.Repeat("e", 600), "99999999999999999999")
	f.Fuzz(func(t *testing.T, control, age, tags, etag, after string) {
		ttl := loader.ParseMaxAge([]string{control}, age)
		require.GreaterOrEqual(t, ttl, time.Duration(0))
		require.LessOrEqual(t, ttl, (1<<31-1)*time.Second)
		if strings.Contains(strings.ToLower(control), "max-age=") && ttl == 0 {
			require.NotRegexp(t, `(?i)(^|,)\s*max-age=`, control, "what says max-age has a TTL")
		}
		all, err := loader.ParseTags([]string{tags})
		if err != nil {
			require.ErrorIs(t, err, loader.ErrBadAnswer)
		}
		require.LessOrEqual(t, len(all), 64)
		for _, tag := range all {
			require.NotEmpty(t, tag)
			require.False(t, strings.ContainsAny(tag, ", \t\r\n"))
		}
		e := loader.ParseETag(etag)
		require.LessOrEqual(t, len(e), 512)
		require.False(t, strings.ContainsFunc(e, func(c rune) bool { return c < ' ' || c > '~' }))
		pause := loader.ParseAfter(after)
		require.GreaterOrEqual(t, pause, time.Duration(0))
		require.LessOrEqual(t, pause, time.Minute)
	})
}

// Whatever comes as a reply is a result that keeps its promises, or an error of
// this package.
func FuzzReply(f *testing.F) {
	f.Add("Nearside-Version", "7", "200", []byte(`{"v":7}`), false)
	f.Add("nearside-ttl", "1500", "304", []byte(nil), true)
	f.Add("Nats-Service-Error-Code", "500", "", []byte("x"), false)
	f.Fuzz(func(t *testing.T, name, value, status string, body []byte, field bool) {
		header := map[string][]string{name: {value}, "Empty": {}}
		if status != "" {
			header["Nearside-Status"] = []string{status}
		}
		path := ""
		if field {
			path = "v"
		}
		r := loader.Request{Key: "a", ETag: "e", Version: 3}
		got, err := loader.JudgeReply(bus.Reply{Header: header, Body: body}, path, r)
		if err != nil {
			require.True(t, is(err, loader.ErrBadAnswer, loader.ErrFailed), err.Error())
			require.Equal(t, loader.Result{}, got)
			return
		}
		require.False(t, got.Negative && got.NotModified)
		require.GreaterOrEqual(t, got.TTL, time.Duration(0))
		if got.Negative || got.NotModified {
			require.Empty(t, got.Value)
		} else {
			require.Equal(t, body, got.Value)
			require.True(t, !field || got.Version > 0)
		}
	})
}

func is(err error, those ...error) bool {
	for _, target := range those {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
