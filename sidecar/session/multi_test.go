package session_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api"
	"github.com/nearside-cache/nearside/api/resp"
)

func TestMulti(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"runs in order":             {"MULTI;SET a 1;GET a;GET b;EXEC;GET a", "+OK|+QUEUED|+QUEUED|+QUEUED|*3|+OK|$1|1|$-1|$1|1|"},
		"parked commands":           {"SET a 1;MULTI;GET a;DEL a;GET a;DEL a;EXEC;PING", "+OK|+OK|+QUEUED|+QUEUED|+QUEUED|+QUEUED|*4|$1|1|:1|$-1|:0|+PONG|"},
		"nothing queued":            {"MULTI;EXEC;PING", "+OK|*0|+PONG|"},
		"discard":                   {"MULTI;SET a 1;DISCARD;GET a", "+OK|+QUEUED|+OK|$-1|"},
		"not nested":                {"MULTI;MULTI;EXEC", "+OK|-ERR MULTI calls can not be nested|-EXECABORT Transaction discarded because of previous errors.|"},
		"without MULTI":             {"EXEC;DISCARD", "-ERR EXEC without MULTI|-ERR DISCARD without MULTI|"},
		"an error of a command":     {"MULTI;SELECT x;PING;EXEC", "+OK|+QUEUED|+QUEUED|*2|-ERR value is not an integer or out of range|+PONG|"},
		"arity aborts":              {"MULTI;GET;SET a 1;EXEC;GET a", "+OK|-ERR wrong number of arguments for 'get' command|+QUEUED|-EXECABORT Transaction discarded because of previous errors.|$-1|"},
		"unknown aborts":            {"MULTI;FOO;EXEC;PING", "+OK|-ERR unknown command 'FOO', with args beginning with: |-EXECABORT Transaction discarded because of previous errors.|+PONG|"},
		"not allowed":               {"MULTI;HELLO 3;EXEC", "+OK|-ERR HELLO is not allowed between MULTI and EXEC|-EXECABORT Transaction discarded because of previous errors.|"},
		"reset forgets":             {"MULTI;SET a 1;RESET;EXEC", "+OK|+QUEUED|+RESET|-ERR EXEC without MULTI|"},
		"quit ends":                 {"MULTI;QUIT", "+OK|+OK|"},
		"off":                       {"CLIENT REPLY OFF;MULTI;SET a 1;DEL a;EXEC;CLIENT REPLY ON;PING", "+OK|+PONG|"},
		"a large answer inside one": {"SET a " + strings.Repeat("x", 50<<10) + ";MULTI;MGET a a a;PING;EXEC", "+OK|+OK|+QUEUED|+QUEUED|*2|*3|" + strings.Repeat("$51200|"+strings.Repeat("x", 50<<10)+"|", 3) + "+PONG|"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, newRig(t, nil).dial(t).pipeline(strings.Split(c.in, ";")...))
		})
	}
}

// What is queued outlives the buffer that it came in, and is bounded.
func TestMultiOwnsWhatItQueues(t *testing.T) {
	p := newRig(t, nil).dial(t)
	p.do("MULTI")
	in := resp.AppendCommand(nil, "SET", "a", "value")
	require.Equal(t, "+QUEUED|", shown(p.feed(in)))
	for i := range p.in[:cap(p.in)] {
		p.in[:cap(p.in)][i] = 'X'
	}
	require.Equal(t, "*1|+OK|", p.do("EXEC"))
	require.Equal(t, "$5|value|", p.do("GET a"))

	p.do("MULTI")
	big := strings.Repeat("x", 1<<20)
	for range api.DefaultMaxFrame >> 20 {
		if answer := p.args("SET", "k", big); answer != "+QUEUED|" {
			require.Contains(t, answer, "-ERR the commands since MULTI take")
		}
	}
	require.Equal(t, "-EXECABORT Transaction discarded because of previous errors.|", p.do("EXEC"))
}

// A command refused for its size while others are collected aborts them all.
func TestMultiAndRefusedCommands(t *testing.T) {
	r := newRig(t, nil)
	r.env.Limits.MaxBulk = 100
	p := r.dial(t)
	p.do("MULTI")
	require.Contains(t, p.args("SET", "a", strings.Repeat("x", 101)), "-ERR argument 2")
	require.Equal(t, "-EXECABORT Transaction discarded because of previous errors.|", p.do("EXEC"))
}
