package native_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/clock"
	"github.com/nearside-cache/nearside/sidecar/session"
)

func TestHello(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial(t)
	require.Equal(t, near.NoHello, p.refusal(near.KindGet, get("k")).Code)
	require.Equal(t, near.NoVersion, p.refusal(near.KindHello, &near.Hello{Min: 2, Max: 9}).Code)
	require.Equal(t, near.NoVersion, p.refusal(near.KindHello, &near.Hello{}).Code)
	require.Equal(t, near.BadValue, p.refusal(near.KindHello, &near.Hello{Min: 1, Max: 1, Name: "a b"}).Code)
	require.Equal(t, near.NoHello, p.refusal(near.KindPing, &near.None{}).Code)
	w := p.ask(near.KindHello, &near.Hello{Min: 1, Max: 7, Name: "app", Library: "lib", LibraryVersion: "9"}).(*near.Welcome)
	require.Equal(t, &near.Welcome{
		Version: 1, Sidecar: "1.2.3", Client: 1, Incarnation: r.Incarnation(), Clock: r.Now(), BootID: clock.BootID(),
		Limits: near.Limits{Key: 65_535, Value: 1 << 20, Frame: 4 << 20, Pending: 1024, Tracked: 65_536},
	}, w)
	require.Equal(t, "app", r.env.Clients.List()[0].Name)
	require.Equal(t, near.Miss, p.get("k").Status)

	r.env.Password = "secret"
	q := r.dial(t)
	require.Equal(t, near.WrongPass, q.refusal(near.KindHello, &near.Hello{Min: 1, Max: 1, Password: "wrong"}).Code)
	require.Equal(t, near.NoHello, q.refusal(near.KindGet, get("k")).Code)
	q.ask(near.KindHello, &near.Hello{Min: 1, Max: 1, Password: "secret"})
	require.Equal(t, 2, r.env.Clients.Len())
	q.s.Close()
	require.Equal(t, 1, r.env.Clients.Len())
}

func TestModesAndFills(t *testing.T) {
	r := newRig(t, nil)
	p := r.greet(t)
	p.store("n:k", "one", 5, nil)
	v := p.get("n:k")
	require.Equal(t, near.Value{Status: near.Hit, Value: []byte("one"), Version: 5, AsOf: v.AsOf}, v, "no token, nothing to keep")

	g := get("n:k")
	g.Flags = near.WithToken
	token := p.ask(near.KindGet, g).(*near.Value).Token
	require.NotEmpty(t, token)
	for mode, want := range map[near.Mode]near.Status{near.Class: near.Hit, near.Any: near.Hit, near.MaxStale: near.Hit, near.AtLeast: near.Hit, near.Strong: near.Hit} {
		g := get("n:k")
		g.Mode, g.MaxStale, g.Token = mode, time.Hour, token
		require.Equal(t, want, p.ask(near.KindGet, g).(*near.Value).Status, mode)
	}
	w := p.ask(near.KindInvalidate, &near.Invalidate{Keys: []near.KeyVersion{{Key: []byte("n:k"), Version: 6}}}).(*near.Written)
	require.Equal(t, uint64(1), w.Alive)
	g = get("n:k")
	g.Mode, g.Token = near.AtLeast, w.Token
	miss := p.ask(near.KindGet, g).(*near.Value)
	require.Equal(t, near.Miss, miss.Status)
	require.Equal(t, near.Right, miss.Flags)
	require.Equal(t, &near.Filled{Verdict: "older-version"}, p.ask(near.KindFill, &near.Fill{Key: []byte("n:k"), Lease: miss.Lease, Value: []byte("one"), Version: 5}))
	p.ask(near.KindUpdate, &near.Update{Key: []byte("n:k"), Version: 7, Value: []byte("seven")})
	require.NotEqual(t, []byte("one"), p.get("n:k").Value)
	require.NotEmpty(t, p.ask(near.KindBarrier, &near.None{}).(*near.Written).Token)
}

func TestNegative(t *testing.T) {
	r := newRig(t, func(c *cache.Config) { c.Policies.Default.NegativeTTL = time.Minute })
	p := r.greet(t)
	p.store("n:k", "", 0, func(f *near.Fill) { f.Negative = true })
	require.Equal(t, near.Negative, p.get("n:k").Status)
}

