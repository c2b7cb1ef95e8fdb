package session_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/session"
)

func TestMalformedInput(t *testing.T) {
	r := newRig(t, nil)
	for name, c := range map[string]struct{ in, want string }{
		"length is no number":        {"*x\r\n", "-ERR Protocol error: invalid multibulk length|"},
		"length with a sign":         {"*+1\r\n", "-ERR Protocol error: invalid multibulk length|"},
		"length with a leading zero": {"*01\r\n", "-ERR Protocol error: invalid multibulk length|"},
		"huge array":                 {"*2147483647\r\n", "-ERR Protocol error: invalid multibulk length|"},
		"array beyond 64 bits":       {"*99999999999999999999\r\n", "-ERR Protocol error: invalid multibulk length|"},
		"huge bulk":                  {"*1\r\n$2147483647\r\n", "-ERR Protocol error: invalid bulk length|"},
		"negative bulk":              {"*1\r\n$-1\r\n", "-ERR Protocol error: invalid bulk length|"},
		"bulk without length":        {"*1\r\n$\r\n", "-ERR Protocol error: invalid bulk length|"},
		"bulk too short":             {"*1\r\n$3\r\nPI\r\n\r\n", "-ERR Protocol error: bulk string not terminated by CRLF|"},
		"bulk too long":              {"*1\r\n$3\r\nPING\r\n", "-ERR Protocol error: bulk string not terminated by CRLF|"},
		"nested array":               {"*2\r\n*1\r\n$4\r\nPING\r\n", "-ERR Protocol error: expected '$', got '*'|"},
		"deeply nested":              {strings.Repeat("*1\r\n", 1000), "-ERR Protocol error: expected '$', got '*'|"},
		"an integer in an array":     {"*1\r\n:1\r\n", "-ERR Protocol error: expected '$', got ':'|"},
		"line feed without return":   {"*1\n$4\nPING\n", "-ERR Protocol error: invalid multibulk length|"},
		"an endless line":            {strings.Repeat("x", 64<<10), "-ERR Protocol error: too big inline request|"},
		"after a good one":           {"PING\r\n*1\r\n!", "+PONG|-ERR Protocol error: expected '$', got '!'|"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, piece := range []int{1, 3, 1 << 20} {
				p := r.dial(t)
				out := ""
				for rest := []byte(c.in); len(rest) > 0 && !p.ended; {
					n := min(piece, len(rest))
					out += p.feed(rest[:n])
					rest = rest[n:]
				}
				require.Equal(t, c.want, shown(out), "in pieces of %d", piece)
				require.True(t, p.ended)
				require.True(t, p.s.Fault())
				require.LessOrEqual(t, len(p.in), 64<<10)
			}
		})
	}
}

// What is too large and well formed is read past, kept nowhere, and refused; the
// connection lives.
func TestOverLimits(t *testing.T) {
	r := newRig(t, nil)
	r.env.Limits = resp.Limits{MaxBulk: 1000, MaxFrame: 5000, MaxArgs: 10}
	bulk := "$1000\r\n" + strings.Repeat("v", 1000) + "\r\n"
	for name, c := range map[string]struct{ in, want string }{
		"bulk":  {"*2\r\n$4\r\nECHO\r\n$9000\r\n" + strings.Repeat("v", 9000) + "\r\n", "-ERR argument 1 of the command has 9000 bytes, the limit is 1000|"},
		"frame": {"*7\r\n$4\r\nMGET\r\n" + strings.Repeat(bulk, 6), "-ERR the command has 6068 bytes, the limit is 5000|"},
		"args":  {"*11\r\n" + strings.Repeat("$4\r\nPING\r\n", 11), "-ERR the command has 11 arguments, the limit is 10|"},
	} {
		t.Run(name, func(t *testing.T) {
			p := r.dial(t)
			out, held := "", 0
			for rest := []byte(c.in + "PING\r\n"); len(rest) > 0; {
				n := min(100, len(rest))
				out += p.feed(rest[:n])
				rest, held = rest[n:], max(held, len(p.in))
			}
			require.Equal(t, c.want+"+PONG|", shown(out))
			require.LessOrEqual(t, held, 5100)
			require.False(t, p.ended)
		})
	}
}

func TestReceivedCountsWholeCommands(t *testing.T) {
	p := newRig(t, nil).dial(t)
	p.feed([]byte("*1\r\n$4\r\nPI"))
	require.True(t, p.s.Begun())
	require.Zero(t, p.s.Received())
	require.Equal(t, 4, p.s.WantMore())
	p.feed([]byte("NG\r\n*1\r\n"))
	require.True(t, p.s.Begun())
	require.Equal(t, uint64(1), p.s.Received())
	p.feed([]byte("$4\r\nPING\r\n"))
	require.False(t, p.s.Begun())
	require.Equal(t, uint64(2), p.s.Received())
}

// A hit copies the value into bigcache's answer and ours into the output: what
// bigcache allocates is all that is allocated.
func TestHitAllocatesNoMoreThanBigcache(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial(t)
	p.do("SET product:42 " + strings.Repeat("v", 100))
	in, out := resp.AppendCommand(nil, "GET", "product:42"), make([]byte, 0, 4096)
	allocs := testing.AllocsPerRun(1000, func() {
		if _, answer, next := p.s.Serve(in, out); next != session.Input || len(answer) != 108 {
			t.Fatal("no hit")
		}
	})
	require.LessOrEqual(t, allocs, 2.0)
}

// FuzzServe: whatever comes in, in whatever pieces, nothing panics, what goes out
// is RESP, and neither side piles up.
func FuzzServe(f *testing.F) {
	for _, steps := range scripts {
		var in []byte
		for _, s := range steps {
			if len(s.command) < 200 {
				in = resp.AppendCommand(in, strings.Fields(s.command)...)
			}
		}
		f.Add(in, uint64(1))
		f.Add(in[:len(in)/2], uint64(2))
	}
	f.Add([]byte("PING\r\nHELLO 3\r\nNEAR.WATCH\r\nDEL a\r\nCLIENT REPLY OFF\r\nMGET a b\r\nRESET\r\nQUIT\r\n"), uint64(3))
	f.Add([]byte("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2000\r\n"), uint64(4))
	r := newRig(f, nil)
	r.env.Limits = resp.Limits{MaxBulk: 1000, MaxFrame: 20_000, MaxArgs: 100, MaxInline: 5000}
	f.Fuzz(func(t *testing.T, in []byte, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 0))
		s := session.New(r.env, func() {})
		defer s.Close()
		var all bytes.Buffer
		held, ended := []byte(nil), false
		for len(in) > 0 && !ended {
			n := 1 + random.IntN(len(in))
			held, in = append(held, in[:n]...), in[n:]
			held, ended = serveAll(t, s, held, &all)
			all.Write(s.Pushes(nil))
		}
		if len(held) > 20_000 && !ended {
			t.Fatalf("%d bytes of input are held", len(held))
		}
		parse(t, all.Bytes())
	})
}

// serveAll answers all of in to all, and returns what is left of it.
func serveAll(t *testing.T, s *session.Session, in []byte, all *bytes.Buffer) (rest []byte, ended bool) {
	for {
		n, out, next := s.Serve(in, nil)
		if n > len(in) || len(out) > 256<<10 {
			t.Fatalf("consumed %d of %d bytes, answered %d", n, len(in), len(out))
		}
		in = in[n:]
		all.Write(out)
		switch next {
		case session.Input:
			return in, false
		case session.End:
			return in, true
		case session.Run:
			s.Waiting().Run(context.Background())
			all.Write(s.Finish(nil))
		}
	}
}
