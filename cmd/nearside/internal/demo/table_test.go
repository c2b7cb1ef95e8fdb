package demo

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite the files of testdata")

func sample() report {
	pods := []podReport{
		{"pod-a", 123456, 119999, 3201, 87, 1795046400123456},
		{"pod-b", 98765, 95001, 2987, 1021, 1795046400123456},
		{"pod-c", 7, 0, 0, 0, 1795046400123455},
	}
	ms := time.Millisecond
	return report{
		records: 4000, elapsed: 12*time.Second + 300*ms, duration: 20 * time.Second, pods: pods,
		writes: 487, lag: quantiles{487, 870 * time.Microsecond, 3210 * time.Microsecond, 41 * ms},
		behind: quantiles{212, 400 * time.Microsecond, 2 * ms, 12 * ms}, old: 96,
	}
}

// huge fills every column.
func huge() report {
	const n = 4_000_000_000
	r := sample()
	r.elapsed, r.duration = 99*time.Hour, 100*time.Hour
	for i := range r.pods {
		r.pods[i] = podReport{"pod-a", n / 8, n / 8, 99_999_999, 9_999_999, 1<<53 - 1}
	}
	r.writes, r.old, r.stale = 99_999_999, 99_999_999, 99_999_999
	r.lag = quantiles{1, time.Minute, time.Minute, time.Minute}
	r.behind = quantiles{999_999_999, time.Minute, time.Minute, time.Minute}
	return r
}

func TestTableFitsEightyColumns(t *testing.T) {
	for name, r := range map[string]report{"sample": sample(), "huge": huge(), "empty": {pods: make([]podReport, 3)}} {
		for _, line := range table(r, paint{}) {
			require.LessOrEqual(t, utf8.RuneCountInString(line), width, "%s: %q", name, line)
		}
	}
	require.LessOrEqual(t, utf8.RuneCountInString(progress(sample())), width)
}

func TestTableLooksAsItShould(t *testing.T) {
	got := strings.Join(table(sample(), paint{}), "\n") + "\n\n" + progress(sample()) + "\n"
	if *update {
		require.NoError(t, os.WriteFile("testdata/table.txt", []byte(got), 0o644))
	}
	want, err := os.ReadFile("testdata/table.txt")
	require.NoError(t, err)
	require.Equal(t, string(want), got, "go test -run LooksAsItShould -update rewrites it")
}

func TestColoursChangeNoColumn(t *testing.T) {
	r := sample()
	plain := table(r, paint{})
	for i, line := range table(r, paint{on: true}) {
		for _, code := range []string{"0", "1", "2", "1;31", "1;32"} {
			line = strings.ReplaceAll(line, "\x1b["+code+"m", "")
		}
		require.Equal(t, plain[i], line)
	}
	r.stale = 1
	require.Contains(t, strings.Join(table(r, paint{on: true}), "\n"), "\x1b[1;31m           1\x1b[0m")
}

func TestScreenRefreshesInPlace(t *testing.T) {
	var out bytes.Buffer
	s := &screen{out: &out, live: true}
	s.show(sample())
	first := out.Len()
	require.NotContains(t, out.String(), "A\x1b", "nothing to go back over yet")
	s.show(sample())
	require.Contains(t, out.String()[first:], "\x1b[15A", "the second table is drawn over the first")
	require.True(t, strings.HasSuffix(out.String(), showCursor))

	out.Reset()
	s = newScreen(&out)
	s.show(sample())
	require.Equal(t, progress(sample())+"\n", out.String(), "no terminal: plain lines")
}
