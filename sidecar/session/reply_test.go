package session_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/cache"
)

// pipeline feeds commands at once.
func (p *peer) pipeline(commands ...string) string {
	var in []byte
	for _, c := range commands {
		in = resp.AppendCommand(in, strings.Fields(c)...)
	}
	return shown(p.feed(in))
}

func TestPipelineKeepsOrderAroundParkedCommands(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial(t)
	p.do("MSET a 1 b 2 c 3")
	require.Equal(t, "$1|1|:1|$-1|$1|2|$1|2|$-1|:1|+OK|$1|4|+PONG|",
		p.pipeline("GET a", "DEL a", "GET a", "GET b", "GETDEL b", "GET b", "DEL c x c", "SET d 4", "GET d", "PING"))
}

func TestReplyModes(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"skip the next":             {"CLIENT REPLY SKIP;PING;ECHO a", "$1|a|"},
		"skip twice":                {"CLIENT REPLY SKIP;CLIENT REPLY SKIP;PING;ECHO a", "$1|a|"},
		"skip a parked one":         {"CLIENT REPLY SKIP;DEL a;ECHO b", "$1|b|"},
		"skip an error":             {"CLIENT REPLY SKIP;FOO;ECHO b", "$1|b|"},
		"off":                       {"CLIENT REPLY OFF;PING;GET a;DEL a;FOO;MGET a b", ""},
		"off and on":                {"PING;CLIENT REPLY OFF;DEL a;PING;CLIENT REPLY ON;ECHO a", "+PONG|+OK|$1|a|"},
		"skip means nothing off":    {"CLIENT REPLY OFF;CLIENT REPLY SKIP;PING;CLIENT REPLY ON", "+OK|"},
		"parked under off, then on": {"CLIENT REPLY OFF;DEL a;GETDEL b;CLIENT REPLY ON;DEL a", "+OK|:0|"},
		"reset turns on":            {"CLIENT REPLY OFF;PING;RESET;PING", "+RESET|+PONG|"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, newRig(t, nil).dial(t).pipeline(strings.Split(c.in, ";")...))
		})
	}
}

// A command that is refused for its size is a command: its answer is left out
// like any other.
func TestReplyModesAndRefusedCommands(t *testing.T) {
	r := newRig(t, nil)
	r.env.Limits.MaxBulk = 100
	large := resp.AppendCommand(nil, "ECHO", strings.Repeat("x", 101))
	p := r.dial(t)
	require.Equal(t, "-ERR argument 1 of the command has 101 bytes, the limit is 100|", shown(p.feed(large)))
	p.do("CLIENT REPLY SKIP")
	require.Equal(t, "", p.feed(large))
	require.Equal(t, "+PONG|", p.do("PING"))
	p.do("CLIENT REPLY OFF")
	require.Equal(t, "", p.feed(large))
	require.Equal(t, "+OK|", p.do("CLIENT REPLY ON"))
	require.False(t, p.ended)
}

// The answers to one command do not pile up beyond the flush mark and a value.
func TestLargeAnswersGoOnInSteps(t *testing.T) {
	const n, size = 3000, 1000
	r := newRig(t, nil)
	p := r.dial(t)
	keys, want := make([]string, n), make([]string, 0, n)
	for i := range n {
		keys[i] = fmt.Sprintf("k%d", i)
		value := fmt.Sprintf("%0*d", size, i)
		if i%7 == 0 {
			want = append(want, "")
			continue
		}
		require.Equal(t, "+OK|", p.do("SET "+keys[i]+" "+value))
		want = append(want, value)
	}
	p.most = 0
	replies := parse(t, []byte(p.feed(append(
		resp.AppendCommand(nil, append([]string{"MGET"}, keys...)...), resp.AppendCommand(nil, "PING")...))))
	require.Len(t, replies, 2)
	require.Equal(t, "PONG", replies[1].Str)
	for i, e := range replies[0].Elems {
		require.Equal(t, want[i], e.Str)
	}
	const mark = 64 << 10
	require.LessOrEqual(t, p.most, mark+size+20)
	require.GreaterOrEqual(t, p.most, mark)

	p.pipeline("CLIENT REPLY OFF")
	_, out, _ := p.s.Serve(resp.AppendCommand(nil, append([]string{"MGET"}, keys...)...), nil)
	require.Less(t, cap(out), 2*mark, "what nobody reads does not pile up either")
}

