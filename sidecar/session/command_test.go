package session_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// step is a command, its answer in RESP2 and, where it differs, in RESP3.
type step struct{ command, two, three string }

// noExpiry makes entries live for ever unless they are told otherwise, as in
// Redis.
func noExpiry(c *cache.Config) { c.Policies.Default.TTL = 0 }

// aWindowLater in place of a command lets a fill window pass: a SET over another
// value is kept only then, where nobody has missed (C3).
const aWindowLater = "…"

// scripts each run on a cache of their own. Except where a name says nearside,
// Redis 7 gives the same answers.
var scripts = map[string][]step{
	"strings": {
		{"GET a", "$-1|", "_|"},
		{"SET a one", "+OK|", ""},
		{"get a", "$3|one|", ""},
		{"GET", "-ERR wrong number of arguments for 'get' command|", ""},
		{"GET a b", "-ERR wrong number of arguments for 'get' command|", ""},
		{"STRLEN a", ":3|", ""},
		{"STRLEN b", ":0|", ""},
		{"MGET a b a", "*3|$3|one|$-1|$3|one|", "*3|$3|one|_|$3|one|"},
		{"MGET", "-ERR wrong number of arguments for 'mget' command|", ""},
		{"MSET c 1 d 2", "+OK|", ""},
		{"MGET c d", "*2|$1|1|$1|2|", ""},
		{"MSET c 1 d", "-ERR wrong number of arguments for 'mset' command|", ""},
		{"MSET c", "-ERR wrong number of arguments for 'mset' command|", ""},
		{"SETNX a two", ":0|", ""},
		{"SETNX e two", ":1|", ""},
		{"GET e", "$3|two|", ""},
	},
	"set": {
		{"SET a", "-ERR wrong number of arguments for 'set' command|", ""},
		{"SET a 1 GET", "$-1|", "_|"},
		{aWindowLater, "", ""},
		{"SET a 2 GET", "$1|1|", ""},
		{"SET a 3 NX", "$-1|", "_|"},
		{"SET a 3 NX GET", "$1|2|", ""},
		{aWindowLater, "", ""},
		{"SET a 4 XX", "+OK|", ""},
		{aWindowLater, "", ""},
		{"SET a 5 XX GET", "$1|4|", ""},
		{"GET a", "$1|5|", ""},
		{"SET b 1 XX", "$-1|", "_|"},
		{"SET b 1 XX GET", "$-1|", "_|"},
		{"EXISTS b", ":0|", ""},
		{"SET b 1 NX", "+OK|", ""},
		{"SET c 1 NX GET", "$-1|", "_|"},
		{"GET c", "$1|1|", ""},
		{"SET a 1 NX XX", "-ERR syntax error|", ""},
		{"SET a 1 EX", "-ERR syntax error|", ""},
		{"SET a 1 EX 5 PX 5", "-ERR syntax error|", ""},
		{"SET a 1 EX 5 KEEPTTL", "-ERR syntax error|", ""},
		{"SET a 1 KEEPTTL EX 5", "-ERR syntax error|", ""},
		{"SET a 1 FOO", "-ERR syntax error|", ""},
		{"SET a 1 EX x", "-ERR value is not an integer or out of range|", ""},
		{"SET a 1 EX +5", "-ERR value is not an integer or out of range|", ""},
		{"SET a 1 EX 05", "-ERR value is not an integer or out of range|", ""},
		{"SET a 1 EX 99999999999999999999", "-ERR value is not an integer or out of range|", ""},
		{"SET a 1 EX 0", "-ERR invalid expire time in 'set' command|", ""},
		{"SET a 1 PX -1", "-ERR invalid expire time in 'set' command|", ""},
		{"SET a 1 EX 9223372036854775807", "-ERR invalid expire time in 'set' command|", ""},
		{"GET a", "$1|5|", ""},
	},
	"expiry": {
		{"SET a 1 EX 100", "+OK|", ""},
		{"TTL a", ":100|", ""},
		{"PERSIST a", ":1|", ""},
		{"TTL a", ":-1|", ""},
		{"PTTL a", ":-1|", ""},
		{"SET k 1", "+OK|", ""},
		{aWindowLater, "", ""},
		{"SET k 2 KEEPTTL", "+OK|", ""},
		{"TTL k", ":-1|", ""},
		{aWindowLater, "", ""},
		{"SET k 3 EX 9", "+OK|", ""},
		{"TTL k", ":9|", ""},
		{"GET k", "$1|3|", ""},
		{"TTL b", ":-2|", ""},
		{"PTTL b", ":-2|", ""},
		{"SET g 1 PX 1499", "+OK|", ""},
		{"TTL g", ":1|", ""},
		{"SET h 1 px 1501", "+OK|", ""},
		{"TTL h", ":2|", ""},
		{"SETEX i 7 x", "+OK|", ""},
		{"TTL i", ":7|", ""},
		{"PSETEX j 7000 y", "+OK|", ""},
		{"TTL j", ":7|", ""},
		{"GET j", "$1|y|", ""},
		{"EXPIRE a 7", ":1|", ""},
		{"SETEX a 0 x", "-ERR invalid expire time in 'setex' command|", ""},
		{"PSETEX a -1 x", "-ERR invalid expire time in 'psetex' command|", ""},
		{"SETEX a x x", "-ERR value is not an integer or out of range|", ""},
		{"SETEX a 1", "-ERR wrong number of arguments for 'setex' command|", ""},
		{"PERSIST a", ":1|", ""},
		{"PERSIST a", ":0|", ""},
		{"PERSIST b", ":0|", ""},
		{"TTL a", ":-1|", ""},
		{"EXPIRE a 50", ":1|", ""},
		{"TTL a", ":50|", ""},
		{"PEXPIRE a 2600", ":1|", ""},
		{"TTL a", ":3|", ""},
		{"EXPIRE b 50", ":0|", ""},
		{"EXPIRE a x", "-ERR value is not an integer or out of range|", ""},
		{"EXPIRE a 9223372036854775807", "-ERR invalid expire time in 'expire' command|", ""},
		{"PEXPIRE a", "-ERR wrong number of arguments for 'pexpire' command|", ""},
		{"EXPIRE a 100 FOO", "-ERR Unsupported option FOO|", ""},
		{"EXPIRE a 100 NX", ":0|", ""},
		{"EXPIRE a 1 GT", ":0|", ""},
		{"EXPIRE a 100 LT", ":0|", ""},
		{"EXPIRE a 100 GT", ":1|", ""},
		{"EXPIRE a 50 LT", ":1|", ""},
		{"EXPIRE a 60 XX", ":1|", ""},
		{"EXPIRE a 70 XX GT", ":1|", ""},
		{"EXPIRE a 60 XX GT", ":0|", ""},
		{"TTL a", ":70|", ""},
		{"PERSIST a", ":1|", ""},
		{"EXPIRE a 100 GT", ":0|", ""},
		{"EXPIRE a 100 XX", ":0|", ""},
		{"EXPIRE a 100 LT", ":1|", ""},
		{"EXPIRE a 0", ":1|", ""},
		{"GET a", "$-1|", "_|"},
		{"SET c 1", "+OK|", ""},
		{"PEXPIRE c -5", ":1|", ""},
		{"EXISTS c", ":0|", ""},
		{"SET d 1 EXAT 1", "+OK|", ""}, // in the past
		{"GET d", "$-1|", "_|"},
		{"SET e 1 PXAT 99999999999", "+OK|", ""},
		{"EXISTS e", ":0|", ""},
	},
	"getex": {
		{"GETEX a", "$-1|", "_|"},
		{"SET a 1", "+OK|", ""},
		{"GETEX a", "$1|1|", ""},
		{"TTL a", ":-1|", ""},
		{"GETEX a EX 10", "$1|1|", ""},
		{"TTL a", ":10|", ""},
		{"GETEX a PX 10000", "$1|1|", ""},
		{"TTL a", ":10|", ""},
		{"GETEX a PERSIST", "$1|1|", ""},
		{"TTL a", ":-1|", ""},
		{"GETEX a EX", "-ERR syntax error|", ""},
		{"GETEX a FOO", "-ERR syntax error|", ""},
		{"GETEX a EX 0", "-ERR invalid expire time in 'getex' command|", ""},
		{"GETEX a PXAT 1", "$1|1|", ""}, // in the past
		{"GET a", "$-1|", "_|"},
	},
	"keys": {
		{"DEL z", ":0|", ""},
		{"MSET a 1 b 2 c 3 d 4", "+OK|", ""},
		{"EXISTS a b x a", ":3|", ""},
		{"EXISTS", "-ERR wrong number of arguments for 'exists' command|", ""},
		{"TYPE b", "+string|", ""},
		{"TYPE x", "+none|", ""},
		{"DBSIZE", ":4|", ""},
		{"DEL b b x", ":1|", ""},
		{"DEL", "-ERR wrong number of arguments for 'del' command|", ""},
		{"UNLINK c", ":1|", ""},
		{"MGET b c", "*2|$-1|$-1|", "*2|_|_|"},
		{"GETDEL d", "$1|4|", ""},
		{"GETDEL d", "$-1|", "_|"},
		{"SET f 1 PX 1", "+OK|", ""},
	},
	"connection": {
		{"PING", "+PONG|", ""},
		{"PING hi", "$2|hi|", ""},
		{"PING a b", "-ERR wrong number of arguments for 'ping' command|", ""},
		{"ECHO hi", "$2|hi|", ""},
		{"ECHO", "-ERR wrong number of arguments for 'echo' command|", ""},
		{"SELECT 0", "+OK|", ""},
		{"SELECT x", "-ERR value is not an integer or out of range|", ""},
		{"CLIENT GETNAME", "$-1|", "_|"},
		{"CLIENT SETNAME me", "+OK|", ""},
		{"CLIENT GETNAME", "$2|me|", ""},
		{"CLIENT SETINFO lib-name x", "+OK|", ""},
		{"CLIENT SETINFO LIB-VER 1.0", "+OK|", ""},
		{"CLIENT NO-EVICT on", "+OK|", ""},
		{"CLIENT NO-TOUCH on", "+OK|", ""},
		{"CLIENT REPLY ON", "+OK|", ""},
		{"AUTH", "-ERR wrong number of arguments for 'auth' command|", ""},
		{"AUTH a b c", "-ERR syntax error|", ""},
		{"AUTH x", "-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?|", ""},
		{"FOO", "-ERR unknown command 'FOO', with args beginning with: |", ""},
		{"FOO a b", "-ERR unknown command 'FOO', with args beginning with: 'a' 'b' |", ""},
		{"CONFIG GET appendonly", "*2|$10|appendonly|$2|no|", "%1|$10|appendonly|$2|no|"},
		{"CONFIG GET nothing", "*0|", "%0|"},
	},
	"nearside's own": {
		{"SELECT 1", "-ERR DB index is out of range: nearside has database 0 only|", ""},
		{"AUTH default x", "-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?|", ""},
		{"CLIENT TRACKING ON", "-ERR unknown subcommand or wrong number of arguments for 'TRACKING'. Try CLIENT HELP.|", ""},
		{"CLIENT SETINFO foo x", "-ERR Unrecognized option 'foo'|", ""},
		{"CLIENT REPLY foo", "-ERR syntax error|", ""},
		{"CLIENT SETNAME " + strings.Repeat("x", 257), "-ERR a client's name and library have at most 256 bytes|", ""},
		{"FLUSHDB", "-NOPERM the policy in defaults does not permit purges by domain: set purge.domain: allow, or allow_flush: true, there|", ""},
		{"FLUSHALL NOW", "-ERR syntax error|", ""},
		{"CONFIG SET a b", "-ERR only CONFIG GET is supported: the configuration is the file that `nearside serve --config` names|", ""},
		{"COMMAND DOCS echo", "*2|$4|echo|*2|$7|summary|$20|Answers its argument|", "%1|$4|echo|%1|$7|summary|$20|Answers its argument|"},
		// Ten elements, as clients expect from the version that INFO names.
		{"COMMAND INFO get nothing", "*2|*10|$3|get|:2|*2|+readonly|+fast|:1|:1|:1|*0|*0|*0|*0|$-1|", "*2|*10|$3|get|:2|~2|+readonly|+fast|:1|:1|:1|~0|~0|~0|~0|_|"},
		{"COMMAND FOO", "-ERR unknown subcommand 'FOO'. Try COMMAND HELP.|", ""},
		{"SCAN x", "-ERR invalid cursor|", ""},
		{"SCAN 0 COUNT 0", "-ERR syntax error|", ""},
		{"SCAN 0 MATCH", "-ERR syntax error|", ""},
		{"SCAN 0", "*2|$1|0|*0|", ""},
		{"NEAR.INVALIDATE KEYS 2 a 1", "-ERR syntax error: a key is missing|", ""},
		{"NEAR.INVALIDATE KEYS 4611686018427387904 a 1", "-ERR 4611686018427387904 keys: want 1 to 100000|", ""},
		{"NEAR.INVALIDATE KEYS 1 a x", `-ERR the version of a key (0 for none) is "x": want a whole number, 0 or more|`, ""},
		{"NEAR.INVALIDATE KEYS 1 a -1", `-ERR the version of a key (0 for none) is "-1": want a whole number, 0 or more|`, ""},
		{"NEAR.INVALIDATE FOO x", "-ERR syntax error at \"FOO\": want NEAR.INVALIDATE [KEYS n (key version)…] [TAGS n tag…] [PREFIX p] [NAMESPACE name] [REFRESH] [EVENT-TIME ms] [ID id]|", ""},
		{"NEAR.INVALIDATE NAMESPACE ns", "-NOPERM the policy in defaults does not permit purges by namespace: set purge.namespace: allow, or allow_flush: true, there|", ""},
		{"GET " + strings.Repeat("n", 257) + ":x", "-ERR a key's namespace, the part before the first ':', has 257 bytes: want at most 256|", ""},
		{"GET " + strings.Repeat("n", 256) + ":x", "$-1|", "_|"},
		{"GET " + strings.Repeat("k", 65_536), "-ERR a key has 65536 bytes: want 1 to 65535|", ""},
		{"GET " + strings.Repeat("k", 65_535), "$-1|", "_|"},
		{"MSET a 1 " + strings.Repeat("k", 65_536) + " 2", "-ERR a key has 65536 bytes: want 1 to 65535|", ""},
		{"EXISTS a", ":0|", ""}, // the whole MSET was refused
	},
}

