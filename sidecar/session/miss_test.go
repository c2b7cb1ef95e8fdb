package session_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/policy"
)

// A reader that learns by any command that a key is absent has missed (C3): its
// SET is judged by what was known then, not by what was when somebody else
// missed later.
func TestEveryCommandThatRevealsAbsenceIsAMiss(t *testing.T) {
	for _, reveals := range []string{
		"GET k", "MGET j k", "STRLEN k", "EXISTS k", "TYPE k", "TTL k", "PTTL k", "GETEX k", "GETEX k EX 5", "GETEX k PERSIST",
		"EXPIRE k 5", "EXPIRE k 5 XX", "PEXPIRE k 5", "PERSIST k", "GETDEL k",
		"SET k x XX", "SET k x XX GET", "SET k x GET", "SET k x NX", "SET k x NX GET", "SETNX k x", "SET k x EX 5 NX",
	} {
		t.Run(reveals, func(t *testing.T) { absenceIsAMiss(t, reveals) })
	}
	t.Run("EXPIRE to the past", func(t *testing.T) { absenceIsAMiss(t, "SET k x", "EXPIRE k 0") })
	t.Run("GETEX to the past", func(t *testing.T) { absenceIsAMiss(t, "SET k x", "GETEX k PXAT 1") })
}

func absenceIsAMiss(t *testing.T, reveals ...string) {
	r := newRig(t, nil)
	slow, quick := r.dial(t), r.dial(t)
	for _, command := range reveals {
		slow.do(command) // and loads the old value
	}
	r.Event(t, key("k"))
	require.Equal(t, "$-1|", quick.do("GET k")) // and loads the new value
	require.Equal(t, "+OK|", slow.do("SET k old"))
	require.Equal(t, ":0|", quick.do("EXISTS k"), "the old value was judged by the other reader's miss")
}

// What a SET itself finds out about its key must not judge it: its value was
// loaded before.
func TestSetIsNotJudgedByItsOwnCheck(t *testing.T) {
	for _, set := range []string{"SET k old NX", "SETNX k old", "SET k old GET", "SET k old NX GET", "SET k old"} {
		t.Run(set, func(t *testing.T) {
			r := newRig(t, nil)
			r.Event(t, key("k")) // the reader missed before, and its miss was struck out by another's SET
			p := r.dial(t)
			p.do(set)
			require.Equal(t, "$-1|", p.do("GET k"), "kept a value from before the event")
		})
	}
}

// SCAN and DBSIZE list what is there and are no misses, and what a client is not
// told is none either.
func TestWhatIsNoMiss(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial(t)
	for _, command := range []string{"SCAN 0", "DBSIZE", "SET k 1", "SET k 2 NX", "SETNX k 2", "MSET l 1", "PING", "NEAR.EXPLAIN m"} {
		p.do(command)
	}
	require.Zero(t, r.Counts().Misses)
	require.Zero(t, p.reply("NEAR.EXPLAIN k").Elems[2*17+1].Int, "outstanding misses")
}

// The everyday cycle of cache-aside code, and what everybody tries first.
func TestCacheAside(t *testing.T) {
	p := newRig(t, nil).dial(t)
	for _, s := range []step{
		{"SET a 1", "+OK|", ""},
		{"GET a", "$1|1|", ""},
		{"DEL a", ":1|", ""},
		{"GET a", "$-1|", ""},
		{"SET a 2", "+OK|", ""},
		{"GET a", "$1|2|", ""},
	} {
		require.Equal(t, s.two, p.do(s.command), s.command)
	}
}

func TestLateFillIsDropped(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial(t)
	p.do("GET a")
	r.Event(t, key("a"))
	require.Equal(t, "+OK|", p.do("SET a old"))
	require.Equal(t, "$-1|", p.do("GET a"))
	e := p.reply("NEAR.EXPLAIN a")
	require.Equal(t, "MISS: nothing is held", e.Elems[5].Str)
	require.Equal(t, "invalidated 0s ago: an invalidation of the key was applied after the lease", e.Elems[7].Str)
}

// A TTL that is kept is what is left of it.
func TestKeepTTL(t *testing.T) {
	r := newRig(t, noExpiry)
	p := r.dial(t)
	p.do("SET a 1 EX 100")
	r.Clock.Advance(policy.DefaultWindow + time.Second)
	p.do("SET a 2 KEEPTTL")
	require.Equal(t, "$1|2|", p.do("GET a"))
	require.Equal(t, ":89000|", p.do("PTTL a"))
}
