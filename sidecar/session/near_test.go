package session_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// near is the answer to a NEAR.GET by name.
func near(t *testing.T, r resp.Reply) map[string]string {
	t.Helper()
	require.NoError(t, r.Err())
	m := make(map[string]string)
	for i := 0; i+1 < len(r.Elems); i += 2 {
		m[r.Elems[i].Str] = r.Elems[i+1].Text()
	}
	return m
}

func (p *peer) near(t *testing.T, command string) map[string]string {
	t.Helper()
	return near(t, p.reply(command))
}

func TestNearGetAndFill(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial(t)
	miss := p.near(t, "NEAR.GET a")
	require.Equal(t, "MISS", miss["status"])
	require.Equal(t, "+STORED|", p.do("NEAR.FILL a "+miss["lease"]+" VERSION 7 PX 60000 value"))
	hit := p.near(t, "NEAR.GET a ANY")
	require.Equal(t, "HIT", hit["status"])
	require.Equal(t, "value", hit["value"])
	require.Equal(t, "7", hit["version"])
	require.Empty(t, hit["lease"])
	require.Equal(t, "$5|value|", p.do("GET a"), "for plain clients too")

	// The lease is void after an invalidation that its load cannot have seen.
	miss = p.near(t, "NEAR.GET b")
	p.do("DEL b")
	require.Equal(t, "+REJECTED voided|", p.do("NEAR.FILL b "+miss["lease"]+" old"))
	r.Event(t, key("c"))
	require.Equal(t, "+REJECTED invalidated|", p.do("NEAR.FILL c "+miss["lease"]+" old"))
	require.Equal(t, "+REJECTED older-version|", p.do("NEAR.FILL a "+miss["lease"]+" VERSION 6 old"))
}

func TestNearFillHangsOnTagsAndKeys(t *testing.T) {
	r := newRig(t, func(c *cache.Config) { c.Policies.Default.AllowFlush = true })
	p := r.dial(t)
	fill := func(key, options string) {
		lease := p.near(t, "NEAR.GET "+key)["lease"]
		require.Equal(t, "+STORED|", p.do("NEAR.FILL "+key+" "+lease+" "+options+" v"), key)
	}
	fill("tagged", "TAGS 2 red blue")
	fill("made", "VERSION 1 DEPENDS 1 tagged")
	fill("p:1:x", "")
	fill("p:2:x", "")
	p.do("NEAR.INVALIDATE TAGS 1 green")
	require.Equal(t, ":4|", p.do("EXISTS tagged made p:1:x p:2:x"))
	p.do("NEAR.INVALIDATE TAGS 2 green red")
	require.Equal(t, ":2|", p.do("EXISTS tagged made p:1:x p:2:x"), "what is tagged, and what was made of it")
	p.do("NEAR.INVALIDATE PREFIX p:1:")
	require.Equal(t, ":1|", p.do("EXISTS p:1:x p:2:x"))
	p.do("NEAR.INVALIDATE NAMESPACE p")
	require.Equal(t, ":0|", p.do("EXISTS p:1:x p:2:x"))
	fill("k", "")
	p.do("NEAR.INVALIDATE KEYS 1 k 0 TAGS 1 t ID abc EVENT-TIME 1700000000000 REFRESH")
	require.Equal(t, ":0|", p.do("EXISTS k"))
}

func TestNearUpdate(t *testing.T) {
	r := newRig(t, nil)
	p, other := r.dial(t), r.dial(t)
	lease := p.near(t, "NEAR.GET a")["lease"]
	p.do("NEAR.FILL a " + lease + " VERSION 1 old")
	token := p.reply("NEAR.UPDATE a 2 PX 60000 new").Text()
	require.Regexp(t, "^[0-9a-f]+-[0-9a-f]+-[0-9a-f]+$", token)
	require.NotContains(t, other.do("GET a"), "old")
	require.Equal(t, "+REJECTED voided|", p.do("NEAR.FILL a "+lease+" VERSION 1 old"))
	require.Contains(t, p.do("NEAR.UPDATE a 0 v"), "-ERR the version is 0")
}

func TestNearModes(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial(t)
	lease := p.near(t, "NEAR.GET a")["lease"]
	p.do("NEAR.FILL a " + lease + " VERSION 3 v")

	strong := p.near(t, "NEAR.GET a STRONG")
	require.Equal(t, "HIT", strong["status"])
	p.do("MSET plain v")
	require.Equal(t, "REGULAR", p.near(t, "NEAR.GET plain STRONG")["status"], "without a version it is not linearizable")
	require.Equal(t, "HIT", p.near(t, "NEAR.GET a MAXSTALE 5000")["status"])
	require.Equal(t, "HIT", p.near(t, "NEAR.GET a ATLEAST "+strong["token"])["status"])

	// A token of a newer version than is held here, and one of a position to come.
	newer, err := cache.ParseToken(strong["token"])
	require.NoError(t, err)
	newer.Version++
	require.Equal(t, "MISS", p.near(t, "NEAR.GET a ATLEAST "+newer.String())["status"])
	newer.Version = 0
	newer.Position.Seq += 1000
	require.Equal(t, "BEHIND", p.near(t, fmt.Sprintf("NEAR.GET a ATLEAST %v WAIT 20", newer))["status"])
	require.Equal(t, "BEHIND", p.near(t, fmt.Sprintf("NEAR.GET a ATLEAST %v WAIT 0", newer))["status"])

	barrier := p.reply("NEAR.BARRIER").Text()
	require.Equal(t, "HIT", p.near(t, "NEAR.GET a ATLEAST "+barrier)["status"])
}

