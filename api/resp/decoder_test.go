package resp_test

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"weak"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/nearside-cache/nearside/api"
	"github.com/nearside-cache/nearside/api/resp"
)

// small makes every limit reachable with short inputs.
var small = resp.Limits{MaxArgs: 4, MaxBulk: 16, MaxFrame: 64, MaxInline: 48}

// feed plays the driver of a connection: it hands input to a Decoder in pieces
// of the given size, moves the buffer before every call, overwrites the old
// one, and returns what came out, one line per command or error.
func feed(t require.TestingT, l resp.Limits, input []byte, piece int) []string {
	d := resp.NewDecoder(l)
	var out []string
	var buf []byte
	for {
		cmd, n, err := d.Next(buf)
		require.True(t, n >= 0 && n <= len(buf), "consumed %d of %d", n, len(buf))
		require.LessOrEqual(t, d.WantMore(), l.MaxBulk+2)
		switch {
		case err == nil:
			require.NotEmpty(t, cmd)
			require.Positive(t, n)
			out = append(out, fmt.Sprintf("%q", [][]byte(cmd)))
		case !errors.Is(err, resp.ErrMore):
			out = append(out, err.Error())
		}
		if fatal := (*resp.ProtocolError)(nil); errors.As(err, &fatal) {
			_, n, again := d.Next(buf)
			require.Zero(t, n)
			require.Equal(t, err, again)
			return out
		}
		rest := bytes.Clone(buf[n:])
		for i := range buf {
			buf[i] = '!'
		}
		buf = rest
		if errors.Is(err, resp.ErrMore) {
			require.LessOrEqual(t, len(buf), max(l.MaxFrame+16, l.MaxInline), "more is kept than a frame")
			if len(input) == 0 {
				return out
			}
			k := min(piece, len(input))
			buf = append(buf, input[:k]...)
			input = input[k:]
		}
	}
}

