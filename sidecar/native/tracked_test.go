package native_test

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// permitted lets clients purge whatever they like.
func permitted(c *cache.Config) { c.Policies = withPurges(c.Policies) }

func withPurges(p *policy.Set) *policy.Set {
	with := *p
	with.Default.Purge = policy.Purge{Tags: policy.Allow, Prefix: policy.Allow, Namespace: policy.Allow, Domain: policy.Allow}
	return &with
}

// What makes a kept answer wrong is told, whatever it is, and only to who keeps it.
func TestWhatIsTold(t *testing.T) {
	in := func(t *testing.T, r *rig, w cache.Write) {
		_, err := r.Invalidate(context.Background(), w)
		require.NoError(t, err)
	}
	linked := func(f *near.Fill) { f.Tags, f.Depends = []string{"tag"}, [][]byte{[]byte("n:leaf")} }
	one := near.Invalidated{Scope: near.Keys, Names: [][]byte{[]byte("n:a:k")}}
	for name, c := range map[string]struct {
		fill func(*near.Fill)
		do   func(*testing.T, *rig)
		want near.Invalidated
	}{
		"event":           {nil, func(t *testing.T, r *rig) { r.Event(t, bus.KeyVersion{Key: "n:a:k", Version: 9}) }, one},
		"own write":       {nil, func(t *testing.T, r *rig) { in(t, r, cache.Write{Keys: []bus.KeyVersion{{Key: "n:a:k"}}}) }, near.Invalidated{Scope: near.Keys, Reason: near.ByWrite, Names: one.Names}},
		"fill":            {nil, func(t *testing.T, r *rig) { r.again(t, "n:a:k", 9) }, near.Invalidated{Scope: near.Keys, Reason: near.Replaced, Names: one.Names}},
		"another TTL":     {nil, func(t *testing.T, r *rig) { r.Expire("n:a:k", cache.TTL{Asked: true, For: time.Minute}) }, near.Invalidated{Scope: near.Keys, Reason: near.Replaced, Names: one.Names}},
		"expired at once": {nil, func(t *testing.T, r *rig) { r.Expire("n:a:k", cache.TTL{Asked: true, For: -1}) }, near.Invalidated{Scope: near.Keys, Reason: near.Replaced, Names: one.Names}},
		"update": {nil, func(t *testing.T, r *rig) {
			r.Publish(t, bus.Event{Op: bus.OpUpdate, Keys: []bus.KeyVersion{{Key: "n:a:k", Version: 9}}, Value: []byte("9")})
		}, near.Invalidated{Scope: near.Keys, Reason: near.Replaced, Names: one.Names}},
		"prefix":         {nil, func(t *testing.T, r *rig) { r.Publish(t, bus.Event{Prefix: "n:a:x"}) }, near.Invalidated{Scope: near.Prefix, Names: [][]byte{[]byte("n:a:")}}},
		"own prefix":     {nil, func(t *testing.T, r *rig) { in(t, r, cache.Write{Prefix: "n:"}) }, near.Invalidated{Scope: near.Prefix, Reason: near.ByWrite, Names: [][]byte{[]byte("n:")}}},
		"tag":            {linked, func(t *testing.T, r *rig) { r.Publish(t, bus.Event{Tags: []string{"tag"}}) }, near.Invalidated{Scope: near.Linked}},
		"own tag":        {linked, func(t *testing.T, r *rig) { in(t, r, cache.Write{Tags: []string{"tag"}}) }, near.Invalidated{Scope: near.Linked, Reason: near.ByWrite}},
		"dependency":     {linked, func(t *testing.T, r *rig) { r.Event(t, bus.KeyVersion{Key: "n:leaf"}) }, near.Invalidated{Scope: near.Linked}},
		"own dependency": {linked, func(t *testing.T, r *rig) { in(t, r, cache.Write{Keys: []bus.KeyVersion{{Key: "n:leaf"}}}) }, near.Invalidated{Scope: near.Linked, Reason: near.ByWrite}},
		"namespace":      {nil, func(t *testing.T, r *rig) { r.flush(t, "n") }, near.Invalidated{Scope: near.Namespace, Reason: near.ByWrite, Names: [][]byte{[]byte("n")}}},
		"domain":         {nil, func(t *testing.T, r *rig) { r.flush(t, "") }, near.Invalidated{Scope: near.Everything, Reason: near.ByWrite}},
		"doubt":          {nil, func(t *testing.T, r *rig) { r.Doubt(bus.ReasonHole) }, near.Invalidated{Scope: near.Everything, Reason: near.ByDoubt}},
		"policy":         {nil, func(t *testing.T, r *rig) { r.SetPolicies(r.Policies()) }, near.Invalidated{Scope: near.Everything, Reason: near.ByPolicy}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, permitted)
			p := r.greet(t)
			p.store("n:a:k", "v", 5, c.fill)
			c2 := r.tracking(p)
			bystander := r.tracking(r.greet(t))
			c2.begin("n:a:k", nil)
			require.Equal(t, "v", c2.holds("n:a:k"))
			c.do(t, r)
			require.Empty(t, c2.holds("n:a:k"))
			want := c.want
			if want.Reason == 0 {
				want.Reason = near.ByEvent
			}
			require.Equal(t, &want, pushed[*near.Invalidated](p)[0])
			require.Empty(t, pushed[*near.Invalidated](bystander.peer))
		})
	}
}

