package session_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/nearside-cache/nearside/sidecar/session"
)

// walk scans to the end and returns all keys, sorted.
func (p *peer) walk(options string) (all []string) {
	for cursor := "0"; ; {
		r := p.reply("SCAN " + cursor + options)
		cursor = r.Elems[0].Str
		for _, e := range r.Elems[1].Elems {
			all = append(all, e.Str)
		}
		if cursor == "0" {
			slices.Sort(all)
			return all
		}
	}
}

func TestScanWalksAll(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial(t)
	var all, odd []string
	for i := range 1000 {
		k := fmt.Sprintf("ns:%04d", i)
		p.do("SET " + k + " v")
		all = append(all, k)
		if i%2 == 1 {
			odd = append(odd, k)
		}
	}
	for _, options := range []string{"", " COUNT 1", " COUNT 7", " COUNT 100000", " TYPE string", " MATCH ns:*"} {
		require.Equal(t, all, p.walk(options), options)
	}
	require.Equal(t, odd, p.walk(" MATCH *[13579]"))
	require.Empty(t, p.walk(" TYPE hash"))
	require.Equal(t, []string{"ns:0042"}, p.walk(" MATCH ns:0042 COUNT 50"))
	r.Clock.Advance(time.Hour)
	require.Empty(t, p.walk(""), "what has expired is not listed")
}

// However long the keys are, a step of a scan stays small.
func TestScanOfLongKeys(t *testing.T) {
	p := newRig(t, nil).dial(t)
	const n, size = 100, 60_000
	for i := range n {
		p.args("SET", fmt.Sprintf("%0*d", size, i), "v")
	}
	p.most = 0
	require.Len(t, p.walk(" COUNT 1000"), n)
	require.Less(t, p.most, 64<<10+17*size)
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern string
		yes, no []string
	}{
		{"", []string{""}, []string{"a"}},
		{"*", []string{"", "a", "a:b"}, nil},
		{"a*", []string{"a", "ab", "a*"}, []string{"", "ba"}},
		{"*a*b", []string{"ab", "xaxb", "aabab"}, []string{"ba", "abx"}},
		{"a?c", []string{"abc", "a?c", "a\xffc"}, []string{"ac", "abbc"}},
		{"[abc]x", []string{"ax", "cx"}, []string{"dx", "x"}},
		{"[a-c]", []string{"a", "b", "c"}, []string{"d", "-"}},
		{"[c-a]", []string{"b"}, []string{"d"}},
		{"[^a-c]", []string{"d", "^"}, []string{"a", ""}},
		{"[a-]", []string{"a", "-"}, []string{"b"}},
		{`[\]]`, []string{"]"}, []string{`\`}},
		{"[]", nil, []string{"", "[", "]", "[]"}},
		{"[^]", []string{"a"}, []string{"", "ab"}},
		{"[abc", []string{"a", "c"}, []string{"[abc", "d"}},
		{`\*`, []string{"*"}, []string{"a", `\*`}},
		{`a\`, []string{`a\`}, []string{"a"}},
		{`\`, []string{`\`}, []string{""}},
		{strings.Repeat("a*", 50) + "b", nil, []string{strings.Repeat("a", 5000)}}, // no exponential time
	} {
		for _, text := range c.yes {
			require.True(t, session.GlobMatch(c.pattern, text), "%q should match %q", c.pattern, text)
		}
		for _, text := range c.no {
			require.False(t, session.GlobMatch(c.pattern, text), "%q should not match %.20q", c.pattern, text)
		}
	}
}

// globReference says the same as slowly and simply as it can be said: a pattern
// is a list of sets of bytes and stars.
func globReference(pattern, text string) bool {
	if pattern == "" {
		return text == ""
	}
	if pattern[0] == '*' {
		return globReference(pattern[1:], text) || text != "" && globReference(pattern, text[1:])
	}
	set, rest := globSet(pattern)
	return text != "" && set[text[0]] && globReference(rest, text[1:])
}

func globSet(pattern string) (set [256]bool, rest string) {
	switch {
	case pattern[0] == '?':
		for i := range set {
			set[i] = true
		}
		return set, pattern[1:]
	case pattern[0] == '\\' && len(pattern) > 1:
		set[pattern[1]] = true
		return set, pattern[2:]
	case pattern[0] != '[':
		set[pattern[0]] = true
		return set, pattern[1:]
	}
	rest, not := strings.CutPrefix(pattern[1:], "^")
	for rest != "" && rest[0] != ']' {
		if rest[0] == '\\' && len(rest) > 1 {
			rest = rest[1:]
		}
		lo, hi := rest[0], rest[0]
		if len(rest) > 2 && rest[1] == '-' && rest[2] != ']' {
			hi, rest = rest[2], rest[2:]
		}
		for c := int(min(lo, hi)); c <= int(max(lo, hi)); c++ {
			set[c] = true
		}
		rest = rest[1:]
	}
	if not {
		for i := range set {
			set[i] = !set[i]
		}
	}
	return set, strings.TrimPrefix(rest, "]")
}

func TestGlobAgainstReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringOfN(rapid.SampledFrom([]rune(`ab*?[]^-\`)), 0, 12, -1).Draw(t, "pattern")
		text := rapid.StringOfN(rapid.SampledFrom([]rune(`ab]^-\`)), 0, 8, -1).Draw(t, "text")
		if got, want := session.GlobMatch(pattern, text), globReference(pattern, text); got != want {
			t.Fatalf("%q matches %q: got %v, want %v", pattern, text, got, want)
		}
	})
}