// A STRONG reader's fill is known everywhere before it is answered (C12).
func TestStrongFillIsPublished(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial(t)
	miss := p.near(t, "NEAR.GET a STRONG")
	require.Equal(t, "MISS", miss["status"])
	before := r.Counts().Publishes
	require.Equal(t, "+STORED|", p.do("NEAR.FILL a "+miss["lease"]+" VERSION 9 v"))
	require.Equal(t, before+1, r.Counts().Publishes)
	require.Equal(t, "HIT", p.near(t, "NEAR.GET a STRONG")["status"])
	require.Equal(t, before+1, r.Counts().Publishes, "it is known now")

	// A value that a reader with less demands brought is confirmed by the first
	// STRONG reader that meets it.
	lease := p.near(t, "NEAR.GET b")["lease"]
	p.do("NEAR.FILL b " + lease + " VERSION 1 v")
	require.Equal(t, before+1, r.Counts().Publishes)
	require.Equal(t, "HIT", p.near(t, "NEAR.GET b STRONG")["status"])
	require.Equal(t, before+2, r.Counts().Publishes)
}

// With the stream away nothing that asks for freshness is answered from memory
// once the bound is broken (I8).
func TestBypass(t *testing.T) {
	r := newRig(t, func(c *cache.Config) {
		c.PublishTimeout = 30 * time.Millisecond
		c.Policies.Namespaces = make(map[string]policy.Namespace)
		c.Policies.Default.MaxStale = 0
		quick, critical := c.Policies.Default, c.Policies.Default
		quick.MaxStale, critical.Class = 2*time.Second, policy.Critical
		c.Policies.Namespaces["quick"], c.Policies.Namespaces["critical"] = quick, critical
	})
	p := r.dial(t)
	require.Equal(t, "+OK|", p.do("MSET quick:a 1 critical:a 2 a 3"))
	require.Equal(t, "$1|1|$1|2|*2|$1|2|$1|3|", p.pipeline("GET quick:a", "GET critical:a", "MGET critical:a a"))

	r.Bus.Disconnect()
	require.Equal(t, "$-1|*2|$-1|$-1|:0|$1|1|$1|3|", p.pipeline("GET critical:a", "MGET critical:a a", "EXISTS critical:a", "GET quick:a", "GET a"))
	require.Equal(t, "BYPASS", p.near(t, "NEAR.GET a STRONG WAIT 30")["status"])
	r.Clock.Advance(3 * time.Second)
	require.Equal(t, "$-1|$1|3|", p.pipeline("GET quick:a", "GET a"))
	require.Equal(t, "BYPASS", p.near(t, "NEAR.GET quick:a WAIT 30")["status"])
	require.Equal(t, "HIT", p.near(t, "NEAR.GET quick:a ANY")["status"], "who asks for less gets it")
	p.do("SET quick:b 1")
	require.Equal(t, "BYPASS", p.near(t, "NEAR.GET quick:b WAIT 0")["status"])
	r.Clock.Advance(30 * time.Second)
	require.Equal(t, "$-1|", p.do("GET a"))
}

func TestNearSyntax(t *testing.T) {
	p := newRig(t, nil).dial(t)
	lease := p.near(t, "NEAR.GET a")["lease"]
	for command, want := range map[string]string{
		"NEAR.GET a SOMETIMES":                  `syntax error at "SOMETIMES"`,
		"NEAR.GET a MAXSTALE":                   "MAXSTALE is missing",
		"NEAR.GET a MAXSTALE -1":                `MAXSTALE is "-1": want a whole number`,
		"NEAR.GET a ATLEAST x":                  "malformed token",
		"NEAR.GET a ANY WAIT":                   "WAIT is missing",
		"NEAR.FILL a nonsense v":                "malformed lease",
		"NEAR.FILL a " + lease + " VERSION v":   "VERSION is missing",
		"NEAR.FILL a " + lease + " TAGS 99 v":   "99 tags: want 1 to 64",
		"NEAR.FILL a " + lease + " TAGS 2 t v":  "one of the tags is missing",
		"NEAR.FILL a " + lease + " NX v":        `syntax error at "NX"`,
		"NEAR.FILL a " + lease + " PX 0 v":      "PX is 0",
		"NEAR.INVALIDATE KEYS 1 a":              "the version of a key (0 for none) is missing",
		"NEAR.INVALIDATE KEYS 2 a 0":            "a key is missing",
		"NEAR.INVALIDATE REFRESH REFRESH":       "nothing is named",
		"NEAR.INVALIDATE PREFIX abc":            "names no namespace",
		"NEAR.INVALIDATE NAMESPACE p PREFIX p:": "name nothing else",
		"NEAR.INVALIDATE PREFIX p:1:":           "NOPERM",
		"NEAR.UPDATE a x v":                     `the version is "x"`,
	} {
		require.Contains(t, p.do(command), want, command)
	}
}

func TestTextFormsOfLeasesAndTokens(t *testing.T) {
	for _, bad := range []string{"", "1", "1.2.3.4.5.true", "1.2.3.4.5.maybe.0", "x.2.3.4.5.true.0", "1.2.3.4.5.true.0 ", "01.2.3.4.5.true.0", "1.2.3.4.5.true.00"} {
		_, err := cache.ParseLease(bad)
		require.ErrorIs(t, err, cache.ErrBadLease, bad)
	}
	for _, bad := range []string{"", "1-2", "1-2-3-", "1-2-3-0", "1-2-3-4-5", "g-1-1"} {
		_, err := cache.ParseToken(bad)
		require.ErrorIs(t, err, cache.ErrBadToken, bad)
	}
}