var decodeCases = []struct {
	name  string
	input string
	want  []string
}{
	{"array", "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", []string{`["GET" "k"]`}},
	{"binary argument", "*2\r\n$4\r\nECHO\r\n$5\r\n\r\n\x00*$\r\n", []string{`["ECHO" "\r\n\x00*$"]`}},
	{"empty argument", "*2\r\n$3\r\nGET\r\n$0\r\n\r\n", []string{`["GET" ""]`}},
	{"pipeline", "*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\nQUIT\r\n", []string{`["PING"]`, `["GET" "a"]`, `["QUIT"]`}},
	{"empty arrays", "*0\r\n*-1\r\n*-7\r\n*1\r\n$4\r\nPING\r\n", []string{`["PING"]`}},
	{"only empty arrays", "*0\r\n*-1\r\n", nil},
	{"nothing", "", nil},
	{"unfinished header", "*2", nil},
	{"unfinished line end", "*2\r", nil},
	{"unfinished body", "*1\r\n$4\r\nPI", nil},
	{"unfinished body end", "*1\r\n$4\r\nPING\r", nil},

	{"inline", "PING\r\n", []string{`["PING"]`}},
	{"inline with LF alone", "PING\n", []string{`["PING"]`}},
	{"inline with blanks", "  get \t key  \r\n", []string{`["get" "key"]`}},
	{"empty lines", "\r\n\n  \r\nPING\r\n\r\n", []string{`["PING"]`}},
	{"inline quotes are characters", `SET k "a b"` + "\r\n", []string{`["SET" "k" "\"a" "b\""]`}},
	{"inline longest", strings.Repeat(" ", 43) + "PING\n", []string{`["PING"]`}},
	{"inline too long", strings.Repeat(" ", 44) + "PING\n", []string{"Protocol error: too big inline request"}},
	{"inline never ending", strings.Repeat("x", 100), []string{"Protocol error: too big inline request"}},
	{"inline argument over the limit", "ECHO aaaaaaaaaaaaaaaaa\r\nPING\r\n", []string{
		"argument 1 of the command has 17 bytes, the limit is 16", `["PING"]`}},
	{"inline with too many arguments", "a b c d e\r\nPING\r\n", []string{
		"the command has 5 arguments, the limit is 4", `["PING"]`}},

	{"array length is no number", "*abc\r\n", []string{"Protocol error: invalid multibulk length"}},
	{"array length missing", "*\r\n", []string{"Protocol error: invalid multibulk length"}},
	{"array length with plus", "*+1\r\n", []string{"Protocol error: invalid multibulk length"}},
	{"array length with leading zero", "*01\r\n", []string{"Protocol error: invalid multibulk length"}},
	{"array length minus zero", "*-0\r\n", []string{"Protocol error: invalid multibulk length"}},
	{"array length minus alone", "*-\r\n", []string{"Protocol error: invalid multibulk length"}},
	{"array length with blank", "*1 \r\n", []string{"Protocol error: invalid multibulk length"}},
	{"array length with LF alone", "*1\n", []string{"Protocol error: invalid multibulk length"}},
	{"array length with CR alone", "*1\rx", []string{"Protocol error: invalid multibulk length"}},
	{"array length over the ceiling", "*1048577\r\n", []string{"Protocol error: invalid multibulk length"}},
	{"array length huge", "*99999999999999999999\r\n", []string{"Protocol error: invalid multibulk length"}},
	{"array length never ending", "*" + strings.Repeat("1", 99), []string{"Protocol error: invalid multibulk length"}},
	{"after a good command", "PING\r\n*x", []string{`["PING"]`, "Protocol error: invalid multibulk length"}},

	{"bulk length is no number", "*1\r\n$x\r\n", []string{"Protocol error: invalid bulk length"}},
	{"bulk length negative", "*1\r\n$-1\r\n", []string{"Protocol error: invalid bulk length"}},
	{"bulk length over the ceiling", "*1\r\n$536870913\r\n", []string{"Protocol error: invalid bulk length"}},
	{"bulk length huge", "*1\r\n$18446744073709551617\r\n", []string{"Protocol error: invalid bulk length"}},
	{"nested array", "*1\r\n*1\r\n$4\r\nPING\r\n", []string{"Protocol error: expected '$', got '*'"}},
	{"wrong type", "*1\r\n:1\r\n", []string{"Protocol error: expected '$', got ':'"}},
	{"wrong type, unprintable", "*1\r\n\x00", []string{`Protocol error: expected '$', got '\x00'`}},
	{"body too long", "*1\r\n$4\r\nPINGX\r\n", []string{"Protocol error: bulk string not terminated by CRLF"}},
	{"body too short", "*2\r\n$4\r\nGET\r\n$1\r\nk\r\n", []string{"Protocol error: bulk string not terminated by CRLF"}},
	{"body ends with LF LF", "*1\r\n$4\r\nPING\n\n", []string{"Protocol error: bulk string not terminated by CRLF"}},
	{"body ends with CR CR", "*1\r\n$4\r\nPING\r\r", []string{"Protocol error: bulk string not terminated by CRLF"}},

	{"bulk at the limit", "*2\r\n$4\r\nECHO\r\n$16\r\n0123456789abcdef\r\n", []string{`["ECHO" "0123456789abcdef"]`}},
	{"bulk over the limit", "*2\r\n$4\r\nECHO\r\n$17\r\n0123456789abcdefg\r\nPING\r\n", []string{
		"argument 1 of the command has 17 bytes, the limit is 16", `["PING"]`}},
	{"first of two over the limit is named", "*3\r\n$99\r\n" + strings.Repeat("x", 99) + "\r\n$3\r\nabc\r\n$98\r\n" + strings.Repeat("y", 98) + "\r\nPING\r\n", []string{
		"argument 0 of the command has 99 bytes, the limit is 16", `["PING"]`}},
	{"refused, then refused", "*1\r\n$17\r\n0123456789abcdefg\r\n*1\r\n$18\r\n0123456789abcdefgh\r\n", []string{
		"argument 0 of the command has 17 bytes, the limit is 16", "argument 0 of the command has 18 bytes, the limit is 16"}},
	{"refused and malformed", "*2\r\n$17\r\n0123456789abcdefg\r\n:1\r\n", []string{"Protocol error: expected '$', got ':'"}},
	{"refused without line end", "*1\r\n$17\r\n0123456789abcdefgXX", []string{"Protocol error: bulk string not terminated by CRLF"}},
	{"refused and unfinished", "*1\r\n$1000\r\n0123", nil},
	{"frame at the limit", "*4\r\n" + strings.Repeat("$9\r\n012345678\r\n", 4), []string{`["012345678" "012345678" "012345678" "012345678"]`}},
	{"frame over the limit", "*4\r\n$16\r\n0123456789abcdef\r\n$16\r\n0123456789abcdef\r\n$16\r\n0123456789abcdef\r\n$1\r\nx\r\nPING\r\n", []string{
		"the command has 80 bytes, the limit is 64", `["PING"]`}},
	{"too many arguments", "*5\r\n" + strings.Repeat("$1\r\nx\r\n", 5) + "PING\r\n", []string{
		"the command has 5 arguments, the limit is 4", `["PING"]`}},
}

func TestDecode(t *testing.T) {
	for _, c := range decodeCases {
		t.Run(c.name, func(t *testing.T) {
			for _, piece := range []int{max(1, len(c.input)), 1, 2, 3, 7} {
				require.Equal(t, c.want, feed(t, small, []byte(c.input), piece), "in pieces of %d", piece)
			}
		})
	}
}

