package session_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/audit"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/toggle"
)

// audited replaces the rig's toggles by ones whose records can be read.
func (r *rig) audited(t *testing.T) *bytes.Buffer {
	out, registry := new(bytes.Buffer), prometheus.NewRegistry()
	log, err := audit.Open("", hclog.New(&hclog.LoggerOptions{Output: out}), registry)
	require.NoError(t, err)
	r.env.Toggles = toggle.New(toggle.Config{Policies: r.Policies(), Apply: r.SetPolicies, Clock: r.Clock.Now, Audit: log, Registerer: registry})
	return out
}

func TestPolicyToggles(t *testing.T) {
	r := newRig(t, nil)
	log := r.audited(t)
	p := r.dial(t)
	p.s.Identify(func() string { return "uid 1000, pid 7" })
	p.do("CLIENT SETNAME ops")
	p.do("GET shop:1")
	p.do("SET shop:1 v")
	require.Equal(t, "$1|v|", p.do("GET shop:1"))
	require.Equal(t, ":1|", p.do("NEAR.POLICY SET shop MODE off FOR 10m"))
	require.Equal(t, "$-1|", p.do("GET shop:1"))
	require.Contains(t, p.do("NEAR.EXPLAIN shop:1"), "MISS: the namespace's mode is off")
	require.Contains(t, p.do("NEAR.EXPLAIN shop:1"), "is dropped: the namespace's mode is off")
	require.Contains(t, log.String(), `"what":"toggle","namespace":"shop","setting":"mode","before":"enforce","after":"off","until":`)
	require.Contains(t, log.String(), `"by":{"peer":"uid 1000, pid 7","client":"ops","client_id":1}`)

	require.Equal(t, ":1|", p.do("NEAR.POLICY SET * purges pause"))
	require.Equal(t, "-PAUSED wide purges are paused by the policy in defaults: invalidate keys, or ask who paused them (nearside policy get)|", p.do("NEAR.INVALIDATE TAGS 1 t"))

	p.do("HELLO 3")
	require.Equal(t, "*2|%4|$9|namespace|$1|*|$7|setting|$6|purges|$5|value|$5|pause|$7|left_ms|:0|"+
		"%4|$9|namespace|$4|shop|$7|setting|$4|mode|$5|value|$3|off|$7|left_ms|:600000|", p.do("NEAR.POLICY GET"))
	got := p.reply("NEAR.POLICY GET shop")
	var members []string
	for i := 0; i+1 < len(got.Elems); i += 2 {
		members = append(members, got.Elems[i].Text()+"="+got.Elems[i+1].Text())
	}
	require.Equal(t, []string{"namespace=shop", "block=defaults", "mode=off", "purges=pause", "effects=", "toggles="}, members)
	require.Equal(t, "nothing is kept and nothing is served (mode off)", got.Elems[9].Elems[0].Text())
	require.Len(t, got.Elems[11].Elems, 2)
	require.Contains(t, p.do("NEAR.STATUS"), "|toggles|:2|")

	require.Equal(t, ":1|", p.do("NEAR.POLICY RESET shop"))
	require.Equal(t, ":0|", p.do("NEAR.POLICY RESET shop"))
	require.Equal(t, "$1|v|", p.do("GET shop:1"), "what is held was kept coherent")
	require.Equal(t, "$2|[]|", p.do("NEAR.POLICY SETTINGS"))
}

func TestPolicyRefusals(t *testing.T) {
	p := newRig(t, nil).dial(t)
	for command, want := range map[string]string{
		"NEAR.POLICY FOO":                               "-ERR syntax error at \"FOO\": want NEAR.POLICY GET [namespace] | SET",
		"NEAR.POLICY GET a b":                           "-ERR syntax error at \"b\"",
		"NEAR.POLICY SET":                               "-ERR syntax error: the namespace is missing",
		"NEAR.POLICY SET a mode":                        "-ERR syntax error: its value is missing",
		"NEAR.POLICY SET a mode on":                     `-ERR toggle: refused: mode is "on": want one of enforce, shadow, off`,
		"NEAR.POLICY SET a ttl 5":                       `-ERR toggle: refused: setting "ttl": want mode or purges`,
		"NEAR.POLICY SET a mode off FOR":                "-ERR syntax error: the duration is missing",
		"NEAR.POLICY SET a mode off FOR 5":              `-ERR FOR is "5": want a duration such as 30s or 10m`,
		"NEAR.POLICY SET a mode off FOR 0s":             `-ERR FOR is "0s"`,
		"NEAR.POLICY SET a mode off FOR 1ms":            "-ERR toggle: refused: for 1ms: want 1s to 720h0m0s",
		"NEAR.POLICY SET a mode off FOR 1s x":           `-ERR syntax error at "x"`,
		"NEAR.POLICY RESET":                             "-ERR syntax error: the namespace is missing",
		"NEAR.POLICY SETTINGS x":                        `-ERR syntax error at "x"`,
		"NEAR.POLICY RESET " + strings.Repeat("n", 257): "-ERR a namespace has 257 bytes",
	} {
		require.Contains(t, p.do(command), want, command)
	}
}

