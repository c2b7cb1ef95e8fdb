package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/session"
)

func TestDescribeEvent(t *testing.T) {
	stored := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.Local)
	for want, e := range map[string]session.Event{
		"03:04:05.007                7      1ms  invalidate a b@5\n":                                                                            {Seq: 7, Op: "invalidate", LagMicros: 1000, Keys: []session.EventKey{{Key: "a"}, {Key: "b", Version: 5}}},
		"03:04:05.006 1795221972866971    250µs  flush      namespace shop\n":                                                                   {Seq: 1795221972866971, Op: "flush", Namespace: "shop", LagMicros: 250},
		"03:04:06.240                7    1.23s  flush      the whole domain\n":                                                                 {Seq: 7, Op: "flush", LagMicros: 1_234_000},
		"03:04:04.993                7    -12ms  refresh    tag x prefix a:\n":                                                                  {Seq: 7, Op: "refresh", LagMicros: -12_003, Namespace: "a", Tags: []string{"x"}, Prefix: "a:"},
		"03:04:05.006                7       0s  invalidate a and 3 more keys\n":                                                                {Seq: 7, Op: "invalidate", Keys: []session.EventKey{{Key: "a"}}, MoreKeys: 3},
		"03:04:05.006                7       0s  invalidate \"\\x1b[2Ja\\nb\"\n":                                                                {Seq: 7, Op: "invalidate", Keys: []session.EventKey{{Key: "\x1b[2Ja\nb"}}},
		"03:04:05.006                7       0s             not understood, its namespace is flushed: bad\n":                                    {Seq: 7, Error: "bad", Namespace: "a"},
		"(9 events are not shown: they came faster than they were read)\n03:04:05.006                7       0s  fork       the whole domain\n": {Seq: 7, Op: "fork", Lost: 9},
	} {
		e.Stored = stored
		require.Equal(t, want, describeEvent(e))
	}
}

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"": `""`, "a": "a", "naïve 7": "naïve 7", `say "hi" \ so`: `say "hi" \ so`,
		"a\tb": `"a\tb"`, "\x1b[2J": `"\x1b[2J"`, "\xff": `"\xff"`, "\u202e": `"\u202e"`,
	} {
		require.Equal(t, want, printable(text))
	}
}

func TestSplitVersion(t *testing.T) {
	for arg, want := range map[string][2]string{
		"a": {"a", "0"}, "a@5": {"a", "5"}, "user@example.org": {"user@example.org", "0"}, "u@7@0": {"u@7", "0"},
		"a@": {"a@", "0"}, "@5": {"@5", "0"}, "a@-1": {"a@-1", "0"}, "a@99999999999999999999": {"a@99999999999999999999", "0"},
	} {
		key, version := splitVersion(arg)
		require.Equal(t, want, [2]string{key, version}, arg)
	}
}

func TestPairsFitTheScreen(t *testing.T) {
	var b strings.Builder
	pairs := []pair{{"next_read", "HIT"}, {"x", strings.TrimSpace(strings.Repeat("word ", 30))}, {"y", strings.Repeat("z", 100)}, {"ready", true}}
	require.NoError(t, output(outputText).printPairs(&b, pairs))
	require.Equal(t, "next read  HIT\n"+
		"x          "+strings.Repeat("word ", 12)+"word word\n"+
		"           "+strings.Repeat("word ", 12)+"word word\n"+
		"           word word\n"+
		"y          "+strings.Repeat("z", 100)+"\nready      yes\n", b.String())
	b.Reset()
	require.NoError(t, output(outputJSON).printPairs(&b, pairs[3:]))
	require.Equal(t, "{\"ready\":true}\n", b.String())
}