// A command cut in two at any place is the same command.
func TestDecodeSplitAtEveryBoundary(t *testing.T) {
	for _, c := range decodeCases {
		for i := range c.input {
			require.Equal(t, c.want, feedTwo(t, c.input[:i], c.input[i:]), "%s, split at %d", c.name, i)
		}
	}
}

func feedTwo(t *testing.T, a, b string) []string {
	if a == "" {
		return feed(t, small, []byte(b), max(1, len(b)))
	}
	d := resp.NewDecoder(small)
	var out []string
	buf := []byte(a)
	for rest := b; ; {
		cmd, n, err := d.Next(buf)
		buf = buf[n:]
		switch {
		case err == nil:
			out = append(out, fmt.Sprintf("%q", [][]byte(cmd)))
			continue
		case !errors.Is(err, resp.ErrMore):
			out = append(out, err.Error())
			if fatal := (*resp.ProtocolError)(nil); errors.As(err, &fatal) {
				return out
			}
			continue
		case rest == "":
			return out
		}
		buf = append(bytes.Clone(buf), rest...)
		rest = ""
	}
}

// Whatever the commands and however they are cut, they come out as they went
// in.
func TestDecodeRoundTrip(t *testing.T) {
	limits := resp.Limits{MaxArgs: 20, MaxBulk: 1000, MaxFrame: 40_000, MaxInline: 1000}
	rapid.Check(t, func(t *rapid.T) {
		var input []byte
		var want []string
		for range rapid.IntRange(1, 5).Draw(t, "commands") {
			args := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 1000), 1, 20).Draw(t, "args")
			input = resp.AppendArray(input, len(args))
			for _, a := range args {
				input = resp.AppendBulk(input, a)
			}
			want = append(want, fmt.Sprintf("%q", args))
		}
		piece := rapid.IntRange(1, len(input)).Draw(t, "piece")
		require.Equal(t, want, feed(t, limits, input, piece))
	})
}

// Bytes that were parsed are not looked at again: a command in many pieces
// costs as much as in one. The bytes are overwritten to show it.
func TestDecodeReadsEveryByteOnce(t *testing.T) {
	const args = 100_001
	input := resp.AppendBulkString(resp.AppendArray(nil, args), "MSET")
	for i := range args - 1 {
		input = resp.AppendBulkString(input, fmt.Sprintf("%06d", i))
	}
	d := resp.NewDecoder(resp.Limits{})
	const piece = 61
	for end := 0; end < len(input); end = min(end+piece, len(input)) {
		_, n, err := d.Next(input[:end])
		require.ErrorIs(t, err, resp.ErrMore)
		require.Zero(t, n)
		if end > 64 {
			copy(input[max(0, end-64-piece):end-64], strings.Repeat("x", piece))
		}
	}
	cmd, n, err := d.Next(input)
	require.NoError(t, err)
	require.Equal(t, len(input), n)
	require.Len(t, cmd, args)
	require.Equal(t, "099999", string(cmd[args-1]))
}

// A line of text is searched for its end once, too.
func TestDecodeSearchesInlineOnce(t *testing.T) {
	d := resp.NewDecoder(resp.Limits{})
	input := []byte(strings.Repeat("x", 1000))
	_, _, err := d.Next(input)
	require.ErrorIs(t, err, resp.ErrMore)
	input[500] = '\n'
	_, _, err = d.Next(input)
	require.ErrorIs(t, err, resp.ErrMore)
}

func TestWantMore(t *testing.T) {
	d := resp.NewDecoder(resp.Limits{})
	want := func(input string, more int) {
		t.Helper()
		_, _, err := d.Next([]byte(input))
		require.ErrorIs(t, err, resp.ErrMore)
		require.Equal(t, more, d.WantMore())
	}
	want("", 0)
	want("*1\r\n$10", 0)
	want("*1\r\n$1000\r\n", 1002)
	want("*1\r\n$1000\r\nabc", 999)
	want("*1\r\n$1000\r\n"+strings.Repeat("x", 1000)+"\r", 1)

	_, _, err := d.Next([]byte("*1\r\n$1000\r\n" + strings.Repeat("x", 1000) + "\r\n"))
	require.NoError(t, err)
	require.Zero(t, d.WantMore())

	// What will be dropped is not asked for.
	want("*1\r\n$500000000\r\nabc", 0)
}