// Answers of what waits come when they can, those of what does not come at once.
func TestWaitingHoldsNothingUp(t *testing.T) {
	r := newRig(t, nil)
	p, q := r.greet(t), r.greet(t)
	first := q.get("n:k")
	require.Equal(t, near.Right, first.Flags)
	g := get("n:k")
	g.Wait = time.Minute
	waits := p.send(near.KindGet, g)
	require.Equal(t, near.Miss, p.get("n:other").Status, "beside it")
	require.Equal(t, 1, p.s.Pending())
	require.Equal(t, &near.Filled{Stored: true}, q.ask(near.KindFill, &near.Fill{Key: []byte("n:k"), Lease: first.Lease, Value: []byte("v")}))
	v := p.answerTo(waits).m.(*near.Value)
	require.Equal(t, near.Hit, v.Status)
	require.Equal(t, []byte("v"), v.Value)
	require.Zero(t, p.s.Pending())
}

// A right that is released passes on to who waits.
func TestRightsPassOn(t *testing.T) {
	r := newRig(t, nil)
	p, q := r.greet(t), r.greet(t)
	first := q.get("n:k")
	g := get("n:k")
	g.Wait = time.Minute
	waits := p.send(near.KindGet, g)
	require.Equal(t, &near.Count{N: 1}, q.ask(near.KindRelease, &near.Release{Key: []byte("n:k"), Lease: first.Lease}))
	v := p.answerTo(waits).m.(*near.Value)
	require.Equal(t, near.Miss, v.Status)
	require.Equal(t, near.Right, v.Flags)
	require.Equal(t, &near.Count{}, q.ask(near.KindRelease, &near.Release{Key: []byte("n:k"), Lease: first.Lease}), "it had ended")

	waits = q.send(near.KindGet, g)
	p.s.Close() // which has the right
	v = q.answerTo(waits).m.(*near.Value)
	require.Equal(t, near.Right, v.Flags)
}

func TestRefusals(t *testing.T) {
	r := newRig(t, nil)
	p := r.greet(t)
	long := []byte(strings.Repeat("k", 65_536))
	many := &near.Get{Key: []byte("k"), Read: near.Read{Mode: 9}}
	for _, c := range []struct {
		kind near.Kind
		m    near.Message
		code near.Code
		says string
	}{
		{near.KindGet, get(""), near.BadValue, "0 bytes"},
		{near.KindGet, &near.Get{Key: long}, near.BadValue, "65536 bytes"},
		{near.KindGet, many, near.BadValue, "mode"},
		{near.KindGet, &near.Get{Key: []byte("k"), Read: near.Read{Mode: near.AtLeast, Token: "x"}}, near.BadValue, "malformed token"},
		{near.KindGets, &near.Gets{Keys: [][]byte{{}}}, near.BadValue, "0 bytes"},
		{near.KindFill, &near.Fill{Key: []byte("k"), Lease: "x"}, near.BadValue, "malformed lease"},
		{near.KindRelease, &near.Release{Key: []byte("k"), Lease: "x"}, near.BadValue, "malformed lease"},
		{near.KindInvalidate, &near.Invalidate{}, near.BadValue, "nothing is named"},
		{near.KindInvalidate, &near.Invalidate{Prefix: []byte("x")}, near.BadValue, "names no namespace"},
		{near.KindInvalidate, &near.Invalidate{Namespace: "x", Tags: []string{"t"}}, near.BadValue, "name nothing else"},
		{near.KindInvalidate, &near.Invalidate{Namespace: "x"}, near.NoPerm, ""},
		{near.KindUpdate, &near.Update{Key: []byte("k")}, near.BadValue, "version is 0"},
		{near.KindUpdate, &near.Update{Key: []byte("k"), Version: 1, Value: make([]byte, 1<<20+1)}, near.BadValue, "1048577 bytes"},
		{near.KindExplain, &near.Explain{}, near.BadValue, "0 bytes"},
		{near.KindToggle, &near.Toggle{Namespace: "n", Setting: "mode", Value: "x"}, near.BadValue, ""},
		{near.KindToggle, &near.Toggle{}, near.BadValue, "0 bytes"},
		{near.Kind(0x3f), &near.None{}, near.Unknown, "0x3f"},
		{near.KindFresh, &near.None{}, near.Unknown, "FRESH"},
	} {
		e := p.refusal(c.kind, c.m)
		require.Equal(t, c.code, e.Code, "%s: %v", c.kind, e)
		require.Contains(t, e.Message, c.says, c.kind)
	}
	p.last++
	p.feed([]byte{near.Magic, byte(near.KindGet), 0, 0, byte(p.last >> 8), byte(p.last), 0, 0, 0, 1, 0xc0})
	require.Equal(t, near.Malformed, p.answerTo(p.last).m.(*near.Error).Code)
	require.Equal(t, near.Miss, p.get("k").Status, "the connection lives")
}

