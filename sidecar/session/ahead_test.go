package session_test

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/session"
)

// gets is a pipeline of n GETs, every third as some clients spell it, of keys that many
// stores.
func gets(n int) (in []byte) {
	for i := range n {
		name := "GET"
		if i%3 == 0 {
			name = "get"
		}
		in = resp.AppendCommand(in, name, "many:"+strconv.Itoa(i))
	}
	return in
}

// What a run of GETs reads is prefetched, piece by piece, whoever looks ahead; and only
// where memory is waited for.
func TestRunOfGetsIsLookedAheadAt(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial(t)
	keys := make([]string, 0, cache.PrefetchKeys)
	require.Empty(t, p.s.Ahead(gets(8), keys), "there is next to nothing to wait for")
	many(t, r)

	in := append(gets(8), "PING\r\n"...)
	got := p.s.Ahead(in, append(keys, "another's"))
	require.Equal(t, append(keysOf(8), "another's"), append(got[1:], got[0]))
	require.Equal(t, 8, p.s.LookedAhead())
	require.Equal(t, strings.Repeat("$1|v|", 8)+"+PONG|", shown(p.feed(in)))
	require.Zero(t, p.s.LookedAhead())

	require.Len(t, r.dial(t).s.Ahead(gets(100), keys), cache.PrefetchKeys)
	for _, n := range []int{1, 63, 64, 65, 300} {
		require.Equal(t, strings.Repeat("$1|v|", n), shown(p.feed(gets(n))))
		require.Zero(t, p.s.LookedAhead())
	}
	// A Serve that must stop in between shows what it has looked ahead at.
	require.Equal(t, "$-1|", p.do("GET big"))
	require.Equal(t, "+OK|", p.args("SET", "big", strings.Repeat("v", 70<<10)))
	in = append(resp.AppendCommand(nil, "GET", "big"), gets(40)...)
	n, _, next := p.s.Serve(in, nil)
	require.Equal(t, session.Flush, next)
	require.Equal(t, len(in)-len(gets(40)), n)
	require.Equal(t, 40, p.s.LookedAhead())
}

func keysOf(n int) (keys []string) {
	for i := range n {
		keys = append(keys, "many:"+strconv.Itoa(i))
	}
	return keys
}

// Looking ahead takes whole, plain GETs for such and nothing else, and allocates nothing.
func TestAheadTakesOnlyPlainGets(t *testing.T) {
	r := newRig(t, nil)
	many(t, r)
	p := r.dial(t)
	keys := make([]string, 0, cache.PrefetchKeys)
	whole := resp.AppendCommand(nil, "GET", "key")
	for n := range whole {
		require.Empty(t, p.s.Ahead(whole[:n], keys), "%q", whole[:n])
	}
	require.Equal(t, []string{"key"}, p.s.Ahead(whole, keys))
	for _, in := range []string{
		"GET key\r\n", "*2\r\n$3\r\nSET\r\n$3\r\nkey\r\n", "*3\r\n$3\r\nGET\r\n$3\r\nkey\r\n$1\r\nx\r\n",
		"*2\r\n$3\r\nGET\r\n$-1\r\nkey\r\n", "*2\r\n$3\r\nGET\r\n$\r\nkey\r\n", "*2\r\n$3\r\nGET\r\n$9999\r\n" + strings.Repeat("k", 9999) + "\r\n",
		"*2\r\n$3\r\nGET\r\n$99", "\r\n", "",
	} {
		require.Empty(t, p.s.Ahead([]byte(in), keys), "%q", in)
	}
	in := gets(64)
	require.Zero(t, testing.AllocsPerRun(100, func() { p.s.Ahead(in, keys) }))
}

// The keys of a long MGET are prefetched as well: its answer is what it was.
func TestLongMGet(t *testing.T) {
	r := newRig(t, nil)
	many(t, r)
	for _, n := range []int{1, 4, 64, 65, 200} {
		want := resp.AppendArray(nil, n)
		want = append(want, bytes.Repeat([]byte("$1\r\nv\r\n"), n)...)
		require.Equal(t, shown(string(want)), r.dial(t).args(append([]string{"MGET"}, keysOf(n)...)...))
	}
}
