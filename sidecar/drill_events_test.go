package sidecar_test

import (
	"context"
	"math"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/membus"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// loaded is a namespace with a loader and nothing else.
func loaded() map[string]policy.Namespace {
	ns := policy.DefaultNamespace()
	ns.Loader = loaderOf(policy.Loader{})
	return map[string]policy.Namespace{"product": ns}
}

// writer is a foreign attachment that publishes by itself.
func writer(t *testing.T, s *membus.Stream) func(e bus.Event) bus.Position {
	b := s.Attach(membus.Options{})
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return func(e bus.Event) bus.Position {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		p, err := b.Publish(ctx, "product", e)
		require.NoError(t, err)
		return p
	}
}

func event(key string, version uint64) bus.Event {
	return bus.Event{Keys: []bus.KeyVersion{{Key: key, Version: version}}}
}

// Drill: the same events again and again, from the wire and from writers that repeat
// themselves. A repeated version drops nothing and loads nothing.
func TestDrillDuplicateEvents(t *testing.T) {
	const key = "product:1"
	synctest.Test(t, func(t *testing.T) {
		stream, origin := sidecartest.NewStream(t), newSource(t)
		p := newPod(t, stream, origin, loaded())
		c, publish := p.dial(), writer(t, stream)
		require.EqualValues(t, 1, c.get(key))

		p.bus.DuplicateNext(1000) // each message comes twice
		for range 20 {
			version := origin.commit(key)
			at := publish(event(key, version))
			require.NoError(t, p.Await(t.Context(), at))
			require.Equal(t, version, c.get(key))
			before := origin.total()
			for range 5 { // a writer that does not know whether it was heard
				at = publish(event(key, version))
			}
			id := event(key, version)
			id.ID = "write-" + strconv.FormatUint(version, 10)
			once := publish(id)
			require.Equal(t, once, publish(id), "one id is one event")
			require.NoError(t, p.Await(t.Context(), once))
			require.True(t, p.Applied().Covers(at))
			require.Equal(t, version, c.get(key))
			require.Equal(t, before, origin.total(), "nothing was dropped and nothing loaded")
		}
		require.Equal(t, 21, origin.total(), "one load for each version")
		require.Zero(t, p.bus.Status().Doubts)
	})
}

// Drill: a partition heals, and what was written on its other side comes late and in
// any order: from the wire, and in the stream itself. Versions decide; nobody goes
// back, and what was up to date stays.
func TestDrillOutOfOrderAfterPartition(t *testing.T) {
	const key = "product:1"
	synctest.Test(t, func(t *testing.T) {
		stream, origin := sidecartest.NewStream(t), newSource(t)
		near, far := newPod(t, stream, origin, loaded()), newPod(t, stream, origin, loaded())
		a, b, publish := near.dial(), far.dial(), writer(t, stream)
		require.EqualValues(t, 1, a.get(key))
		require.EqualValues(t, 1, b.get(key))

		var late []uint64 // committed, and not published yet
		for range 10 {
			late = append(late, origin.commit(key))
		}
		newest := origin.commit(key)
		far.bus.Disconnect()
		require.NoError(t, near.Await(t.Context(), publish(event(key, newest))))
		require.Equal(t, newest, a.get(key))
		require.EqualValues(t, 1, b.get(key), "it does not know yet, and its bound is 30 s")

		loads := origin.total()
		var last bus.Position
		for i := range late { // the newest first
			last = publish(event(key, late[len(late)-1-i]))
		}
		far.bus.ReverseNext(5)
		far.bus.Reconnect()
		for range 6 { // what comes live now is in reverse order
			last = publish(event("product:2", 1))
		}
		for _, p := range []*pod{near, far} {
			require.NoError(t, p.Await(t.Context(), last))
			require.Zero(t, p.bus.Status().Doubts, "nothing was flushed")
		}
		require.Equal(t, newest, a.get(key))
		require.Equal(t, loads, origin.total(), "older versions drop nothing")
		require.Equal(t, newest, b.get(key))
		require.Equal(t, loads+1, origin.total())
		require.Positive(t, far.bus.Status().Repairs)
	})
}

// Drill: the stream is delivered late. While the log can be asked, a pod finds out by
// a pulse of its own and fetches what it lacks. When nothing gets through it serves
// within its bound and then stops; a reader that wants more is told at once. When the
// events come, all are applied, and only what they name is loaded again.
func TestDrillDelayedStream(t *testing.T) {
	const keys = 100
	key := func(i int) string { return "product:" + strconv.Itoa(i) }
	synctest.Test(t, func(t *testing.T) {
		stream, origin := sidecartest.NewStream(t), newSource(t)
		p, other := newPod(t, stream, origin, loaded()), newPod(t, stream, origin, loaded())
		c, elsewhere := p.dial(), other.dial()
		for i := range keys {
			require.EqualValues(t, 1, c.get(key(i)))
		}
		change := func(i int) (token string) {
			token, err := elsewhere.invalidate(key(i), origin.commit(key(i)))
			require.NoError(t, err)
			return token
		}
		p.bus.Hold()
		change(0)
		time.Sleep(2 * time.Second)
		require.EqualValues(t, 2, c.get(key(0)), "fetched past the feed")

		p.bus.FailCalls(math.MaxInt)
		p.bus.FailPublishes(math.MaxInt)
		token := change(1)
		time.Sleep(20 * time.Second)
		require.EqualValues(t, 1, c.get(key(1)), "within the 30 s of its class")
		status, _ := c.near(key(1), "MAXSTALE", "200", "WAIT", "100")
		require.Equal(t, "BYPASS", status)
		status, _ = c.near(key(2), "ATLEAST", token, "WAIT", "100")
		require.Equal(t, "BEHIND", status)
		time.Sleep(20 * time.Second)
		loads := origin.total()
		require.Zero(t, c.get(key(2)), "the bound is broken")
		require.Equal(t, loads, origin.total(), "what could not be kept is not loaded")
		status, _ = c.near(key(2), "ANY")
		require.Equal(t, "HIT", status)
		require.Positive(t, p.metric("nearside_bypassed_total"))

		p.bus.FailCalls(0)
		p.bus.FailPublishes(0)
		p.bus.Release()
		time.Sleep(2 * time.Second)
		for i := range keys {
			require.Equal(t, origin.version(key(i)), c.get(key(i)))
		}
		require.Equal(t, loads+1, origin.total())
		require.Zero(t, p.bus.Status().Doubts)
	})
}
