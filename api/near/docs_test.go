package near_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/near"
)

var update = flag.Bool("update", false, "write the tables of docs/protocol.md and the vectors anew")

const protocol = "../../docs/protocol.md"

// The tables of messages in the documentation are those of the code.
func TestDocumentedMessages(t *testing.T) {
	page, err := os.ReadFile(protocol)
	require.NoError(t, err)
	text := string(page)
	for name, rows := range map[string]string{"requests": requestRows(), "pushes": pushRows()} {
		begin := strings.Index(text, "<!-- "+name+":")
		require.Positive(t, begin, name)
		rule := begin + strings.Index(text[begin:], "|---|")
		from := rule + strings.Index(text[rule:], "\n") + 1
		to := from + strings.Index(text[from:], "\n\n") + 1
		if strings.HasPrefix(text[from:], "\n") {
			to = from
		}
		if *update {
			text = text[:from] + rows + text[to:]
			continue
		}
		require.Equal(t, rows, text[from:to], "go test ./api/near -update")
	}
	if *update {
		require.NoError(t, os.WriteFile(protocol, []byte(text), 0o644))
	}
}

func requestRows() string {
	var b strings.Builder
	for _, k := range near.Kinds() {
		if k.IsRequest() {
			fmt.Fprintf(&b, "| `0x%02x` | `%s` | %s | `0x%02x`: %s |\n", uint8(k), k, fields(k), uint8(k.Answer()), fields(k.Answer()))
		}
	}
	fmt.Fprintf(&b, "| | any | | `0x%02x` `%s`: %s |\n", uint8(near.KindError), near.KindError, fields(near.KindError))
	return b.String()
}

func pushRows() string {
	var b strings.Builder
	for _, k := range near.Kinds() {
		if k.IsPush() {
			fmt.Fprintf(&b, "| `0x%02x` | `%s` | %s |\n", uint8(k), k, fields(k))
		}
	}
	return b.String()
}

func fields(k near.Kind) string {
	var all []string
	for _, f := range near.Fields(k) {
		all = append(all, fmt.Sprintf("`%s` %s", f.Name, f.Type))
	}
	if all == nil {
		return "none"
	}
	return strings.Join(all, ", ")
}

// Every code has a row.
func TestDocumentedCodes(t *testing.T) {
	page, err := os.ReadFile(protocol)
	require.NoError(t, err)
	for code := near.Failed; code <= near.Ending; code++ {
		require.Contains(t, string(page), fmt.Sprintf("\n| %d | `%s` | ", code, code))
	}
	require.Equal(t, "18", (near.Ending + 1).String(), "a new code needs a row")
}

// The frames that the page shows are those that are sent.
func TestDocumentedFrames(t *testing.T) {
	page, err := os.ReadFile(protocol)
	require.NoError(t, err)
	value := near.EndValue(append(near.BeginValue(nil, 7), "hello"...), 0, &near.Value{Status: near.Hit, Version: 7, AsOf: 50_000_000_000_000})
	for _, frame := range [][]byte{
		{near.Magic, byte(near.KindGet), 0, 0, 0, 7, 0, 0, 0, 12, 0x91, 0xc4, 9, 'p', 'r', 'o', 'd', 'u', 'c', 't', ':', '1'},
		value,
	} {
		shown := squeeze(string(page))
		require.True(t, strings.Contains(shown, fmt.Sprintf("%x", frame)), "%x", frame)
		_, _, err := near.Next(frame)
		require.NoError(t, err)
	}
}

func squeeze(s string) string { return strings.NewReplacer(" ", "", "\n", "").Replace(s) }
