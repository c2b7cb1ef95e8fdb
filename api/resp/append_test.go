package resp_test

import (
	"bufio"
	"bytes"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/nearside-cache/nearside/api/resp"
)

func TestAppend(t *testing.T) {
	same := func(f func(dst []byte) []byte) func(resp.Proto, []byte) []byte {
		return func(_ resp.Proto, dst []byte) []byte { return f(dst) }
	}
	for _, c := range []struct {
		name         string
		resp2, resp3 string
		f            func(p resp.Proto, dst []byte) []byte
	}{
		{"simple", "+OK\r\n", "+OK\r\n", same(func(d []byte) []byte { return resp.AppendSimple(d, "OK") })},
		{"simple cannot forge", "+a  +OK\r\n", "+a  +OK\r\n", same(func(d []byte) []byte { return resp.AppendSimple(d, "a\r\n+OK") })},
		{"error", "-ERR no\r\n", "-ERR no\r\n", same(func(d []byte) []byte { return resp.AppendError(d, "ERR no") })},
		{"error cannot forge", "-ERR a  +OK \r\n", "-ERR a  +OK \r\n", same(func(d []byte) []byte { return resp.AppendError(d, "ERR a\r\n+OK\n") })},
		{"int", ":0\r\n", ":0\r\n", same(func(d []byte) []byte { return resp.AppendInt(d, 0) })},
		{"int least", ":-9223372036854775808\r\n", ":-9223372036854775808\r\n", same(func(d []byte) []byte { return resp.AppendInt(d, math.MinInt64) })},
		{"bulk", "$3\r\na\r\n\r\n", "$3\r\na\r\n\r\n", same(func(d []byte) []byte { return resp.AppendBulk(d, []byte("a\r\n")) })},
		{"bulk empty", "$0\r\n\r\n", "$0\r\n\r\n", same(func(d []byte) []byte { return resp.AppendBulk(d, nil) })},
		{"bulk string", "$1\r\na\r\n", "$1\r\na\r\n", same(func(d []byte) []byte { return resp.AppendBulkString(d, "a") })},
		{"bulk in parts", "$1\r\na\r\n", "$1\r\na\r\n", same(func(d []byte) []byte {
			return append(append(resp.AppendBulkHeader(d, 1), 'a'), resp.CRLF...)
		})},
		{"array", "*2\r\n", "*2\r\n", same(func(d []byte) []byte { return resp.AppendArray(d, 2) })},
		{"null", "$-1\r\n", "_\r\n", resp.Proto.AppendNull},
		{"null array", "*-1\r\n", "_\r\n", resp.Proto.AppendNullArray},
		{"map", "*4\r\n", "%2\r\n", func(p resp.Proto, d []byte) []byte { return p.AppendMap(d, 2) }},
		{"set", "*2\r\n", "~2\r\n", func(p resp.Proto, d []byte) []byte { return p.AppendSet(d, 2) }},
		{"push", "*2\r\n", ">2\r\n", func(p resp.Proto, d []byte) []byte { return p.AppendPush(d, 2) }},
		{"true", ":1\r\n", "#t\r\n", func(p resp.Proto, d []byte) []byte { return p.AppendBool(d, true) }},
		{"false", ":0\r\n", "#f\r\n", func(p resp.Proto, d []byte) []byte { return p.AppendBool(d, false) }},
		{"double", "$3\r\n1.5\r\n", ",1.5\r\n", func(p resp.Proto, d []byte) []byte { return p.AppendDouble(d, 1.5) }},
		{"double inf", "$3\r\ninf\r\n", ",inf\r\n", func(p resp.Proto, d []byte) []byte { return p.AppendDouble(d, math.Inf(1)) }},
		{"double -inf", "$4\r\n-inf\r\n", ",-inf\r\n", func(p resp.Proto, d []byte) []byte { return p.AppendDouble(d, math.Inf(-1)) }},
		{"double nan", "$3\r\nnan\r\n", ",nan\r\n", func(p resp.Proto, d []byte) []byte { return p.AppendDouble(d, math.NaN()) }},
		{"verbatim", "$2\r\na\n\r\n", "=6\r\ntxt:a\n\r\n", func(p resp.Proto, d []byte) []byte { return p.AppendVerbatim(d, "a\n") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, "before"+c.resp2, string(c.f(resp.RESP2, []byte("before"))))
			require.Equal(t, "before"+c.resp3, string(c.f(resp.RESP3, []byte("before"))))
		})
	}
}

// What is appended is what a client reads, and nothing is left over.
func TestAppendRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "text")
		blob := rapid.SliceOf(rapid.Byte()).Draw(t, "blob")
		number := rapid.Int64().Draw(t, "number")
		double := rapid.Float64().Draw(t, "double")

		out := resp.RESP3.AppendMap(nil, 2)
		out = resp.AppendError(out, "ERR "+text)
		out = resp.AppendBulk(out, blob)
		out = resp.AppendInt(out, number)
		out = resp.RESP3.AppendDouble(out, double)
		r := bufio.NewReader(bytes.NewReader(out))
		reply, err := resp.ReadReply(r, resp.ReplyLimits{})
		require.NoError(t, err)
		require.Zero(t, r.Buffered())
		require.Equal(t, resp.KindMap, reply.Kind)
		require.Len(t, reply.Elems, 4)
		require.Len(t, reply.Elems[0].Str, len("ERR "+text))
		require.Equal(t, string(blob), reply.Elems[1].Str)
		require.Equal(t, number, reply.Elems[2].Int)
		require.Equal(t, double, reply.Elems[3].Float)
	})
}

func BenchmarkAppendBulk(b *testing.B) {
	value := bytes.Repeat([]byte("v"), 100)
	out := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		out = resp.AppendBulk(out[:0], value)
	}
}