// A 400 MiB argument is dropped as it comes: no call leaves bytes to be kept.
func TestRefusedBytesAreNotKept(t *testing.T) {
	d := resp.NewDecoder(resp.Limits{})
	const size = 400 << 20
	head := []byte("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$419430400\r\n")
	_, n, err := d.Next(head)
	require.ErrorIs(t, err, resp.ErrMore)
	require.Equal(t, len(head), n)
	piece := make([]byte, 1<<20)
	for range size / len(piece) {
		_, n, err := d.Next(piece)
		require.ErrorIs(t, err, resp.ErrMore)
		require.Equal(t, len(piece), n)
	}
	_, n, err = d.Next([]byte("\r\nPING\r\n"))
	require.Equal(t, &resp.LimitError{What: resp.LimitBulk, Arg: 2, Size: size, Max: api.DefaultMaxValue}, err)
	require.Equal(t, 2, n)
	cmd, _, err := d.Next([]byte("PING\r\n"))
	require.NoError(t, err)
	require.Equal(t, "PING", string(cmd[0]))
}

// What one huge command needed is given back with the next call: the buffer it
// was in, and the slices that held its arguments.
func TestDecoderGivesMemoryBack(t *testing.T) {
	input := resp.AppendArray(nil, 200_000)
	for range 200_000 {
		input = resp.AppendBulkString(input, "x")
	}
	next := func(d *resp.Decoder, input []byte) {
		_, _, err := d.Next(input)
		require.NoError(t, err)
		_, _, err = d.Next(nil)
		require.ErrorIs(t, err, resp.ErrMore)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	decoders := make([]*resp.Decoder, 5)
	for i := range decoders {
		decoders[i] = resp.NewDecoder(resp.Limits{})
		next(decoders[i], input)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	require.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(1<<20))

	input = resp.AppendCommand(nil, "ECHO", strings.Repeat("x", 1000))
	watch := weak.Make(&input[0])
	next(decoders[0], input)
	runtime.GC()
	require.Nil(t, watch.Value(), "the decoder keeps a buffer alive")
	runtime.KeepAlive(decoders)
}

// Views cannot be appended to over the bytes that follow them.
func TestViewsAreClipped(t *testing.T) {
	for _, input := range []string{"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", "GET k\r\n"} {
		cmd, _, err := resp.NewDecoder(resp.Limits{}).Next([]byte(input))
		require.NoError(t, err)
		for _, a := range cmd {
			require.Equal(t, len(a), cap(a))
		}
	}
}

func TestDecodeAndEncodeDoNotAllocate(t *testing.T) {
	d := resp.NewDecoder(resp.Limits{})
	input := []byte("*2\r\n$3\r\nGET\r\n$10\r\nproduct:42\r\n")
	value := bytes.Repeat([]byte("v"), 100)
	out := make([]byte, 0, 1024)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		cmd, n, err := d.Next(input)
		if err != nil || n != len(input) || len(cmd) != 2 {
			t.Error("not decoded")
		}
		out = resp.AppendBulk(out[:0], value)
		out = resp.RESP3.AppendNull(out)
		out = resp.AppendInt(out, 12345)
		if _, _, err := d.Next(input[:20]); !errors.Is(err, resp.ErrMore) {
			t.Error("not ErrMore")
		}
	}))
}

func FuzzDecoder(f *testing.F) {
	for _, c := range decodeCases {
		f.Add([]byte(c.input), uint8(3))
	}
	f.Fuzz(func(t *testing.T, input []byte, piece uint8) {
		whole := feed(t, small, input, max(1, len(input)))
		require.Equal(t, whole, feed(t, small, input, 1))
		require.Equal(t, whole, feed(t, small, input, int(piece)+1))
	})
}

func BenchmarkDecode(b *testing.B) {
	for _, c := range []struct {
		name string
		args []string
	}{
		{"GET", []string{"GET", "product:42"}},
		{"SET1KiB", []string{"SET", "product:42", strings.Repeat("v", 1024), "EX", "60"}},
		{"MSET1000", append([]string{"MSET"}, strings.Fields(strings.Repeat("key value ", 500))...)},
	} {
		b.Run(c.name, func(b *testing.B) {
			d := resp.NewDecoder(resp.Limits{})
			input := resp.AppendCommand(nil, c.args...)
			b.SetBytes(int64(len(input)))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := d.Next(input); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecodeMSETInPieces(b *testing.B) {
	input := resp.AppendCommand(nil, append([]string{"MSET"}, strings.Fields(strings.Repeat("key value ", 50_000))...)...)
	b.SetBytes(int64(len(input)))
	for b.Loop() {
		d := resp.NewDecoder(resp.Limits{})
		for end := 0; end <= len(input); end += 4096 {
			if _, _, err := d.Next(input[:end]); !errors.Is(err, resp.ErrMore) {
				b.Fatal(err)
			}
		}
	}
}
