package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api"
	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus"
)

// loading is a sidecar whose namespace has a loader, as warm sees it.
type loading struct {
	socket string
	status func(key string) (before, after string) // of EXPLAIN and of GET; after may be an error
	wg     sync.WaitGroup

	mu    sync.Mutex
	asked []string // commands after HELLO
}

func newLoading(t *testing.T, status func(key string) (before, after string)) *loading {
	dir, err := os.MkdirTemp("", "warm") //nolint:usetesting // t.TempDir has the test's name in its path
	require.NoError(t, err)
	s := &loading{socket: filepath.Join(dir, "n.sock"), status: status}
	l, err := net.Listen("unix", s.socket)
	require.NoError(t, err)
	s.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.wg.Wait()
		os.RemoveAll(dir)
	})
	return s
}

// serve answers until the client goes or a status is empty.
func (s *loading) serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		cmd, err := resp.ReadReply(r, resp.ReplyLimits{}) // an array, as answers have
		if err != nil {
			return
		}
		answer := s.answer(cmd.Elems)
		if answer == nil {
			return
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

func (s *loading) answer(cmd []resp.Reply) []byte {
	name := cmd[0].Str
	if name == "HELLO" {
		return resp.AppendSimple(nil, "OK")
	}
	var line []string
	for _, arg := range cmd {
		line = append(line, arg.Str)
	}
	s.mu.Lock()
	s.asked = append(s.asked, strings.Join(line, " "))
	s.mu.Unlock()
	before, after := s.status(cmd[1].Str)
	pair := []string{"next_read", before + ": why"}
	if name == "NEAR.GET" {
		pair = []string{"status", after}
		if after == "" {
			return nil
		}
		if strings.HasPrefix(after, "ERR") {
			return resp.AppendError(nil, after)
		}
	}
	out := resp.RESP3.AppendMap(nil, 1)
	return resp.AppendBulkString(resp.AppendBulkString(out, pair[0]), pair[1])
}

func (s *loading) commands() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.asked...)
}

// allLoad loads everything.
func allLoad(string) (before, after string) { return "MISS", "HIT" }

// warm runs the command in this process.
func warm(ctx context.Context, s *loading, stdin io.Reader, args ...string) (stdout string, err error) {
	root := newRoot()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(io.Discard)
	root.SetIn(stdin)
	root.SetArgs(append([]string{"warm", "--socket", s.socket, "--namespace", "product", "--keys-from", "-", "--rate", "0"}, args...))
	err = root.ExecuteContext(ctx)
	return out.String(), err
}

func TestWarmLoadsAList(t *testing.T) {
	s := newLoading(t, func(key string) (before, after string) {
		switch key {
		case "product:held":
			return "HIT", "HIT"
		case "product:stale":
			return "STALE", "STALE"
		case "product:none":
			return "MISS", "NEGATIVE"
		case "product:bad":
			return "MISS", "ERR the origin answered 503"
		case "product:slow":
			return "MISS", "MISS"
		case "product:odd":
			return "MISS", "BYPASS"
		}
		return "MISS", "HIT"
	})
	list := "# the list\n\n  \n1\r\nproduct:2\n  held  \nstale\nnone\nbad\nslow\nodd\norder:7\n:8\nproduct:x y"
	out, err := warm(t.Context(), s, strings.NewReader(list), "-o", "json", "--concurrency", "1")
	require.EqualError(t, err, "5 of 11 keys are not held. Run it again when the cause is mended: what is held is not loaded again")
	require.Equal(t, codeFailed, codeOf(err))
	var got struct {
		Namespace                    string
		Keys, Loaded, Absent, Failed int
		Held                         int     `json:"held_before"`
		PerSecond                    float64 `json:"keys_per_second"`
		Interrupted                  bool
		Failures                     []failure
	}
	require.NoError(t, json.Unmarshal([]byte(out), &got), out)
	require.Equal(t, []any{"product", 11, 3, 2, 1, 5, false}, []any{got.Namespace, got.Keys, got.Loaded, got.Held, got.Absent, got.Failed, got.Interrupted})
	require.Positive(t, got.PerSecond)
	require.Equal(t, []failure{
		{"product:bad", "ERR the origin answered 503"},
		{"product:slow", "MISS: it was not loaded in time, or not kept"},
		{"product:odd", "the sidecar answered BYPASS"},
		{"order:7", "line 12: it is of namespace order: write product:order:7 if that is the key"},
		{":8", "line 13: it is of namespace default: write product::8 if that is the key"},
	}, got.Failures)
	require.Equal(t, []string{"NEAR.EXPLAIN product:1", "NEAR.GET product:1 ANY WAIT 10000", "NEAR.EXPLAIN product:2"}, s.commands()[:3])
	require.Contains(t, s.commands(), "NEAR.GET product:x y ANY WAIT 10000")
}

