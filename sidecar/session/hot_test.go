package session_test

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/session"
)

// A hit allocates nothing, whether commands are looked ahead at or not.
func TestHitsDoNotAllocate(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial(t)
	hitsDoNotAllocate(t, p)
	many(t, r)
	hitsDoNotAllocate(t, p)
}

func hitsDoNotAllocate(t *testing.T, p *peer) {
	for _, size := range []int{1, 100, 10_000} {
		value := strings.Repeat("v", size)
		key := "ns:key" + strconv.Itoa(size)
		require.Equal(t, "+OK|", p.args("SET", key, value))
		space := make([]byte, 0, 1<<20)
		const depth = 4
		request := bytes.Repeat(resp.AppendCommand(nil, "GET", key), depth)
		require.Zero(t, testing.AllocsPerRun(100, func() {
			n, out, next := p.s.Serve(request, space)
			if n != len(request) || len(out) < depth*size || next != session.Input {
				t.Error("no answer")
			}
		}))
	}
}

// many makes the cache hold so much that prefetching is of use.
func many(t *testing.T, r *rig) {
	now := r.Clock.Now()
	for i := 0; !r.Prefetches(); i++ {
		key := "many:" + strconv.Itoa(i)
		_, _ = r.Get(key, nil, now)
		require.Equal(t, coherence.Stored, r.Set(key, []byte("v"), cache.TTL{}))
		require.Less(t, i, 1<<16)
	}
}

// The header of a value is right, whatever the length of the one before.
func TestHeadersOfValues(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial(t)
	for i, size := range []int{5, 10, 1, 100_000, 99, 0, 1000, 1000} {
		value := strings.Repeat("v", size)
		key := "k" + strconv.Itoa(i)
		require.Equal(t, "+OK|", p.args("SET", key, value))
		require.Equal(t, shown(string(resp.AppendBulkString(nil, value))), p.do("GET "+key))
		require.Equal(t, "$-1|", p.do("GET nothing"))
		require.Equal(t, shown(string(resp.AppendArray(nil, 3))+"$-1\r\n"+strings.Repeat(string(resp.AppendBulkString(nil, value)), 2)), p.args("MGET", "nothing", key, key))
	}
}

// Every command is found by its name in any case, and nothing else is.
func TestNamesOfCommands(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial(t)
	names := p.reply("COMMAND")
	require.Greater(t, len(names.Elems), 40)
	for _, c := range names.Elems {
		name := c.Elems[0].Str
		for _, spelled := range []string{strings.ToLower(name), strings.ToUpper(name)} {
			require.NotContains(t, r.dial(t).args(spelled), "unknown command", spelled)
		}
		for _, wrong := range []string{"\x00" + name, name + "\x00", name[1:] + "q", strings.Repeat("x", 20) + name} {
			require.Contains(t, r.dial(t).args(wrong), "unknown command", "%q", wrong)
		}
	}
}
