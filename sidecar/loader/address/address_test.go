package address_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/loader/address"
)

func TestWebExpands(t *testing.T) {
	for _, c := range []struct{ template, key, want string }{
		{"http://app:8080/cache/{key}", "product:42", "http://app:8080/cache/product:42"},
		{"http://app:8080/cache/{key}", "product:a b/c?d#e%f", "http://app:8080/cache/product:a%20b%2Fc%3Fd%23e%25f"},
		{"http://app/{namespace}/{rest}", "product:42:en", "http://app/product/42:en"},
		{"http://app/{namespace}/{rest}", "product", "http://app/default/product"},
		{"http://app/{namespace}/{rest}", "default:product", "http://app/default/default:product"},
		{"http://app/{namespace}/{rest}", ":product", "http://app/default/:product"},
		{"http://app/{1}/{2}.json", "product:42", "http://app/product/42.json"},
		{"http://app/p/{3}/{2}", "product:42:en", "http://app/p/en/42"},
		{"http://app/p?id={2}&a=b", "product:4 2&c=d", "http://app/p?id=4+2%26c%3Dd&a=b"},
		{"https://u:p@app/%7B/{rest}/", "p:1", "https://u:p@app/%7B/1/"},
		{"http://app/p-{rest}", "p:..", "http://app/p-.."},
		{"http://[::1]:80/{rest}", "p:\x00\xff", "http://[::1]:80/%00%FF"},
		{"unix:///run/app.sock:/cache/{key}", "a:1", "http://localhost/cache/a:1"},
	} {
		w, err := address.ParseWeb(c.template, "")
		require.NoError(t, err, c.template)
		u, err := w.Expand(c.key)
		require.NoError(t, err, c.template)
		require.Equal(t, c.want, u.String(), c.template)
	}
}

func TestWebRefusesKeys(t *testing.T) {
	for _, c := range []struct{ template, key string }{
		{"http://app/{rest}", "p:"},
		{"http://app/{rest}", "p:."},
		{"http://app/{rest}", "p:.."},
		{"http://app/{rest}", "p:../admin"},
		{"http://app/{rest}", `p:a\..\admin`},
		{"http://app/.{rest}/x", "p:."},
		{"http://app/%2E{rest}/x", "p:."},
		{"http://app/{2}/{3}", "p:1"},
		{"http://app/{2}", "p:1:2"}, // would be loaded from where p:1 is
		{"http://app/{2}", ":1"},    // default:1 is
		{"http://app/{2}", "p"},
		{"http://app/{key}", strings.Repeat("k", 9000)},
	} {
		w, err := address.ParseWeb(c.template, "")
		require.NoError(t, err, c.template)
		_, err = w.Expand(c.key)
		require.ErrorIs(t, err, address.ErrBadKey, "%s %.20s", c.template, c.key)
	}
}

func TestWebRefusesTemplates(t *testing.T) {
	for text, why := range map[string]string{
		"":                              "want http://",
		"app/{key}":                     "want http://",
		"ftp://app/{key}":               "want http://",
		"http://app":                    "want http://",
		"http:///{key}":                 "host",
		"http://{key}/x":                "host",
		"http://a?b/{key}":              "host",
		"http://app/x":                  "names no part of the key",
		"http://app/{1}{namespace}/{3}": "but not {2}",
		"http://app/{key":               "without its }",
		"http://app/key}":               "without its {",
		"http://app/{id}":               "{id} is no place",
		"http://app/{0}":                "{0} is no place",
		"http://app/{65}":               "{65} is no place",
		"http://app/{+1}":               "{+1} is no place",
		"http://app/a b/{key}":          "must be escaped",
		"http://app/{key}#x":            "must be escaped",
		"http://app/%zz{key}":           "escapes nothing",
		"http://app/../{key}":           ". or ..",
		"http://app/%2e%2E/{key}":       ". or ..",
		"unix://run/app.sock:/{key}":    "unix:///run/app.sock:/cache/{key}",
		"unix:///run/app.sock":          "unix:///run/app.sock:/cache/{key}",
	} {
		_, err := address.ParseWeb(text, "")
		require.ErrorIs(t, err, address.ErrBadTemplate, text)
		require.ErrorContains(t, err, why, text)
	}
	_, err := address.ParseWeb("http://app/{key}", "run/app.sock")
	require.ErrorContains(t, err, "must begin with a /")
	_, err = address.ParseWeb("http://u:hunter2@a b/{key}", "")
	require.NotContains(t, err.Error(), "hunter2")
}

func TestWebString(t *testing.T) {
	w, err := address.ParseWeb("https://u:hunter2@app:8080/{key}?token=hunter2", "")
	require.NoError(t, err)
	require.Equal(t, "https://app:8080", w.String())
	w, err = address.ParseWeb("http://app/{rest}", "/run/app.sock")
	require.NoError(t, err)
	require.Equal(t, "unix:///run/app.sock", w.String())
	require.False(t, w.NamesNamespace())
}