func TestWarmSumsUp(t *testing.T) {
	s := newLoading(t, func(key string) (before, after string) {
		if strings.HasPrefix(key, "product:bad") {
			return "MISS", "ERR no"
		}
		return "MISS", "HIT"
	})
	out, err := warm(t.Context(), s, strings.NewReader("1\n2\n3\n"))
	require.NoError(t, err)
	require.Contains(t, out, "\nkeys             3\nloaded           3\nheld before      0\n")
	require.NotContains(t, out, "Failed")
	var list strings.Builder
	for i := range 12 {
		fmt.Fprintf(&list, "%d\nbad\x1b%d\n", i, i)
	}
	out, err = warm(t.Context(), s, strings.NewReader(list.String()))
	require.ErrorContains(t, err, "12 of 24 keys")
	require.Contains(t, out, "\nFailed, 10 of 12:\n  \"product:bad\\x1b")
	require.Equal(t, 10, strings.Count(out, "ERR no"))
	out, err = warm(t.Context(), s, strings.NewReader("\n"))
	require.NoError(t, err, "an empty list is no fault")
	require.Contains(t, out, "keys             0\n")
}

// Without a loader it ends early, says so, and is not misled by what is held.
func TestWarmWithoutALoader(t *testing.T) {
	s := newLoading(t, func(key string) (before, after string) {
		if key == "product:1" {
			return "HIT", "HIT"
		}
		return "MISS", "MISS"
	})
	_, err := warm(t.Context(), s, strings.NewReader("1\na:b\n"+strings.Repeat("2\n", 10_000)))
	require.ErrorContains(t, err, "the sidecar loads nothing: it answers MISS and leaves loading to its clients. Has namespace product a loader in its policy")
	require.ErrorContains(t, err, "nearside explain product:2")
	require.Equal(t, codeFailed, codeOf(err))
	require.Less(t, len(s.commands()), 200)
	_, err = warm(t.Context(), s, strings.NewReader("2\n3\n"))
	require.ErrorContains(t, err, "the sidecar loads nothing", "of a short list, too")
}

func TestWarmKeepsToTheRate(t *testing.T) {
	s := newLoading(t, allLoad)
	began := time.Now()
	_, err := warm(t.Context(), s, strings.NewReader(strings.Repeat("k\n", 21)), "--rate", "100")
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(began), 180*time.Millisecond, "two of 21 may come at once")
}

// Ctrl-C ends it with the summary, even while the list is awaited.
func TestWarmInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	s := newLoading(t, func(key string) (before, after string) {
		if key == "product:3" {
			cancel()
			<-ended
		}
		return "MISS", "HIT"
	})
	in, list := io.Pipe()
	defer list.Close()
	go io.WriteString(list, "1\n2\n3\n") // and no more
	out, err := warm(ctx, s, in, "--concurrency", "1", "-o", "json")
	close(ended)
	require.ErrorContains(t, err, "interrupted: run it again")
	require.Equal(t, codeFailed, codeOf(err))
	require.Contains(t, out, `"interrupted":true`)
	require.Contains(t, out, `"loaded":2`)
}

func TestWarmWithoutASidecar(t *testing.T) {
	nobody := &loading{socket: filepath.Join(t.TempDir(), "x")}
	out, err := warm(t.Context(), nobody, strings.NewReader("1\n"))
	require.ErrorContains(t, err, "no sidecar on ")
	require.Equal(t, codeUnreachable, codeOf(err))
	require.Empty(t, out, "there is nothing to sum up")

	s := newLoading(t, func(key string) (before, after string) {
		return "MISS", map[bool]string{true: "HIT"}[key == "product:1"] // and ends
	})
	out, err = warm(t.Context(), s, strings.NewReader("1\n2\n3\n"), "--concurrency", "1")
	require.ErrorContains(t, err, "broke")
	require.Equal(t, codeUnreachable, codeOf(err))
	require.Contains(t, out, "loaded           1\n")
}

// broken is a list that fails while it is read.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("disk on fire") }

