package bus_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
)

func TestCovers(t *testing.T) {
	at := func(created int64, fork, seq uint64) bus.Position {
		return bus.Position{Epoch: bus.Epoch{Created: created, Fork: fork}, Seq: seq}
	}
	for _, c := range []struct {
		p, o bus.Position
		want bool
	}{
		{at(1, 0, 5), at(1, 0, 5), true},
		{at(1, 0, 6), at(1, 0, 5), true},
		{at(1, 0, 4), at(1, 0, 5), false},
		{at(2, 0, 1), at(1, 0, 5), true},  // a new incarnation begins with a flush
		{at(1, 0, 9), at(2, 0, 1), false}, // seqs of two epochs are never compared
		{at(1, 3, 4), at(1, 0, 5), true},
		{at(1, 0, 9), at(1, 3, 4), false},
		{at(2, 0, 1), at(1, 3, 4), true},
		{at(1, 0, 0), bus.Position{}, true},
		{bus.Position{}, at(1, 0, 0), false},
	} {
		require.Equal(t, c.want, c.p.Covers(c.o), "%v covers %v", c.p, c.o)
	}
	require.True(t, bus.Position{}.IsZero())
	require.False(t, at(1, 0, 0).IsZero())
}

func TestSatisfies(t *testing.T) {
	at := func(created int64, fork, seq uint64) bus.Position {
		return bus.Position{Epoch: bus.Epoch{Created: created, Fork: fork}, Seq: seq}
	}
	for _, c := range []struct {
		p, token bus.Position
		want     bool
	}{
		{at(1, 0, 5), at(1, 0, 5), true},
		{at(1, 0, 4), at(1, 0, 5), false},
		{at(2, 0, 1), at(1, 7, 9), false}, // the clock may have gone back
		{at(1, 0, 9), at(2, 0, 1), false},
		{at(1, 3, 5), at(1, 0, 5), true},
		{at(1, 3, 4), at(1, 0, 5), false}, // its publisher may not have known of fork 3
		{at(1, 0, 9), at(1, 3, 4), false},
		{at(1, 0, 0), bus.Position{}, true},
		{bus.Position{}, at(1, 0, 0), false},
	} {
		require.Equal(t, c.want, c.p.Satisfies(c.token), "%v satisfies %v", c.p, c.token)
	}
}

func TestNamespaceOf(t *testing.T) {
	for key, want := range map[string]string{
		"product:42": "product", "a:b:c": "a", "plain": bus.DefaultNamespace, "": bus.DefaultNamespace, ":x": bus.DefaultNamespace,
	} {
		require.Equal(t, want, bus.NamespaceOf(key), key)
	}
}

func TestNames(t *testing.T) {
	require.Equal(t, "rolled-back", bus.ReasonRolledBack.String())
	require.Equal(t, "unknown", bus.Reason(200).String())
	require.Equal(t, "refresh", bus.OpRefresh.String())
	require.Equal(t, "op-200", bus.Op(200).String())
}

func FuzzParseToken(f *testing.F) {
	for _, s := range []string{"", "1-2-3", "-1-0-ff", "1-2-3 ", "1-2-3-4", "0x1-2-3", "+1-2-3", strings.Repeat("f", 40) + "-1-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := bus.ParseToken(text)
		if err != nil {
			require.ErrorIs(t, err, bus.ErrBadToken)
			return
		}
		require.Equal(t, text, p.String(), "one position has one token")
	})
}