func TestCommands(t *testing.T) {
	for name, steps := range scripts {
		for _, proto := range []int{2, 3} {
			t.Run(name+"/RESP"+strconv.Itoa(proto), func(t *testing.T) {
				r := newRig(t, noExpiry)
				p := r.dial(t)
				p.do("HELLO " + strconv.Itoa(proto))
				for _, s := range steps {
					if s.command == aWindowLater {
						r.Clock.Advance(policy.DefaultWindow + time.Millisecond)
						continue
					}
					want := s.two
					if proto == 3 && s.three != "" {
						want = s.three
					}
					require.Equal(t, want, p.do(s.command), "%.100s", s.command)
				}
				require.False(t, p.ended)
			})
		}
	}
}

func TestEmptyArgumentsAndBinaryValues(t *testing.T) {
	p := newRig(t, nil).dial(t)
	require.Equal(t, "-ERR unknown command '', with args beginning with: |", p.args(""))
	require.Equal(t, "-ERR a key has 0 bytes: want 1 to 65535|", p.args("GET", ""))
	require.Equal(t, "+OK|", p.args("SET", "a", ""))
	require.Equal(t, "$0||", p.args("GET", "a"))
	value := "\x00\r\n\xff$5\r\n"
	require.Equal(t, "+OK|", p.args("SET", "b\r\n", value))
	require.Equal(t, "$8\r\n"+value+"\r\n", p.feed([]byte("*2\r\n$3\r\nGET\r\n$3\r\nb\r\n\r\n")))
	require.Equal(t, "-ERR unknown command 'a  +OK', with args beginning with: |", p.args("a\r\n+OK"), "no reply is forged")
	require.Equal(t, "+PONG|", shown(p.feed([]byte("  ping \r\n"))), "inline")
	require.Equal(t, "", p.feed([]byte("\r\n*0\r\n*-1\r\n")))
}

