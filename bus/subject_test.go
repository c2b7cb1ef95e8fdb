package bus_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
)

func TestSubjectsOfADomain(t *testing.T) {
	s, err := bus.NewSubjects("eu-west_1")
	require.NoError(t, err)
	require.Equal(t, "NEARSIDE_EU-WEST_1", s.Stream())
	require.Equal(t, "nearside.eu-west_1.>", s.All())
	require.Equal(t, "nearside-live.eu-west_1.>", s.Live())
	require.Equal(t, "nearside.eu-west_1.pulse", s.Pulse())
	require.Equal(t, "nearside.eu-west_1.flush", s.Flush())
	require.Equal(t, "nearside.eu-west_1.fork", s.Fork())
	for _, bad := range []string{"", "A", "a.b", "a b", "*", ">", "é", strings.Repeat("a", 33)} {
		_, err := bus.NewSubjects(bad)
		require.ErrorIs(t, err, bus.ErrBadDomain, bad)
	}
}

func TestSubjectOfAnEvent(t *testing.T) {
	for _, c := range []struct {
		namespace string
		op        bus.Op
		subject   string
	}{
		{"product", bus.OpInvalidate, "nearside.default.ev.product"},
		{"product", bus.OpFlush, "nearside.default.ev.product"},
		{"a.b *>", bus.OpUpdate, "nearside.default.ev.a%2Eb%20%2A%3E"},
		{"%", bus.OpRefresh, "nearside.default.ev.%25"},
		{"\x00\xff", bus.OpRefresh, "nearside.default.ev.%00%FF"},
		{"", bus.OpFlush, "nearside.default.flush"},
		{"", bus.OpPulse, "nearside.default.pulse"},
		{"any", bus.OpFork, "nearside.default.fork"},
	} {
		got, err := subjects.For(c.namespace, c.op)
		require.NoError(t, err)
		require.Equal(t, c.subject, got)
		kind, namespace, err := subjects.Parse(got)
		require.NoError(t, err)
		if kind == bus.KindEvent {
			require.Equal(t, c.namespace, namespace)
		} else {
			require.Empty(t, namespace)
		}
	}
	_, err := subjects.For("", bus.OpInvalidate)
	require.ErrorIs(t, err, bus.ErrBadNamespace)
	_, err = subjects.For(strings.Repeat("n", bus.MaxNamespace+1), bus.OpInvalidate)
	require.ErrorIs(t, err, bus.ErrBadNamespace)
}

func TestForeignSubjects(t *testing.T) {
	for _, bad := range []string{
		"", "nearside.default", "nearside.default.ev", "nearside.default.ev.", "nearside.default.ev.a.b",
		"nearside.default.ev.a b", "nearside.default.ev.%2", "nearside.default.ev.%2e", "nearside.default.ev.%61",
		"nearside.default.ev.%GG", "nearside.other.ev.a", "nearside.default.pulses", "nearside-live.default.pulse",
		"nearside.default.ev." + strings.Repeat("n", bus.MaxNamespace+1),
	} {
		_, _, err := subjects.Parse(bad)
		require.ErrorIs(t, err, bus.ErrBadSubject, bad)
	}
}

func FuzzSubject(f *testing.F) {
	for _, s := range []string{"product", "a.b", "%2e", "nearside.default.ev.a%2Eb", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if kind, namespace, err := subjects.Parse(text); err == nil && kind == bus.KindEvent {
			again, err := subjects.Event(namespace)
			require.NoError(t, err)
			require.Equal(t, text, again, "one namespace has one subject")
		}
		subject, err := subjects.Event(text)
		if err != nil {
			return
		}
		require.Equal(t, 3, strings.Count(subject, "."), "one token")
		_, namespace, err := subjects.Parse(subject)
		require.NoError(t, err)
		require.Equal(t, text, namespace)
	})
}