func TestHello(t *testing.T) {
	p := newRig(t, nil).dial(t)
	require.Equal(t, "*16|$6|server|$5|redis|$7|version|$5|7.4.0|$16|nearside_version|$5|1.2.3|$5|proto|:2|$2|id|:1|$4|mode|$10|standalone|$4|role|$6|master|$7|modules|*0|",
		p.do("HELLO"))
	require.Equal(t, "-NOPROTO unsupported protocol version|", p.do("HELLO 4"))
	require.Equal(t, "-NOPROTO unsupported protocol version|", p.do("HELLO x"))
	require.Equal(t, "$-1|", p.do("GET a"), "still RESP2")
	require.Equal(t, "%8|", p.do("HELLO 3 SETNAME me")[:3])
	require.Equal(t, "_|", p.do("GET a"))
	require.Equal(t, "$2|me|", p.do("CLIENT GETNAME"))
	require.Equal(t, "-ERR Syntax error in HELLO option 'FOO'|", p.do("HELLO 2 FOO"))
	require.Equal(t, "_|", p.do("GET a"), "still RESP3")
	require.Equal(t, "-ERR Client names cannot contain spaces, newlines or special characters.|", p.args("HELLO", "2", "SETNAME", "a\nb"))
	require.Contains(t, p.args("HELLO", "2", "SETNAME", strings.Repeat("x", 257)), "-ERR a client's name and library have at most")
	require.Equal(t, "_|", p.do("GET a"))
	require.Equal(t, "*16|", p.do("HELLO 2 AUTH default x")[:4], "as Redis does without a password")
	require.Equal(t, "$-1|", p.do("GET a"))
	p.do("HELLO 3")
	require.Equal(t, "+RESET|", p.do("RESET"))
	require.Equal(t, "$-1|", p.do("GET a"), "RESET means RESP2")
	require.Equal(t, "$-1|", p.do("CLIENT GETNAME"), "and no name")
}

func TestAuth(t *testing.T) {
	r := newRig(t, nil)
	r.env.Password = "secret"
	p := r.dial(t)
	for _, command := range []string{"GET a", "CLIENT ID", "COMMAND", "NEAR.STATUS", "DEL a"} {
		require.Equal(t, "-NOAUTH Authentication required.|", p.do(command))
	}
	require.Equal(t, "+PONG|", p.do("PING"))
	require.Contains(t, p.do("HELLO 3"), "-NOAUTH HELLO must be called")
	const wrong = "-WRONGPASS invalid username-password pair or user is disabled.|"
	for _, command := range []string{"AUTH x", "AUTH other secret", "AUTH default x", "HELLO 3 AUTH default x", "AUTH secretsecret"} {
		require.Equal(t, wrong, p.do(command), command)
	}
	require.Equal(t, "+OK|", p.do("AUTH secret"))
	require.Equal(t, "$-1|", p.do("GET a"))
	require.Equal(t, wrong, p.do("AUTH x"))
	require.Equal(t, "$-1|", p.do("GET a"), "a failed AUTH takes nothing away")
	p.do("RESET")
	require.Equal(t, "-NOAUTH Authentication required.|", p.do("GET a"))
	require.Equal(t, "+OK|", p.do("AUTH default secret"))
	q := r.dial(t)
	require.Equal(t, "%8|", q.do("HELLO 3 AUTH default secret")[:3])
	require.Equal(t, "_|", q.do("GET a"))
}

func TestQuitEndsTheSession(t *testing.T) {
	p := newRig(t, nil).dial(t)
	require.Equal(t, "+PONG|+OK|", p.pipeline("PING", "QUIT", "PING"))
	require.True(t, p.ended)
	require.False(t, p.s.Fault())
}

func TestClientList(t *testing.T) {
	r := newRig(t, nil)
	p, q := r.dial(t), r.dial(t)
	p.do("CLIENT SETNAME one")
	q.do("HELLO 3 SETNAME two")
	q.do("CLIENT SETINFO LIB-NAME lib")
	list := strings.Split(strings.TrimSpace(p.reply("CLIENT LIST").Str), "\n")
	require.Len(t, list, 2)
	require.Equal(t, "id=1 name=one age=0 db=0 lib-name= lib-ver=", list[0])
	require.Equal(t, "id=2 name=two age=0 db=0 lib-name=lib lib-ver=", list[1])
	require.Equal(t, list[1]+"\n", q.reply("CLIENT INFO").Str)
	require.Equal(t, int64(2), q.reply("CLIENT ID").Int)
	q.s.Close()
	require.Equal(t, 1, r.env.Clients.Len())
}

