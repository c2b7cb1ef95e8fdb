package native_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/session"
)

func nothing() {}

// places tells where in what came since from the first of each stands: an Invalidated,
// the answer to id, an Event and a Fresh; -1: nowhere.
func (p *peer) places(from int, id uint32) (stale, answer, event, fresh int) {
	seen := p.seen[from:]
	at := func(is func(frame) bool) int { return slices.IndexFunc(seen, is) }
	return at(func(f frame) bool { return f.kind == near.KindInvalidated }),
		at(func(f frame) bool { return f.id == id }),
		at(func(f frame) bool { return f.kind == near.KindEvent }),
		at(func(f frame) bool { return f.kind == near.KindFresh })
}

// kept is a client that keeps keys.
func (r *rig) kept(t *testing.T, keys ...string) *tracking {
	p := r.greet(t)
	for _, key := range keys {
		p.store(key, "v", 5, nil)
	}
	c := r.tracking(p)
	for _, key := range keys {
		c.begin(key, nil)
		require.Equal(t, "v", c.holds(key))
	}
	return c
}

// A write that finishes while other answers are appended is answered behind what it has
// made stale all the same (O4).
func TestPushesComeBeforeAnswersThatFinishMeanwhile(t *testing.T) {
	r := newRig(t, nil)
	p := r.kept(t, "n:k").peer
	p.s.Await(1000, nothing, func() { r.Event(t, bus.KeyVersion{Key: "n:k", Version: 9}) })
	p.s.Settle()
	p.s.Await(1001, nothing, nil)
	p.s.Settle()
	from := len(p.seen)
	p.push()
	stale, answer, _, _ := p.places(from, 1001)
	require.GreaterOrEqual(t, stale, 0)
	require.Greater(t, answer, stale)
}

// A fill that takes the place of another value is answered behind the push (O4).
func TestPushesComeBeforeAnswersOfFills(t *testing.T) {
	r := newRig(t, nil)
	p := r.kept(t, "n:k").peer
	lease := r.Lease("n:k", false)
	from := len(p.seen)
	id := p.send(near.KindFill, &near.Fill{Key: []byte("n:k"), Lease: lease.String(), Value: []byte("w"), Version: 9})
	stale, answer, _, _ := p.places(from, id)
	require.GreaterOrEqual(t, stale, 0)
	require.Greater(t, answer, stale)
	require.True(t, p.seen[from+answer].m.(*near.Filled).Stored)
}

// Whoever tracks already is told what the answer to a Track covers before it (O3).
func TestPushesComeBeforeAnswersOfTracks(t *testing.T) {
	r := newRig(t, nil)
	c := r.kept(t, "n:k")
	r.Event(t, bus.KeyVersion{Key: "n:k", Version: 9})
	from := len(c.seen)
	id := c.send(near.KindTrack, &near.Track{On: true})
	stale, answer, _, _ := c.places(from, id)
	require.GreaterOrEqual(t, stale, 0)
	require.Greater(t, answer, stale)
	require.Equal(t, cache.Token{Position: r.Applied()}.String(), c.seen[from+answer].m.(*near.Fresh).Applied)
}

// However much is pushed, something is answered with it; and what events push comes
// behind.
func TestPushesDoNotHoldUpAnswers(t *testing.T) {
	r := newRig(t, nil)
	long := []string{"n:" + strings.Repeat("a", 60_000), "n:" + strings.Repeat("b", 60_000)}
	p := r.kept(t, long...).peer
	p.s.Await(1000, nothing, nil)
	p.s.Settle()
	require.True(t, p.s.PushEvent(near.Event{Prefix: make([]byte, 60_000)}))
	require.True(t, p.s.PushEvent(near.Event{Prefix: make([]byte, 60_000)}))
	r.Event(t, bus.KeyVersion{Key: long[0], Version: 9}, bus.KeyVersion{Key: long[1], Version: 9})
	p.s.Fresh(r.Now(), r.Applied())
	from := len(p.seen)
	p.push()
	stale, answer, event, fresh := p.places(from, 1000)
	require.GreaterOrEqual(t, stale, 0)
	require.Greater(t, answer, stale)
	require.Greater(t, event, answer)
	require.Greater(t, fresh, event)
}

// Requests are served behind pushes that have not been sent yet.
func TestPushesDoNotHoldUpRequests(t *testing.T) {
	p := newRig(t, nil).greet(t)
	in := near.Append(nil, near.KindPing, 1000, &near.None{})
	n, _, next := p.s.Serve(in, make([]byte, 1<<20))
	require.Equal(t, len(in), n)
	require.Equal(t, session.Input, next)
}