// A frame that is too long is read past, byte by byte if it comes so.
func TestLongFrames(t *testing.T) {
	r := newRig(t, nil)
	p := r.greet(t)
	long := near.Append(nil, near.KindFill, 70, &near.Fill{Value: make([]byte, 4<<20)})
	for len(long) > 0 {
		n := min(len(long), 100_000)
		p.feed(long[:n])
		if long = long[n:]; len(long) > 0 {
			require.True(t, p.s.Begun())
			require.Empty(t, p.in, "nothing is kept of it")
		}
	}
	require.Equal(t, near.TooLarge, p.answerTo(70).m.(*near.Error).Code)
	require.False(t, p.s.Begun())
	require.Equal(t, near.Miss, p.get("k").Status)
}

func TestFramesComeInPieces(t *testing.T) {
	r := newRig(t, nil)
	p := r.greet(t)
	one := near.Append(nil, near.KindGet, 71, get("n:k"))
	for _, b := range one[:len(one)-1] {
		require.Empty(t, p.feed([]byte{b}))
		require.True(t, p.s.Begun())
	}
	require.Equal(t, 1, p.s.WantMore())
	received := p.s.Received()
	require.Len(t, p.feed(one[len(one)-1:]), 1)
	require.False(t, p.s.Begun())
	require.Equal(t, received+1, p.s.Received())
}

func TestLostFraming(t *testing.T) {
	r := newRig(t, nil)
	for _, in := range []string{"GET k\r\n", "\xb5\x03\x00\x00\x00\x01\x7f\xff\xff\xff"} {
		p := r.greet(t)
		p.feed([]byte(in))
		require.True(t, p.ended)
		require.True(t, p.s.Fault())
		bye := pushed[*near.Goodbye](p)
		require.Len(t, bye, 1)
		require.Equal(t, near.Framing, bye[0].Code)
	}
	p := r.greet(t)
	p.collect(p.s.Refuse(nil, "too slow"))
	require.Equal(t, &near.Goodbye{Error: near.Error{Code: near.Ending, Message: "too slow"}}, p.seen[len(p.seen)-1].m)
}

// What waits is bounded, by number and by the memory that all share (I15), and ends
// with the connection.
func TestWaitingIsBounded(t *testing.T) {
	r := newRig(t, nil)
	held, limit := int64(0), int64(1<<40)
	r.env.Reserve = reserver(&held, &limit)
	p, q := r.greet(t), r.greet(t)
	q.get("n:k")
	g := get("n:k")
	g.Wait = time.Hour
	for range 1024 {
		p.send(near.KindGet, g)
	}
	require.Equal(t, near.Busy, p.refusal(near.KindGet, g).Code)
	require.Equal(t, near.Hit, func() near.Status {
		q.store("n:other", "v", 1, nil)
		return p.get("n:other").Status
	}(), "what does not wait goes on")
	p.s.Close()
	require.Zero(t, load(&held))

	store(&limit, 4096)
	p = r.greet(t)
	require.Equal(t, near.NoMemory, p.refusal(near.KindGet, g).Code)
	require.Zero(t, p.s.Pending())
}

// What a request keeps while it waits is reserved, whatever it brings (I15).
func TestWhatWaitsIsReserved(t *testing.T) {
	const big = 60_000
	texts := func(n int) (all []string) {
		for i := range n {
			all = append(all, strings.Repeat(string(rune('a'+i)), big))
		}
		return all
	}
	keys := make([][]byte, 100)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "l:%d", i)
	}
	for name, c := range map[string]struct {
		kind near.Kind
		m    func(lease string) near.Message
		want int64
	}{
		"tags of a write": {near.KindInvalidate, func(string) near.Message { return &near.Invalidate{Tags: texts(15)} }, 15 * big},
		"id of a write": {near.KindInvalidate, func(string) near.Message {
			return &near.Invalidate{Keys: []near.KeyVersion{{Key: []byte("n:k")}}, ID: texts(1)[0]}
		}, big},
		"id of an update": {near.KindUpdate, func(string) near.Message {
			return &near.Update{Key: []byte("n:k"), Version: 1, ID: texts(1)[0]}
		}, big},
		"tags of a fill": {near.KindFill, func(lease string) near.Message {
			return &near.Fill{Key: []byte("n:k"), Lease: lease, Version: 9, Tags: texts(15)}
		}, 15 * big},
		"depends of a fill": {near.KindFill, func(lease string) near.Message {
			f := &near.Fill{Key: []byte("n:k"), Lease: lease, Version: 9}
			for _, key := range texts(15) {
				f.Depends = append(f.Depends, []byte(key))
			}
			return f
		}, 15 * big},
		"value of a toggle":    {near.KindToggle, func(string) near.Message { return &near.Toggle{Namespace: "n", Setting: "mode", Value: texts(1)[0]} }, big},
		"goroutines of a gets": {near.KindGets, func(string) near.Message { return &near.Gets{Keys: keys, Read: near.Read{Wait: time.Millisecond}} }, 64 * 4096},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := loadingRig(t)
			r.SetPolicies(withPurges(r.Policies()))
			var held, most atomic.Int64
			r.env.Reserve = func(n int64) bool {
				most.Store(max(most.Load(), held.Add(n)))
				return true
			}
			p := r.greet(t)
			p.answerTo(p.send(c.kind, c.m(r.Lease("n:k", true).String())))
			require.GreaterOrEqual(t, most.Load(), c.want)
			require.Zero(t, held.Load())
		})
	}
}