// A namespace that serves nothing waits for nothing.
func TestNothingIsAwaitedWhereNothingIsServed(t *testing.T) {
	r := newRig(t, func(c *cache.Config) { c.Policies.Default.Class = policy.Critical })
	p := r.dial(t)
	p.do("NEAR.POLICY SET * mode shadow")
	for _, command := range []string{"NEAR.GET a STRONG", "NEAR.GET a", "NEAR.GET a MAXSTALE 0", "NEAR.GET a ATLEAST 1-0-999", "GET a"} {
		n, out, next := p.s.Serve(resp.AppendCommand(nil, strings.Fields(command)...), nil)
		require.NotZero(t, n)
		require.Zero(t, next, "%s is not parked", command)
		require.Regexp(t, `MISS|^\$-1`, string(out), command)
	}
	p.do("NEAR.POLICY RESET *")
	_, _, next := p.s.Serve(resp.AppendCommand(nil, "GET", "a"), nil)
	require.NotZero(t, next, "a critical read catches up first")
	p.s.Waiting().Run(t.Context())
	p.s.Finish(nil)
}

// Of a sensitive namespace no key is told, wherever keys are told of others.
func TestSensitiveIsMasked(t *testing.T) {
	r := newRig(t, func(c *cache.Config) {
		n := c.Policies.Default
		n.Sensitive = true
		c.Policies.Namespaces = map[string]policy.Namespace{"login": n}
	})
	p := r.dial(t)
	p.do("GET login:alice")
	p.do("SET login:alice s3cret")
	require.Equal(t, "$6|s3cret|", p.do("GET login:alice"))
	explained := p.do("NEAR.EXPLAIN login:alice")
	require.NotContains(t, explained, "alice")
	require.Contains(t, explained, "login:#")
	require.Contains(t, p.do("NEAR.EXPLAIN product:42"), "product:42")

	p.do("HELLO 3")
	p.do("NEAR.WATCH")
	r.Publish(t, bus.Event{Keys: []bus.KeyVersion{{Key: "login:alice", Version: 7}}, Tags: []string{"alices"}, Prefix: "login:alice:"})
	pushed := p.pushed()[0]
	e := event(t, pushed)
	require.NotContains(t, pushed.Elems[1].Str, "alice")
	require.Equal(t, r.Policies().Shown("login:alice"), e.Keys[0].Key)
	require.Equal(t, uint64(7), e.Keys[0].Version)
	require.Equal(t, []string{policy.Mask("alices")}, e.Tags)
	require.Equal(t, "login:"+policy.Mask("login:alice:"), e.Prefix)

	_, err := r.Stream.Publish("nearside.default.ev.login", "", []byte(`{"op":"invalidate","keys":["login:alice"],"tags":["alice\ufffd"]}`))
	require.NoError(t, err)
	pushed = p.pushed()[0]
	require.NotContains(t, pushed.Elems[1].Str, "alice")
	r.Event(t, key("product:42"))
	require.Equal(t, "product:42", event(t, p.pushed()[0]).Keys[0].Key)
}

// Wide purges are admitted before anything is dropped.
func TestWidePurgesAreLimited(t *testing.T) {
	r := newRig(t, func(c *cache.Config) {
		c.Policies.Default.AllowFlush = true
		c.Policies.Default.WidePurges.PerMinute = 1
	})
	p := r.dial(t)
	p.do("MSET a:1 v")
	require.NotContains(t, p.do("NEAR.INVALIDATE PREFIX a:"), "LIMITED")
	p.do("GET a:1")
	p.do("SET a:1 v")
	before := r.Counts().Publishes
	for _, command := range []string{"NEAR.INVALIDATE NAMESPACE a", "NEAR.INVALIDATE PREFIX a:", "NEAR.INVALIDATE KEYS 1 a:1 0 TAGS 1 t", "FLUSHALL"} {
		require.Contains(t, p.do(command), "-LIMITED the policy in defaults permits 1 wide purges a minute, 1 at once: repeat it in 1m0s", command)
	}
	require.Equal(t, before, r.Counts().Publishes)
	require.Equal(t, "$1|v|", p.do("GET a:1"))
	require.Equal(t, ":1|", p.do("DEL a:1"), "keys are not limited")
	r.Clock.Advance(time.Minute)
	require.Equal(t, "+OK|", p.do("FLUSHALL"))
}
