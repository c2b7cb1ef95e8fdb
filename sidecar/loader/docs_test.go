package loader_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/embedded"
	"github.com/nearside-cache/nearside/bus/natsbus"
	"github.com/nearside-cache/nearside/sidecar/loader"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// blocks returns the code blocks of docs/loaders.md in a language.
func blocks(t *testing.T, language string) []string {
	text, err := os.ReadFile("../../docs/loaders.md")
	require.NoError(t, err)
	var all []string
	for _, part := range strings.Split(string(text), "\n```"+language+"\n")[1:] {
		block, _, found := strings.Cut(part, "\n```\n")
		require.True(t, found)
		all = append(all, block+"\n")
	}
	require.NotEmpty(t, all)
	return all
}

// policyOf reads the loader of a block of the documentation, names included.
func policyOf(t *testing.T, block string) policy.Loader {
	var n struct {
		Namespaces map[string]struct {
			Loader policy.Loader `yaml:"loader"`
		} `yaml:"namespaces"`
	}
	d := yaml.NewDecoder(strings.NewReader(block))
	d.KnownFields(true)
	require.NoError(t, d.Decode(&n))
	l := n.Namespaces["product"].Loader
	requireValid(t, l)
	return l
}

// What the page says that a loader sends and may be answered is what happens.
func TestDocumentedExchange(t *testing.T) {
	exchange := blocks(t, "http")
	require.Len(t, exchange, 2)
	want := request(t, exchange[0])
	var sent *http.Request
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			sent, _ = http.ReadRequest(bufio.NewReader(far))
			_, _ = io.WriteString(far, strings.ReplaceAll(strings.TrimSuffix(exchange[1], "\n"), "\n", "\r\n"))
		}()
		o := open(t, policyOf(t, blocks(t, "yaml")[0]), loader.Deps{
			Dial:   func(context.Context, string, string) (net.Conn, error) { return near, nil },
			Lookup: func(name string) (string, bool) { return "s3cret", name == "PRODUCT_TOKEN" },
		})
		got, err := load(t, o, loader.Request{Key: "product:42", AtLeast: 6, Version: 6, ETag: `"6"`})
		require.NoError(t, err)
		require.Equal(t, loader.Result{
			Value: []byte(`{"name":"lamp"}`), Version: 7, ETag: `"7"`, TTL: time.Minute, Tags: []string{"lamps", "sale"},
		}, got)
	})
	require.Equal(t, want.RequestURI, sent.RequestURI)
	require.Equal(t, want.Host, sent.Host)
	require.Equal(t, want.Header, sent.Header)

	// What the reader is told to try is the same request.
	curl := commands(t, "curl ")[0]
	tried := http.Header{"User-Agent": want.Header["User-Agent"], "Accept-Encoding": want.Header["Accept-Encoding"]}
	for i, word := range curl {
		if word == "-H" {
			name, value, _ := strings.Cut(curl[i+1], ": ")
			tried.Add(name, value)
		}
	}
	require.Equal(t, want.Header, tried)
	require.Equal(t, "http://"+want.Host+want.RequestURI, curl[len(curl)-1])
}

func request(t *testing.T, text string) *http.Request {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(strings.ReplaceAll(text, "\n", "\r\n") + "\r\n")))
	require.NoError(t, err)
	return r
}

// commands returns the commands of the shell blocks that begin with a text, as
// words.
func commands(t *testing.T, begin string) [][]string {
	var all [][]string
	for _, block := range blocks(t, "sh") {
		for line := range strings.Lines(block) {
			if strings.HasPrefix(line, begin) {
				all = append(all, shellWords(strings.TrimSpace(line)))
			}
		}
	}
	require.NotEmpty(t, all)
	return all
}

// shellWords splits a line at spaces outside single quotes.
func shellWords(line string) []string {
	var words []string
	word, quoted := "", false
	for _, c := range line {
		switch {
		case c == '\'':
			quoted = !quoted
		case c == ' ' && !quoted:
			words, word = append(words, word), ""
		default:
			word += string(c)
		}
	}
	return append(words, word)
}

// message is what a nats command of the page says: verb, subject, body, headers.
func message(t *testing.T, verb string) *nats.Msg {
	words := commands(t, "nats "+verb)[0]
	m := &nats.Msg{Subject: words[2], Data: []byte(words[3]), Header: nats.Header{}}
	for i := 4; i < len(words); i += 2 {
		require.Equal(t, "-H", words[i])
		name, value, _ := strings.Cut(words[i+1], ":")
		m.Header.Add(name, value)
	}
	return m
}

// The origin in one line answers a loader over a real server.
func TestDocumentedReply(t *testing.T) {
	srv, err := embedded.Start(embedded.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, srv.Close()) })
	nc, err := nats.Connect("", srv.ClientOption())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	reply, ask := message(t, "reply"), message(t, "request")
	asked := make(chan *nats.Msg, 1)
	_, err = nc.Subscribe(reply.Subject, func(m *nats.Msg) {
		_ = m.RespondMsg(&nats.Msg{Header: reply.Header, Data: reply.Data})
		asked <- m
	})
	require.NoError(t, err)
	require.NoError(t, nc.Flush())

	subjects, err := bus.NewSubjects("test")
	require.NoError(t, err)
	b, err := natsbus.Open(t.Context(), natsbus.Config{InProcess: srv, Stream: natsbus.StreamConfig{Subjects: subjects}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	o := open(t, policyOf(t, blocks(t, "yaml")[1]), loader.Deps{Requester: b})
	got, err := load(t, o, loader.Request{Key: "product:42"})
	require.NoError(t, err)
	require.Equal(t, loader.Result{Value: []byte(`{"name":"lamp"}`), Version: 7, TTL: time.Minute}, got)
	m := <-asked
	require.Equal(t, ask.Subject, m.Subject)
	require.Equal(t, string(ask.Data), string(m.Data))
	ask.Header.Set("User-Agent", "nearside")
	require.Equal(t, ask.Header, m.Header)
	_, err = load(t, o, loader.Request{Key: "product:a:b"})
	require.NoError(t, err)
	require.Equal(t, "cache.load.product.a%3Ab", (<-asked).Subject)
}

// All metrics and outcomes are on the page.
func TestDocumentedMetrics(t *testing.T) {
	text, err := os.ReadFile("../../docs/loaders.md")
	require.NoError(t, err)
	for _, o := range loader.Outcomes {
		require.Contains(t, string(text), "`"+o+"`")
	}
	registry := prometheus.NewRegistry()
	_, err = loader.New("product", policy.Loader{URL: template}, loader.Deps{Metrics: loader.NewMetrics(registry)})
	require.NoError(t, err)
	families, err := registry.Gather()
	require.NoError(t, err)
	require.Len(t, families, 7)
	for _, f := range families {
		require.Contains(t, string(text), "`"+f.GetName()+"{namespace")
	}
}