// What depends on a key hangs on the key's namespace and prefixes, too, wherever it is
// itself (C5): purges of these are told to who keeps it.
func TestPurgesOfDependenciesAreTold(t *testing.T) {
	publish := func(t *testing.T, r *rig, subject, body string) {
		seq, err := r.Stream.Publish(subject, "", []byte(body))
		require.NoError(t, err)
		p := r.Applied()
		p.Seq = seq
		require.NoError(t, r.Await(t.Context(), p))
	}
	subject := func(t *testing.T, r *rig) string {
		s, err := r.Stream.Subjects().Event("m")
		require.NoError(t, err)
		return s
	}
	for name, c := range map[string]struct {
		do  func(*testing.T, *rig)
		why near.Reason
	}{
		"prefix": {func(t *testing.T, r *rig) { r.Publish(t, bus.Event{Prefix: "m:a:"}) }, near.ByEvent},
		"own prefix": {func(t *testing.T, r *rig) {
			_, err := r.Invalidate(t.Context(), cache.Write{Prefix: "m:a:"})
			require.NoError(t, err)
		}, near.ByWrite},
		"namespace":              {func(t *testing.T, r *rig) { publish(t, r, subject(t, r), `{"op":"flush"}`) }, near.ByEvent},
		"own namespace":          {func(t *testing.T, r *rig) { r.flush(t, "m") }, near.ByWrite},
		"what cannot be decoded": {func(t *testing.T, r *rig) { publish(t, r, subject(t, r), `{"op":`) }, near.ByEvent},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, permitted)
			p := r.greet(t)
			p.store("n:k", "v", 5, func(f *near.Fill) { f.Depends = [][]byte{[]byte("m:a:leaf")} })
			c2 := r.tracking(p)
			c2.begin("n:k", nil)
			require.Equal(t, "v", c2.holds("n:k"))
			c.do(t, r)
			require.Equal(t, near.Miss, r.greet(t).get("n:k").Status, "the sidecar has dropped it")
			require.Empty(t, c2.holds("n:k"))
			require.Contains(t, pushed[*near.Invalidated](p), &near.Invalidated{Scope: near.Linked, Reason: c.why})
		})
	}
}

// again has the sidecar hold another value of a key.
func (r *rig) again(t *testing.T, key string, version uint64) {
	f := cache.FillOptions{Lease: r.Lease(key, false), Version: version}
	require.Equal(t, "stored", r.Fill(key, []byte("again"), f).String())
}

func (r *rig) flush(t *testing.T, namespace string) {
	_, err := r.Flush(context.Background(), namespace)
	require.NoError(t, err)
}

