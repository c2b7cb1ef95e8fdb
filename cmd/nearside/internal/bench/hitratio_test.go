package bench_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/cmd/nearside/internal/bench"
)

func readTrace(t *testing.T, spec, format, stdin string) (keys []string, err error) {
	trace, endless, err := bench.OpenTrace(spec, format, strings.NewReader(stdin))
	if err != nil {
		return nil, err
	}
	defer func() { require.NoError(t, trace.Close()) }()
	require.False(t, endless)
	for {
		key, err := trace.Next()
		if errors.Is(err, io.EOF) {
			return keys, nil
		}
		if err != nil {
			return keys, err
		}
		keys = append(keys, string(key))
	}
}

func TestTraces(t *testing.T) {
	keys, err := readTrace(t, "-", bench.FormatKeys, "a\nb c\r\n\na\nlast")
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b c", "a", "last"}, keys)

	keys, err = readTrace(t, "-", bench.FormatARC, "10 3 0 1\n\n7 1 0 2\n5 0 0 3\n  \n9 1\n")
	require.NoError(t, err)
	require.Equal(t, []string{"10", "11", "12", "7", "9"}, keys)

	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err = io.WriteString(w, "1 2\n")
	require.NoError(t, err)
	require.NoError(t, w.Close())
	name := filepath.Join(t.TempDir(), "trace.gz")
	require.NoError(t, os.WriteFile(name, packed.Bytes(), 0o600))
	keys, err = readTrace(t, name, bench.FormatARC, "")
	require.NoError(t, err)
	require.Equal(t, []string{"1", "2"}, keys)
}

func TestFaultsOfTracesSayWhere(t *testing.T) {
	name := filepath.Join(t.TempDir(), "trace.gz")
	require.NoError(t, os.WriteFile(name, []byte("this is not packed"), 0o600))
	for _, c := range []struct{ spec, format, stdin, want string }{
		{"-", bench.FormatARC, "1 1\nx 1\n", `-: line 2 is "x 1": want the number of a block`},
		{"-", bench.FormatARC, "1\n", `line 1 is "1"`},
		{"-", bench.FormatARC, "1 99999999\n", `line 1 is`},
		{"-", bench.FormatARC, "-1 1\n", `line 1 is`},
		{"-", bench.FormatKeys, "a\n" + strings.Repeat("x", 66_000), "line 2 is longer than a key can be"},
		{"nowhere", bench.FormatKeys, "", "no such file"},
		{name, bench.FormatKeys, "", "gzip"},
		{"zipf:x:10", bench.FormatKeys, "", "want zipf:EXPONENT:KEYS"},
		{"zipf:1", bench.FormatKeys, "", "want zipf:EXPONENT:KEYS"},
	} {
		_, err := readTrace(t, c.spec, c.format, c.stdin)
		require.ErrorIs(t, err, bench.ErrTrace, c.want)
		require.ErrorContains(t, err, c.want)
	}
	_, _, err := bench.OpenTrace("zipf:9:10", "", nil)
	require.ErrorContains(t, err, "zipf is 9")
}

func FuzzTrace(f *testing.F) {
	f.Add("10 3 0 1\n7 1", true)
	f.Add("a\n\nb", false)
	f.Fuzz(func(t *testing.T, text string, arc bool) {
		format := bench.FormatKeys
		if arc {
			format = bench.FormatARC
		}
		trace, _, err := bench.OpenTrace("-", format, strings.NewReader(text))
		require.NoError(t, err)
		for range 1000 {
			if _, err := trace.Next(); err != nil {
				return
			}
		}
	})
}

// A server that forgets nothing has the best hit ratio that there is; the order is
// the trace's.
func TestHitRatio(t *testing.T) {
	s := newServer(t)
	trace, _, err := bench.OpenTrace("-", bench.FormatKeys, strings.NewReader("a\nb\na\nc\na\nb\nd\na\n"))
	require.NoError(t, err)
	var rec bench.Recorder
	h := bench.HitRatio{Prefix: "p:", Size: 5, Pipeline: 1}
	did, err := h.Run(t.Context(), s.target(), trace, &rec)
	require.NoError(t, err)
	require.EqualValues(t, 4, did.Distinct)
	c := rec.Counts()
	require.EqualValues(t, 4, c.Hits)
	require.EqualValues(t, 4, c.Misses)
	require.EqualValues(t, 12, c.Answered, "8 reads and 4 stores")
	require.Equal(t, map[string]string{"p:a": "xxxxx", "p:b": "xxxxx", "p:c": "xxxxx", "p:d": "xxxxx"}, s.values)
}

func TestHitRatioEnds(t *testing.T) {
	for _, pipeline := range []int{1, 7, 1000} {
		s := newServer(t)
		trace, endless, err := bench.OpenTrace("zipf:0.99:100", "", nil)
		require.NoError(t, err)
		require.True(t, endless)
		var rec bench.Recorder
		did, err := bench.HitRatio{Prefix: "p:", Size: 5, Pipeline: pipeline, Requests: 2000}.Run(t.Context(), s.target(), trace, &rec)
		require.NoError(t, err)
		require.EqualValues(t, 2000, rec.Counts().Hits+rec.Counts().Misses)
		require.EqualValues(t, len(s.values), did.Distinct)
		if pipeline == 1 {
			require.EqualValues(t, did.Distinct, rec.Counts().Misses)
		}
	}
	s := newServer(t)
	trace, _, err := bench.OpenTrace("zipf:0:10", "", nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	s.before = func(string) []byte {
		if n++; n == 100 {
			cancel()
		}
		return nil
	}
	did, err := bench.HitRatio{Prefix: "p:", Size: 5, Pipeline: 1}.Run(ctx, s.target(), trace, new(bench.Recorder))
	require.NoError(t, err)
	require.True(t, did.Interrupted)

	long, _, err := bench.OpenTrace("-", bench.FormatKeys, strings.NewReader(strings.Repeat("k", 65_530)))
	require.NoError(t, err)
	_, err = bench.HitRatio{Prefix: "prefix:", Pipeline: 1}.Run(t.Context(), newServer(t).target(), long, new(bench.Recorder))
	require.ErrorIs(t, err, bench.ErrTrace)
	require.ErrorContains(t, err, strconv.Itoa(65_537)+" bytes")
}
