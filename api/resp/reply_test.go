package resp_test

import (
	"bufio"
	"errors"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
)

func bulk(s string) resp.Reply { return resp.Reply{Kind: resp.KindBulk, Str: s} }

var replyCases = []struct {
	name  string
	input string
	want  resp.Reply
}{
	{"simple", "+OK\r\n", resp.Reply{Kind: resp.KindSimple, Str: "OK"}},
	{"simple empty", "+\r\n", resp.Reply{Kind: resp.KindSimple}},
	{"error", "-ERR no\r\n", resp.Reply{Kind: resp.KindError, Str: "ERR no"}},
	{"blob error", "!6\r\nERR\r\nx\r\n", resp.Reply{Kind: resp.KindError, Str: "ERR\r\nx"}},
	{"int", ":-12\r\n", resp.Reply{Kind: resp.KindInt, Int: -12}},
	{"bulk", "$4\r\na\r\nb\r\n", bulk("a\r\nb")},
	{"bulk empty", "$0\r\n\r\n", bulk("")},
	{"null of RESP2", "$-1\r\n", resp.Reply{}},
	{"null array of RESP2", "*-1\r\n", resp.Reply{}},
	{"null", "_\r\n", resp.Reply{}},
	{"true", "#t\r\n", resp.Reply{Kind: resp.KindBool, Int: 1}},
	{"false", "#f\r\n", resp.Reply{Kind: resp.KindBool}},
	{"double", ",1.5\r\n", resp.Reply{Kind: resp.KindDouble, Float: 1.5}},
	{"double inf", ",-inf\r\n", resp.Reply{Kind: resp.KindDouble, Float: math.Inf(-1)}},
	{"big number", "(123456789012345678901\r\n", resp.Reply{Kind: resp.KindBigNumber, Str: "123456789012345678901"}},
	{"verbatim", "=5\r\ntxt:a\r\n", resp.Reply{Kind: resp.KindVerbatim, Str: "a"}},
	{"array", "*2\r\n$1\r\na\r\n_\r\n", resp.Reply{Kind: resp.KindArray, Elems: []resp.Reply{bulk("a"), {}}}},
	{"array empty", "*0\r\n", resp.Reply{Kind: resp.KindArray, Elems: []resp.Reply{}}},
	{"set", "~1\r\n$1\r\na\r\n", resp.Reply{Kind: resp.KindSet, Elems: []resp.Reply{bulk("a")}}},
	{"push", ">1\r\n$1\r\na\r\n", resp.Reply{Kind: resp.KindPush, Elems: []resp.Reply{bulk("a")}}},
	{"map", "%1\r\n$1\r\na\r\n:1\r\n", resp.Reply{Kind: resp.KindMap, Elems: []resp.Reply{bulk("a"), {Kind: resp.KindInt, Int: 1}}}},
	{"attribute", "|1\r\n+ttl\r\n:9\r\n+OK\r\n", resp.Reply{Kind: resp.KindSimple, Str: "OK"}},
	{"nested", "*1\r\n*1\r\n:1\r\n", resp.Reply{Kind: resp.KindArray, Elems: []resp.Reply{
		{Kind: resp.KindArray, Elems: []resp.Reply{{Kind: resp.KindInt, Int: 1}}}}}},
	{"long line", "+" + strings.Repeat("x", 10_000) + "\r\n", resp.Reply{Kind: resp.KindSimple, Str: strings.Repeat("x", 10_000)}},
	{"long bulk", "$100000\r\n" + strings.Repeat("x", 100_000) + "\r\n", bulk(strings.Repeat("x", 100_000))},
}

func TestReadReply(t *testing.T) {
	for _, c := range replyCases {
		t.Run(c.name, func(t *testing.T) {
			r := bufio.NewReader(iotest.OneByteReader(strings.NewReader(c.input + "+next\r\n")))
			got, err := resp.ReadReply(r, resp.ReplyLimits{})
			require.NoError(t, err)
			require.Equal(t, c.want, got)
			next, err := resp.ReadReply(r, resp.ReplyLimits{})
			require.NoError(t, err)
			require.Equal(t, "next", next.Str)
			_, err = resp.ReadReply(r, resp.ReplyLimits{})
			require.Equal(t, io.EOF, err)
		})
	}
}