// Entries expire to the millisecond, and what has expired is not there for any
// command.
func TestExpiryByTheClock(t *testing.T) {
	r := newRig(t, noExpiry)
	p := r.dial(t)
	p.do("SET a 1 PX 1500")
	r.Clock.Advance(1499 * time.Millisecond)
	require.Equal(t, ":1|", p.do("PTTL a"))
	require.Equal(t, "$1|1|", p.do("GET a"))
	r.Clock.Advance(time.Millisecond)
	for command, want := range map[string]string{
		"GET a": "$-1|", "MGET a": "*1|$-1|", "EXISTS a": ":0|", "TTL a": ":-2|", "TYPE a": "+none|", "STRLEN a": ":0|",
		"PERSIST a": ":0|", "EXPIRE a 5": ":0|", "GETEX a": "$-1|", "SCAN 0": "*2|$1|0|*0|", "DEL a": ":0|",
	} {
		require.Equal(t, want, p.do(command), command)
	}
}

func TestValueLimit(t *testing.T) {
	r := newRig(t, func(c *cache.Config) { c.MaxValue = 1000 })
	p := r.dial(t)
	large, fits := strings.Repeat("v", 1001), strings.Repeat("v", 1000)
	const refusal = "-ERR the value has 1001 bytes, the limit is 1000: raise --max-value|"
	for _, command := range [][]string{
		{"SET", "a", large}, {"SET", "a", large, "NX"}, {"SET", "a", large, "GET"}, {"SETNX", "a", large},
		{"SETEX", "a", "9", large}, {"PSETEX", "a", "9", large}, {"MSET", "a", "1", "b", large},
	} {
		require.Equal(t, refusal, p.args(command...))
		require.Equal(t, ":0|", p.do("EXISTS a b"))
	}
	require.Equal(t, "+OK|", p.args("SET", "a", fits))
	require.Equal(t, "$1000|"+fits+"|", p.do("GET a"))
}