func TestInfo(t *testing.T) {
	p := newRig(t, nil).dial(t)
	p.do("GET a")
	all := p.reply("INFO").Str
	for _, line := range []string{"# Server", "redis_version:7.4.0", "loading:0", "role:master", "keyspace_misses:1", "connected_clients:1", "# Nearside", "ready:true"} {
		require.Contains(t, all, line+"\r\n")
	}
	require.Equal(t, "# Replication\r\nrole:master\r\nconnected_slaves:0\r\n\r\n", p.reply("INFO replication").Str)
	require.Empty(t, p.reply("INFO nothing").Str)
	require.Equal(t, all, p.reply("INFO everything").Str)
}

func TestInvalidateWithVersionsAnswersAToken(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial(t)
	token := p.reply("NEAR.INVALIDATE KEYS 2 a 18446744073709551615 ns:b 0").Str
	require.Equal(t, r.Applied().String(), token)
	e := p.reply("NEAR.EXPLAIN a").Elems
	require.Equal(t, []string{"fence_version", "18446744073709551615"}, []string{e[22].Str, e[23].Str}, "all 64 bits")
	s := p.reply("NEAR.STATUS")
	require.Equal(t, "ready", s.Elems[4].Str)
	require.Equal(t, int64(1), s.Elems[5].Int)
	require.Contains(t, p.args("NEAR.INVALIDATE", "KEYS", "1", "", "0"), "-ERR a key has 0 bytes")
}

// With the stream away reads go on, and a DEL says what it did not do.
func TestStreamAway(t *testing.T) {
	r := newRig(t, func(c *cache.Config) { c.PublishTimeout = 30 * time.Millisecond })
	p := r.dial(t)
	p.do("MSET a 1 b 2 c 3")
	r.Bus.Disconnect()
	require.Equal(t, "$1|1|", p.do("GET a"))
	require.Contains(t, p.do("DEL a"), "-NOACK the invalidation is not acknowledged by the stream and may still appear; it is applied in this sidecar only. Repeat it.")
	require.Equal(t, "$-1|", p.do("GET a"), "it is gone here")
	require.Contains(t, p.do("GETDEL b"), "-NOACK")
	require.Contains(t, p.pipeline("DEL b", "PING"), "+PONG|")
	r.Bus.Reconnect()
	r.Bus.Hold()
	r.Bus.FailCalls(1 << 30) // what is not seen live cannot be fetched either
	require.Contains(t, p.do("DEL c"), "-NOTAPPLIED the invalidation is in the stream, but this sidecar has not applied it yet.")
	r.Bus.FailCalls(0)
	r.Bus.Release()
}

// What sessions hold between two calls is accounted for, and given back however
// they end (I15).
func TestHeldMemoryIsBounded(t *testing.T) {
	r := newRig(t, func(c *cache.Config) { c.PublishTimeout = 20 * time.Millisecond })
	const limit = 3000
	used := int64(0)
	r.env.Reserve = func(delta int64) bool {
		if delta > 0 && used+delta > limit {
			return false
		}
		used += delta
		return true
	}
	p, q := r.dial(t), r.dial(t)
	const full = "-ERR the memory for buffers is exhausted by all clients together; try again, or raise --memory|"
	value := strings.Repeat("v", 2000)
	require.Equal(t, "+OK|", p.do("SET a "+value))
	p.do("MULTI")
	require.Equal(t, "+QUEUED|", p.do("SET b "+value))
	require.Equal(t, full, p.do("SET c "+value))
	require.Equal(t, full, q.do("GETDEL a"), "p holds it all")
	require.Equal(t, "$2000|"+value+"|", q.do("GET a"), "and nothing was done")
	require.Contains(t, p.do("EXEC"), "-EXECABORT")
	require.Zero(t, used)
	p.pipeline("MULTI", "SET b "+value)
	require.Equal(t, "*1|+OK|", p.do("EXEC"))
	require.Zero(t, used)
	p.pipeline("MULTI", "SET b "+value)
	p.do("RESET")
	require.Zero(t, used)
	require.Equal(t, "$2000|"+value+"|", q.do("GETDEL a"))
	require.Zero(t, used)
	r.Bus.Disconnect()
	require.Contains(t, q.do("GETDEL b"), "-NOACK")
	require.Zero(t, used)
	r.Bus.Reconnect()
	p.pipeline("MULTI", "SET b "+value)
	require.Positive(t, used)
	p.s.Close()
	require.Zero(t, used)
}