func TestReadReplyCutShort(t *testing.T) {
	for _, c := range replyCases {
		for i := 1; i < len(c.input); i += 1 + len(c.input)/100 {
			_, err := resp.ReadReply(bufio.NewReader(strings.NewReader(c.input[:i])), resp.ReplyLimits{})
			require.ErrorIs(t, err, io.ErrUnexpectedEOF, "%s cut at %d", c.name, i)
		}
	}
}

func TestReadReplyRefuses(t *testing.T) {
	tiny := resp.ReplyLimits{MaxDepth: 2, MaxSize: 1000}
	for _, c := range []struct{ name, input, reason string }{
		{"unknown type", "@1\r\n", "unknown reply type '@'"},
		{"empty line", "\r\n", "malformed line in reply"},
		{"LF alone", "+OK\n", "malformed line in reply"},
		{"length no number", "$x\r\n", `invalid length "x" in reply`},
		{"length too negative", "*-2\r\n", `invalid length "-2" in reply`},
		{"streamed", "$?\r\n", `invalid length "?" in reply`},
		{"int", ":1x\r\n", `invalid integer "1x" in reply`},
		{"bool", "#x\r\n", `invalid boolean "x" in reply`},
		{"double", ",x\r\n", `invalid double "x" in reply`},
		{"verbatim", "=3\r\ntxt\r\n", "malformed verbatim string in reply"},
		{"bulk end", "$1\r\naXX", "bulk string in reply not terminated by CRLF"},
		{"bulk over the size", "$1001\r\n", "reply exceeds the size limit"},
		{"array over the size", "*1000\r\n", "reply exceeds the size limit"},
		{"map over any size", "%2147483647\r\n", "reply exceeds the size limit"},
		{"many small elements", "*9\r\n" + strings.Repeat("*1\r\n:1\r\n", 9), "reply exceeds the size limit"},
		{"too deep", "*1\r\n*1\r\n*1\r\n:1\r\n", "reply nested too deeply"},
		{"attributes without end", strings.Repeat("|0\r\n", 100), "reply exceeds the size limit"},
		{"endless line", "+" + strings.Repeat("x", 70_000), "too long line in reply"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := resp.ReadReply(bufio.NewReader(strings.NewReader(c.input)), tiny)
			var bad *resp.ProtocolError
			require.ErrorAs(t, err, &bad)
			require.Equal(t, c.reason, bad.Reason)
		})
	}
}

// A length alone takes no memory: it is taken as the bytes arrive.
func TestReadReplyDoesNotTrustLengths(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, input := range []string{"$60000000\r\nx", "*800000\r\n:1\r\n"} {
		_, err := resp.ReadReply(bufio.NewReader(strings.NewReader(input)), resp.ReplyLimits{})
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	}
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
}

func TestReplyText(t *testing.T) {
	for want, r := range map[string]resp.Reply{
		"a":   bulk("a"),
		"-3":  {Kind: resp.KindInt, Int: -3},
		"1":   {Kind: resp.KindBool, Int: 1},
		"2.5": {Kind: resp.KindDouble, Float: 2.5},
		"":    {},
	} {
		require.Equal(t, want, r.Text())
	}
}

func FuzzReadReply(f *testing.F) {
	for _, c := range replyCases {
		f.Add([]byte(c.input))
	}
	limits := resp.ReplyLimits{MaxDepth: 4, MaxSize: 10_000}
	f.Fuzz(func(t *testing.T, input []byte) {
		whole, err := resp.ReadReply(bufio.NewReader(strings.NewReader(string(input))), limits)
		parts, err2 := resp.ReadReply(bufio.NewReader(iotest.OneByteReader(strings.NewReader(string(input)))), limits)
		require.Equal(t, err, err2)
		if err == nil {
			require.Equal(t, textOf(whole), textOf(parts))
			return
		}
		var bad *resp.ProtocolError
		require.True(t, errors.As(err, &bad) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF), "%v", err)
	})
}

// textOf writes a reply down so that not-a-number equals itself.
func textOf(r resp.Reply) string {
	var b strings.Builder
	b.WriteByte('0' + byte(r.Kind))
	b.WriteString(r.Text())
	for _, e := range r.Elems {
		b.WriteString(" (" + textOf(e) + ")")
	}
	return b.String()
}