func TestPolicyTakesSetForAWrite(t *testing.T) {
	r := newRig(t, func(c *cache.Config) {
		w := policy.DefaultNamespace()
		w.Set = policy.SetInvalidate
		c.Policies.Namespaces = map[string]policy.Namespace{"w": w}
	})
	p := r.dial(t)
	before := r.Applied().Seq
	for i, command := range []string{"SET w:a 1", "SETEX w:a 5 1", "SET w:a 1 PX 5", "MSET w:a 1 b 2 w:c 3"} {
		require.Equal(t, "+OK|", p.do(command))
		require.Equal(t, before+1+uint64(i), r.Applied().Seq, "published and applied: %s", command)
	}
	for _, command := range []string{"SET w:a 1 NX", "SET w:a 1 XX", "SET w:a 1 GET", "SETNX w:a 1"} {
		require.Contains(t, p.do(command), "-ERR NX, XX and GET mean nothing here", command)
	}
	require.Equal(t, "*3|$-1|$1|2|$-1|", p.do("MGET w:a b w:c"))
}

func TestFlush(t *testing.T) {
	r := newRig(t, func(c *cache.Config) {
		c.Policies.Default.AllowFlush = true
		kept := policy.DefaultNamespace()
		c.Policies.Namespaces = map[string]policy.Namespace{"kept": kept}
	})
	p := r.dial(t)
	p.do("MSET a 1 kept:a 1")
	require.Contains(t, p.do("FLUSHALL"), "-NOPERM", "one namespace forbids it")
	require.Contains(t, p.do("NEAR.INVALIDATE NAMESPACE kept"), "-NOPERM")
	require.Contains(t, p.args("NEAR.INVALIDATE", "NAMESPACE", ""), "-ERR a namespace has 0 bytes", "not the domain by a back door")
	require.Contains(t, p.args("NEAR.INVALIDATE", "NAMESPACE", strings.Repeat("n", 257)), "-ERR a namespace has 257 bytes")
	require.Equal(t, ":2|", p.do("EXISTS a kept:a"))
	token := p.reply("NEAR.INVALIDATE NAMESPACE default").Str
	require.Equal(t, r.Applied().String(), token)
	require.Equal(t, ":0|", p.do("EXISTS a"))

	all := *r.Policies()
	all.Namespaces = nil
	r.SetPolicies(&all)
	for _, command := range []string{"FLUSHALL", "FLUSHDB", "FLUSHDB ASYNC", "flushall sync"} {
		p.do("GET b")
		p.do("SET b 1")
		require.Equal(t, "+OK|", p.do(command))
		require.Equal(t, ":0|", p.do("EXISTS b"))
	}
}