// What is kept of an answer is what the entry says of itself.
func TestWhatMayBeKept(t *testing.T) {
	r := newRig(t, func(c *cache.Config) {
		c.Policies.Default.NegativeTTL = time.Minute
		c.Policies.Default.TTL, c.Policies.Default.TTLJitter = time.Hour, 0
		c.Policies.Namespaces = map[string]policy.Namespace{
			"crit": {Class: policy.Critical}, "soft": {SoftTTL: time.Minute, TTL: time.Hour}, "off": {Mode: policy.Off},
			"swr": {SoftTTL: time.Minute, TTL: time.Hour, StaleWhileRevalidate: time.Hour, MaxStale: time.Hour, Lease: policy.Rights{Get: true}},
		}
	})
	p := r.greet(t)
	now := r.Now()
	p.store("n:k", "v", 5, nil)
	p.store("n:tagged", "v", 5, func(f *near.Fill) { f.Tags = []string{"t"} })
	p.store("n:none", "", 5, func(f *near.Fill) { f.Negative = true })
	p.store("soft:k", "v", 5, nil)
	p.store("swr:k", "v", 5, nil)
	r.again(t, "crit:k", 5)
	untracked := get("n:k")
	untracked.Flags = near.ForL0
	require.Zero(t, p.ask(near.KindGet, untracked).(*near.Value).Flags, "before the connection tracks")
	c := r.tracking(p)
	answer := func(key string) *near.Value {
		return c.answerTo(c.begin(key, nil)).m.(*near.Value)
	}
	v := answer("n:k")
	require.Equal(t, near.Cacheable, v.Flags)
	require.Equal(t, now+time.Hour, v.Until)
	require.Equal(t, r.Policies().Default.MaxStale, v.Bound)
	require.Equal(t, near.Cacheable|near.Links, answer("n:tagged").Flags)
	require.Equal(t, near.Cacheable, answer("n:none").Flags)
	require.Equal(t, now+time.Minute, answer("soft:k").Until)
	require.Zero(t, answer("crit:k").Bound, "plain reads are STRONG")
	require.Zero(t, answer("n:absent").Flags&near.Cacheable)
	require.Zero(t, p.get("n:k").Flags, "who does not ask does not keep")

	r.Clock.Advance(2 * time.Minute)
	_, err := r.Barrier(context.Background())
	require.NoError(t, err)
	require.Zero(t, answer("soft:k").Flags&near.Cacheable, "past its soft TTL")
	require.Equal(t, near.Miss, r.greet(t).get("swr:k").Status, "one loads it")
	stale := answer("swr:k")
	require.Equal(t, near.Stale, stale.Status)
	require.Zero(t, stale.Flags&near.Cacheable)
	p.ask(near.KindTrack, &near.Track{})
	require.Zero(t, answer("n:k").Flags, "tracking has ended")
	p.ask(near.KindPing, &near.None{})
	before := len(pushed[*near.Invalidated](p))
	r.Event(t, bus.KeyVersion{Key: "n:k"})
	p.ask(near.KindPing, &near.None{})
	require.Len(t, pushed[*near.Invalidated](p), before)
}

// An entry that hangs on everything is not for L0: every event makes it stale.
func TestWhatHangsOnEverythingIsNotKept(t *testing.T) {
	r := newRig(t, nil)
	p := r.greet(t)
	p.store("n:k", "v", 5, func(f *near.Fill) {
		for i := range 64 {
			f.Tags = append(f.Tags, fmt.Sprint(i))
			f.Depends = append(f.Depends, fmt.Appendf(nil, "n:%d", i))
		}
	})
	c := r.tracking(p)
	v := c.answerTo(c.begin("n:k", nil)).m.(*near.Value)
	require.Equal(t, near.Hit, v.Status)
	require.Zero(t, v.Flags)
}

// Nor is one whose value is compressed: what it hangs on stands where it is expanded.
func TestCompressedThatHangsOnEverythingIsNotKept(t *testing.T) {
	r := newRig(t, func(c *cache.Config) { c.Policies.Default.CompressOver = 100 })
	p := r.greet(t)
	p.store("n:k", strings.Repeat("abcdefgh", 200), 5, func(f *near.Fill) {
		for i := range 64 {
			f.Tags = append(f.Tags, fmt.Sprint(i))
		}
		f.Depends = [][]byte{[]byte("m:leaf"), []byte("m:leaf2")}
	})
	r.tracking(p)
	g := get("n:k")
	g.Flags = near.ForL0
	for _, room := range []int{0, 64 << 10} {
		_, out, _ := p.s.Serve(near.Append(nil, near.KindGet, 77, g), make([]byte, 0, room))
		_, body, err := near.Next(out)
		require.NoError(t, err)
		var v near.Value
		require.NoError(t, near.ParseValue(body, &v))
		require.Equal(t, near.Hit, v.Status)
		require.Zero(t, v.Flags, "with room for %d bytes", room)
	}
}