func TestDescriptions(t *testing.T) {
	r := newRig(t, nil)
	p := r.greet(t)
	p.store("n:k", "v", 5, nil)
	facts := func(m near.Message) map[string]any {
		all := make(map[string]any)
		for _, f := range m.(*near.Description).Facts {
			all[f.Name] = f.Value
		}
		return all
	}
	x := facts(p.ask(near.KindExplain, &near.Explain{Key: []byte("n:k")}))
	require.Equal(t, "HIT", x["next_read"])
	require.Equal(t, uint64(5), x["version"])
	require.Equal(t, true, x["resident"])
	s := facts(p.ask(near.KindStatus, &near.None{}))
	require.Equal(t, "1.2.3", s["version"])
	require.Equal(t, uint64(1), s["clients"])
	require.JSONEq(t, `["x"]`, string(p.ask(near.KindSettings, &near.None{}).(*near.SettingsText).JSON))
	require.Equal(t, &near.Pong{Clock: r.Now()}, p.ask(near.KindPing, &near.None{}))
}

func TestPolicies(t *testing.T) {
	r := newRig(t, nil)
	p := r.greet(t)
	require.Equal(t, &near.Count{N: 1}, p.ask(near.KindToggle, &near.Toggle{Namespace: "n", Setting: "mode", Value: "off", For: time.Hour}))
	s := p.ask(near.KindPolicy, &near.Policy{Namespace: "n"}).(*near.PolicyState)
	require.Equal(t, "off", s.Mode)
	require.NotEmpty(t, s.Effects)
	require.Len(t, s.Toggles, 1)
	require.Equal(t, time.Hour, s.Toggles[0].Left)
	require.Len(t, p.ask(near.KindPolicy, &near.Policy{}).(*near.PolicyState).Toggles, 1)
	require.Equal(t, &near.Count{N: 1}, p.ask(near.KindUntoggle, &near.Untoggle{Namespace: "n"}))
}

func TestSubscribe(t *testing.T) {
	r := newRig(t, nil)
	p := r.greet(t)
	p.ask(near.KindSubscribe, &near.None{})
	p.ask(near.KindSubscribe, &near.None{})
	r.Event(t, bus.KeyVersion{Key: "n:k", Version: 7})
	p.until(func() bool { return len(pushed[*near.Event](p)) == 1 })
	e := pushed[*near.Event](p)[0]
	require.Equal(t, []near.KeyVersion{{Key: []byte("n:k"), Version: 7}}, e.Keys)
	require.Equal(t, "invalidate", e.Op)
	p.ask(near.KindUnsubscribe, &near.None{})
	r.Event(t, bus.KeyVersion{Key: "n:k", Version: 8})
	p.ask(near.KindPing, &near.None{})
	require.Len(t, pushed[*near.Event](p), 1)
	p.ask(near.KindUnsubscribe, &near.None{})
}

func TestNativeHitDoesNotAllocate(t *testing.T) {
	r := newRig(t, nil)
	p := r.greet(t)
	p.store("n:k", strings.Repeat("v", 100), 5, nil)
	in := near.Append(nil, near.KindGet, 1, get("n:k"))
	out := make([]byte, 0, 1024)
	hit := func() {
		n, b, next := p.s.Serve(in, out[:0])
		if n != len(in) || next != session.Input || len(b) < 100 {
			panic("no hit")
		}
	}
	// What the store itself takes is not the session's.
	buf := make([]byte, 0, 1024)
	store := testing.AllocsPerRun(200, func() { r.Near("n:k", cache.Mode{}, false, false, buf) })
	require.Equal(t, store, testing.AllocsPerRun(200, hit))
}