func TestCommandTable(t *testing.T) {
	p := newRig(t, nil).dial(t)
	all := p.reply("COMMAND")
	require.Equal(t, p.reply("COMMAND COUNT").Int, int64(len(all.Elems)))
	require.Len(t, p.reply("COMMAND LIST").Elems, len(all.Elems))
	require.Len(t, p.reply("COMMAND DOCS").Elems, 2*len(all.Elems))
	named := map[string]bool{}
	for _, c := range all.Elems {
		name, arity := c.Elems[0].Str, c.Elems[1].Int
		named[strings.ToUpper(name)] = true
		require.NotZero(t, arity, name)
		if arity > 1 || arity < -1 { // fewer arguments than that are refused, by its name
			require.Equal(t, "-ERR wrong number of arguments for '"+name+"' command|", p.do(name))
		}
	}
	for _, name := range strings.Fields(`HELLO CLIENT COMMAND INFO CONFIG SELECT AUTH PING ECHO QUIT RESET GET MGET SET SETEX
		PSETEX SETNX MSET GETEX GETDEL DEL UNLINK EXISTS TTL PTTL EXPIRE PEXPIRE PERSIST TYPE STRLEN SCAN DBSIZE FLUSHDB FLUSHALL`) {
		require.True(t, named[name], name)
	}
}