func TestSubject(t *testing.T) {
	for _, c := range []struct{ template, key, want string }{
		{"cache.load.{namespace}.{rest}", "product:42:en", "cache.load.product.42%3Aen"},
		{"cache.{1}.p-{2}", "a:b.c", "cache.a.p-b%2Ec"},
		{"cache.{key}", "a:*", "cache.a%3A%2A"},
		{"cache.{key}", "a:> \r\n", "cache.a%3A%3E%20%0D%0A"},
	} {
		s, err := address.ParseSubject(c.template)
		require.NoError(t, err, c.template)
		got, err := s.Expand(c.key)
		require.NoError(t, err, c.template)
		require.Equal(t, c.want, got)
		require.Equal(t, "nats "+c.template, s.String())
		require.True(t, s.NamesNamespace())
	}
	s, err := address.ParseSubject("cache.{rest}")
	require.NoError(t, err)
	for _, key := range []string{"p:", "p:" + strings.Repeat(".", 1001)} {
		_, err = s.Expand(key)
		require.ErrorIs(t, err, address.ErrBadKey)
	}
	for text, why := range map[string]string{
		"":                   "empty token",
		"cache..{key}":       "empty token",
		"cache.{key}.":       "empty token",
		"cache.*.{key}":      "no wildcards",
		"cache.{key}.>":      "no wildcards",
		"cache.a b.{key}":    "no wildcards",
		"cache.é.{key}":      "no wildcards",
		"{key}.x":            "first token",
		"$JS.API.{key}":      "first token",
		"_INBOX.{key}":       "first token",
		"nearside.a.ev.{1}":  "first token",
		"nearside-ask.{key}": "first token",
		"cache.x":            "names no part of the key",
		"cache.{key":         "without its }",
	} {
		_, err := address.ParseSubject(text)
		require.ErrorIs(t, err, address.ErrBadTemplate, text)
		require.ErrorContains(t, err, why, text)
	}
}

// No key can leave its segment of the path or its value of the query, and no two
// keys of a namespace have one address.
func FuzzWeb(f *testing.F) {
	for _, s := range []string{"product:42", "p:../x", "p:a/b", "p:%2e%2e", ":x", "x", "default:x", "p:?a=b#c", "p:\x00;", "p:a:b"} {
		f.Add(s, "product:4")
	}
	webs := make([]address.Web, 0, 3)
	for _, text := range []string{"http://app/c/{key}/x", "http://app/c/{rest}/x", "http://app/c/{2}/x?q={3}&r=s"} {
		w, err := address.ParseWeb(text, "")
		require.NoError(f, err)
		webs = append(webs, w)
	}
	f.Fuzz(func(t *testing.T, one, other string) {
		for _, w := range webs {
			u, err := w.Expand(one)
			if err != nil {
				require.ErrorIs(t, err, address.ErrBadKey)
				continue
			}
			again, err := url.Parse(u.String())
			require.NoError(t, err)
			require.Equal(t, u.EscapedPath(), again.EscapedPath())
			require.Equal(t, "app", again.Host)
			require.Empty(t, again.Fragment)
			segments := strings.Split(again.EscapedPath(), "/")
			require.Len(t, segments, 4)
			require.NotContains(t, []string{"", ".", ".."}, segments[2])
			value, err := url.PathUnescape(segments[2])
			require.NoError(t, err)
			require.Contains(t, one, value)
			if again.RawQuery != "" {
				q, err := url.ParseQuery(again.RawQuery)
				require.NoError(t, err)
				require.Len(t, q, 2)
				require.Equal(t, []string{"s"}, q["r"])
			}
			if v, err := w.Expand(other); err == nil && v.String() == u.String() && namespace(one) == namespace(other) {
				require.Equal(t, one, other)
			}
		}
	})
}

func namespace(key string) string {
	if ns, _, ok := strings.Cut(key, ":"); ok && ns != "" {
		return ns
	}
	return "default"
}

// No key can add a token or a wildcard to a subject.
func FuzzSubject(f *testing.F) {
	for _, s := range []string{"product:42", "p:a.b", "p:*", "p:>", "p: \r\n", ":", "x"} {
		f.Add(s, "product:4")
	}
	s, err := address.ParseSubject("cache.{namespace}.{rest}")
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, one, other string) {
		subject, err := s.Expand(one)
		if err != nil {
			require.ErrorIs(t, err, address.ErrBadKey)
			return
		}
		tokens := strings.Split(subject, ".")
		require.Len(t, tokens, 3)
		require.NotContains(t, tokens, "")
		require.False(t, strings.ContainsAny(subject, "*> \r\n\t\x00"), subject)
		if again, err := s.Expand(other); err == nil && again == subject {
			require.Equal(t, one, other)
		}
	})
}