// O4: an own write's push comes before its answer, and another connection's before a
// pong.
func TestPushesComeBeforeAnswersOfWrites(t *testing.T) {
	r := newRig(t, nil)
	p, q := r.greet(t), r.greet(t)
	p.store("n:k", "v", 5, nil)
	c := r.tracking(p)
	c.begin("n:k", nil)
	order := func(kind near.Kind, m near.Message) (told, answered int) {
		told, answered = -1, -1
		from := len(p.seen)
		p.ask(kind, m)
		for i, f := range p.seen[from:] {
			switch f.kind {
			case near.KindInvalidated:
				told = i
			case kind.Answer():
				answered = i
			}
		}
		return told, answered
	}
	told, answered := order(near.KindInvalidate, &near.Invalidate{Keys: []near.KeyVersion{{Key: []byte("n:k")}}})
	require.GreaterOrEqual(t, told, 0)
	require.Greater(t, answered, told)

	p.store("n:k", "v", 6, nil)
	c.begin("n:k", nil)
	q.ask(near.KindInvalidate, &near.Invalidate{Keys: []near.KeyVersion{{Key: []byte("n:k")}}})
	told, answered = order(near.KindPing, &near.None{})
	require.GreaterOrEqual(t, told, 0)
	require.Greater(t, answered, told)
}

// O3: a Fresh comes with each barrier and pulse, behind what it covers.
func TestFreshIsPushed(t *testing.T) {
	r := newRig(t, nil)
	p := r.greet(t)
	p.store("n:k", "v", 5, nil)
	c := r.tracking(p)
	c.begin("n:k", nil)
	r.Clock.Advance(time.Second)
	asked := r.Now()
	at := r.Publish(t, bus.Event{Keys: []bus.KeyVersion{{Key: "n:k", Version: 6}}})
	_, err := r.Barrier(context.Background())
	require.NoError(t, err)
	p.until(func() bool {
		all := pushed[*near.Fresh](p)
		return len(all) > 0 && all[len(all)-1].AsOf >= asked
	})
	c.take()
	require.Empty(t, c.l0.entries)
	last := len(p.seen) - 1
	require.Equal(t, near.KindFresh, p.seen[last].kind, "behind what it covers")
	require.Equal(t, near.KindInvalidated, p.seen[last-1].kind)
	applied, err := near.ParseToken(c.l0.fresh.Applied)
	require.NoError(t, err)
	token, err := near.ParseToken(cache.Token{Position: at}.String())
	require.NoError(t, err)
	require.True(t, applied.Covers(token))
}

// A key is tracked before it is read: an event that comes after the reader has looked
// into the store, and before it knows what to answer, is told behind the answer (O2).
func TestEventInTheMiddleOfARead(t *testing.T) {
	var armed atomic.Pointer[func()]
	r := newRig(t, func(c *cache.Config) {
		seed := maphash.MakeSeed()
		c.Hash = func(key string) uint64 {
			if key == "n" { // the reader asks whether its namespace was purged since the entry was filled
				if do := armed.Swap(nil); do != nil {
					(*do)()
				}
			}
			return maphash.String(seed, key)
		}
	})
	p := r.greet(t)
	r.Publish(t, bus.Event{Prefix: "other:"}) // so that it asks at all
	p.store("n:k", "v", 5, nil)
	c := r.tracking(p)
	event := func() { r.Event(t, bus.KeyVersion{Key: "n:k", Version: 6}) }
	armed.Store(&event)
	v := c.answerTo(c.begin("n:k", nil)).m.(*near.Value)
	require.Equal(t, "v", string(v.Value), "it had looked before")
	require.Nil(t, armed.Load())
	require.Empty(t, c.holds("n:k"))
}