func TestWarmCannotReadItsList(t *testing.T) {
	s := newLoading(t, allLoad)
	_, err := warm(t.Context(), s, io.MultiReader(strings.NewReader("1\n"), broken{}))
	require.ErrorContains(t, err, "keys-from: line 2 cannot be read: disk on fire")
	out, err := warm(t.Context(), s, strings.NewReader("1\n"+strings.Repeat("k", 100_000)))
	require.ErrorContains(t, err, "keys-from: line 2 cannot be read: it is longer than any key: want at most 65535 bytes")
	require.Contains(t, out, "loaded           1\n", "what came before it counts")
	_, err = warm(t.Context(), s, strings.NewReader("product:"+strings.Repeat("k", api.MaxKey)))
	require.ErrorContains(t, err, "1 of 1 keys")
	_, err = warm(t.Context(), s, nil, "--keys-from", "nowhere.txt")
	require.ErrorContains(t, err, "keys-from: the list cannot be opened: open nowhere.txt")
	require.Equal(t, codeUsage, codeOf(err))
}

func TestWarmUsage(t *testing.T) {
	good := warmer{namespace: "product", keysFrom: "-", concurrency: 1, client: client{timeout: 1}}
	require.NoError(t, good.validate())
	for want, change := range map[string]func(*warmer){
		`namespace is "": want 1 to 256 bytes without a ':'`: func(w *warmer) { w.namespace = "" },
		`namespace is "a:b"`:                    func(w *warmer) { w.namespace = "a:b" },
		"keys-from is empty":                    func(w *warmer) { w.keysFrom = "" },
		"rate is -1: want 0 (no limit) or more": func(w *warmer) { w.rate = -1 },
		"rate is NaN":                           func(w *warmer) { w.rate = math.NaN() },
		"concurrency is 0: want 1 to 1000":      func(w *warmer) { w.concurrency = 0 },
		"concurrency is 1001":                   func(w *warmer) { w.concurrency = 1001 },
		"timeout is 0s: want more than 0":       func(w *warmer) { w.timeout = 0 },
	} {
		w := good
		change(&w)
		require.ErrorContains(t, w.validate(), want)
	}
}

func TestWarmProgress(t *testing.T) {
	began := time.Now()
	c := &tally{began: began}
	for _, o := range []outcome{wasLoaded, wasLoaded, wasHeld, isAbsent, failed, notLoaded} {
		c.add(warmed{outcome: o})
	}
	require.Equal(t, "6 keys: 2 loaded, 1 held before, 1 absent, 2 failed  3/s", c.line(began.Add(2*time.Second), 0))
	require.Equal(t, " 25%  6 keys: 2 loaded, 1 held before, 1 absent, 2 failed  3/s  6s left", c.line(began.Add(2*time.Second), 0.25))
	var out bytes.Buffer
	none := newProgressLine(&out)
	none.show("x")
	none.clear()
	require.Empty(t, out.String(), "no terminal")
	line := progressLine{out: &out, width: 5}
	line.show("1234567")
	line.clear()
	line.clear()
	require.Equal(t, "\r\x1b[K1234\r\x1b[K", out.String(), "it never wraps")
}

func TestKeyListSize(t *testing.T) {
	name := filepath.Join(t.TempDir(), "keys")
	require.NoError(t, os.WriteFile(name, []byte("1\n22\n#xx\n\n"), 0o600))
	l, err := openKeys(name, "product", nil)
	require.NoError(t, err)
	defer l.in.Close()
	var parts []float64
	require.NoError(t, l.each(func(listedKey) bool {
		parts = append(parts, l.done())
		return true
	}))
	require.Equal(t, []float64{0.2, 0.5}, parts)
	require.Equal(t, 1.0, l.done())
	unknown, err := openKeys("-", "product", strings.NewReader("1\n"))
	require.NoError(t, err)
	require.NoError(t, unknown.each(func(listedKey) bool { return true }))
	require.Zero(t, unknown.done())
}

func FuzzKeyList(f *testing.F) {
	f.Add("product", "1\nproduct:2\n#\n")
	f.Add("default", "a\n:b\nx:y")
	f.Fuzz(func(t *testing.T, namespace, list string) {
		if namespace == "" || strings.Contains(namespace, ":") {
			return
		}
		l := &keyList{in: io.NopCloser(strings.NewReader(list)), namespace: namespace}
		err := l.each(func(k listedKey) bool {
			if k.fault == nil {
				require.LessOrEqual(t, len(k.key), api.MaxKey)
				require.Equal(t, namespace, bus.NamespaceOf(k.key), "%q", k.key)
			}
			return true
		})
		require.True(t, err == nil || len(list) > api.MaxKey, err)
	})
}
