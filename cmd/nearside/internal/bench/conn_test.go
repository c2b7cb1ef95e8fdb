package bench_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/cmd/nearside/internal/bench"
)

// input is a connection that only brings bytes.
type input struct {
	net.Conn
	io.Reader
}

func (i input) Read(p []byte) (int, error) { return i.Reader.Read(p) }

func TestReplies(t *testing.T) {
	large := strings.Repeat("v", 200_000)
	wire := "+OK\r\n$-1\r\n$3\r\nabc\r\n:42\r\n-ERR what\r\n_\r\n$0\r\n\r\n$200000\r\n" + large + "\r\n:1\r\n"
	want := []resp.Reply{
		{Kind: resp.KindSimple}, {}, {Kind: resp.KindBulk, Int: 3}, {Kind: resp.KindInt}, {Kind: resp.KindError, Str: "ERR what"},
		{}, {Kind: resp.KindBulk}, {Kind: resp.KindBulk, Int: 200_000}, {Kind: resp.KindInt},
	}
	for name, r := range map[string]io.Reader{
		"at once": strings.NewReader(wire), "by bytes": iotest.OneByteReader(strings.NewReader(wire)), "by halves": iotest.HalfReader(strings.NewReader(wire)),
	} {
		got, err := bench.ReadReplies(input{Reader: r}, len(want))
		require.NoError(t, err, name)
		require.Equal(t, want, got, name)
	}
}

func TestWhatIsNoReplyIsAnError(t *testing.T) {
	for wire, want := range map[string]string{
		"":                                "EOF",
		"$3\r\nab":                        "EOF",
		"$x\r\n":                          "invalid length",
		"$-2\r\n":                         "invalid length",
		"$99999999999\r\n":                "invalid length",
		"HTTP/1.1 400\r\n":                "speaks RESP",
		"*1\r\n":                          "unexpected reply",
		"\n":                              "malformed line",
		"+OK\n":                           "malformed line",
		"+" + strings.Repeat("x", 70_000): "too long line",
	} {
		_, err := bench.ReadReplies(input{Reader: strings.NewReader(wire)}, 1)
		require.ErrorContains(t, err, want, "%.20q", wire)
	}
}

// What the reader of answers takes, the reader of the protocol takes for the same.
func FuzzReplies(f *testing.F) {
	f.Add([]byte("+OK\r\n$-1\r\n$3\r\nabc\r\n"))
	f.Add([]byte("-ERR x\r\n:1\r\n_\r\n$0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		got, err := bench.ReadReplies(input{Reader: bytes.NewReader(wire)}, 3)
		theirs := bufio.NewReader(bytes.NewReader(wire))
		for i, g := range got {
			want, wantErr := resp.ReadReply(theirs, resp.ReplyLimits{})
			if wantErr != nil {
				// It skips a value's end and an integer's digits unseen.
				return
			}
			if g.Kind == resp.KindBulk {
				want.Int, want.Str = int64(len(want.Str)), ""
			}
			if g.Kind == want.Kind && g.Kind != resp.KindError {
				want.Str = ""
			}
			if g.Kind == resp.KindInt {
				want.Int = 0
				g.Int = 0
			}
			g.Int = max(g.Int, 0)
			require.Equal(t, want, g, "answer %d, then %v", i, err)
		}
	})
}