// The table of tracked keys is bounded: what has no room any more is invalidated (I15).
func TestTrackedKeysAreBounded(t *testing.T) {
	r := newRig(t, func(c *cache.Config) { c.Memory = 64 << 20 })
	held, limit := int64(0), int64(1<<40)
	r.env.Reserve = reserver(&held, &limit)
	p := r.greet(t)
	for i := range 65_537 {
		key := fmt.Sprintf("n:%05d", i)
		require.Equal(t, "stored", r.Fill(key, []byte("v"), cache.FillOptions{Lease: r.Lease(key, false), Version: 1}).String())
	}
	c := r.tracking(p)
	for i := range 65_536 {
		c.begin(fmt.Sprintf("n:%05d", i), nil)
	}
	require.Empty(t, pushed[*near.Invalidated](p))
	c.begin("n:65536", nil)
	require.Empty(t, c.holds("n:00000"))
	require.Equal(t, []*near.Invalidated{{Scope: near.Keys, Reason: near.Untracked, Names: [][]byte{[]byte("n:00000")}}}, pushed[*near.Invalidated](p))
	require.Equal(t, "v", c.holds("n:65536"))
	require.Positive(t, load(&held))
	p.s.Close()
	require.Zero(t, load(&held))
}

// A table of which nothing is left has no room either: it would keep that of all it ever
// held.
func TestTrackedKeysGiveTheirRoomBack(t *testing.T) {
	r := newRig(t, nil)
	c := r.kept(t, "n:a", "n:b")
	require.NotNil(t, c.s.TrackedRoom())
	r.Event(t, bus.KeyVersion{Key: "n:a"}, bus.KeyVersion{Key: "n:b"})
	require.Nil(t, c.s.TrackedRoom())
}

// Without memory to track, answers are not to be kept.
func TestWithoutMemoryNothingIsKept(t *testing.T) {
	r := newRig(t, nil)
	held, limit := int64(0), int64(0)
	r.env.Reserve = reserver(&held, &limit)
	p := r.greet(t)
	g := get("n:k")
	g.Wait = 0
	p.store("n:k", "v", 5, nil)
	c := r.tracking(p)
	require.Zero(t, c.answerTo(c.begin("n:k", nil)).m.(*near.Value).Flags)
	store(&limit, 1000)
	require.Equal(t, near.Cacheable, c.answerTo(c.begin("n:k", nil)).m.(*near.Value).Flags)
	require.Positive(t, load(&held))
	store(&limit, 0) // for the push there is no memory: everything goes, in a few bytes
	r.Event(t, bus.KeyVersion{Key: "n:k"})
	require.Empty(t, c.holds("n:k"))
	require.Equal(t, near.Overflow, pushed[*near.Invalidated](p)[0].Reason)
	require.Zero(t, load(&held))
}

// A client that does not read is told once that everything is out of date.
func TestPushesAreBounded(t *testing.T) {
	r := newRig(t, nil)
	p := r.greet(t)
	long := func(i int) string { return fmt.Sprintf("n:%0*d", 60_000, i) }
	for i := range 20 {
		p.store(long(i), "v", 5, nil)
	}
	c := r.tracking(p)
	for i := range 20 {
		c.begin(long(i), nil)
	}
	require.Equal(t, "v", c.holds(long(19)))
	for i := range 20 { // 1.2 MB of pushes
		r.Event(t, bus.KeyVersion{Key: long(i)})
	}
	p.ask(near.KindPing, &near.None{})
	c.take()
	require.Empty(t, c.l0.entries)
	all := pushed[*near.Invalidated](p)
	require.Len(t, all, 1)
	require.Equal(t, near.Overflow, all[0].Reason)
}

func TestTrackingConnectionsAreBounded(t *testing.T) {
	r := newRig(t, nil)
	for range 256 {
		r.greet(t).ask(near.KindTrack, &near.Track{On: true})
	}
	p := r.greet(t)
	require.Equal(t, near.Busy, p.refusal(near.KindTrack, &near.Track{On: true}).Code)
}

// Pushes go on while nothing is asked, and end with the connection.
func TestClosedSessionIsToldNothing(t *testing.T) {
	r := newRig(t, nil)
	p := r.greet(t)
	p.store("n:k", "v", 5, nil)
	r.tracking(p).begin("n:k", nil)
	p.s.Close()
	for len(p.wake) > 0 {
		<-p.wake
	}
	r.Event(t, bus.KeyVersion{Key: "n:k"})
	ctx, cancel := context.WithTimeoutCause(context.Background(), sidecartest.Wait, errors.New("barrier"))
	defer cancel()
	_, err := r.Barrier(ctx)
	require.NoError(t, err)
	require.Empty(t, p.wake)
}
