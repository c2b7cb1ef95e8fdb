package nearside_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/sdk/go/nearside"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOperations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := f.open(t, nearside.Options{})
		ctx := t.Context()

		a, err := c.Get(ctx, "product:1")
		require.NoError(t, err)
		require.Equal(t, nearside.Miss, a.Status)
		require.True(t, a.Right)
		filled, err := c.Fill(ctx, nearside.Fill{Key: "product:1", Lease: a.Lease, Value: []byte("v1"), Version: 1})
		require.NoError(t, err)
		require.True(t, filled.Stored)

		time.Sleep(time.Second)
		a, err = c.Get(ctx, "product:1", nearside.WithToken())
		require.NoError(t, err)
		require.Equal(t, nearside.Hit, a.Status)
		require.Equal(t, "v1", string(a.Value))
		require.Equal(t, uint64(1), a.Version)
		require.Equal(t, nearside.Token("1-0-1"), a.Token)
		require.Zero(t, a.Age)

		token, err := c.Invalidate(ctx, nearside.Key("product:1", 2), nearside.Tag("t"))
		require.NoError(t, err)
		require.Equal(t, nearside.Token("1-0-2"), token)
		late, err := c.Fill(ctx, nearside.Fill{Key: "product:1", Lease: a.Lease, Value: []byte("v1")})
		require.NoError(t, err)
		require.Equal(t, nearside.Filled{Verdict: "event"}, late)

		_, err = c.Update(ctx, nearside.Update{Key: "product:1", Version: 3, Value: []byte("v3")})
		require.NoError(t, err)
		all, err := c.GetMany(ctx, []string{"product:2", "product:1"})
		require.NoError(t, err)
		require.Equal(t, nearside.Miss, all[0].Status)
		require.Equal(t, "v3", string(all[1].Value))

		_, err = c.Barrier(ctx)
		require.NoError(t, err)
		facts, err := c.Explain(ctx, "product:1")
		require.NoError(t, err)
		require.Equal(t, []nearside.Fact{{Name: "key", Value: "product:1"}}, facts)
		facts, err = c.Status(ctx)
		require.NoError(t, err)
		require.Equal(t, "live", facts[0].Value)
		require.NoError(t, c.Release(ctx, "product:1", "x"))
	})
}

// A key that the protocol cannot carry is told before anything is sent.
func TestKeysAreChecked(t *testing.T) {
	c := newFake().open(t, nearside.Options{})
	for _, key := range []string{"", strings.Repeat("k", 65536)} {
		_, err := c.Get(t.Context(), key)
		require.ErrorIs(t, err, nearside.ErrBadKey)
		_, err = c.GetMany(t.Context(), []string{"k", key})
		require.ErrorIs(t, err, nearside.ErrBadKey)
		_, err = c.Fill(t.Context(), nearside.Fill{Key: key})
		require.ErrorIs(t, err, nearside.ErrBadKey)
		_, err = c.Explain(t.Context(), key)
		require.ErrorIs(t, err, nearside.ErrBadKey)
		_, err = nearside.GetOrLoad(t.Context(), c, key, nearside.Source[string]{})
		require.ErrorIs(t, err, nearside.ErrBadKey)
		_, err = c.Invalidate(t.Context(), nearside.Key(key, 0))
		require.ErrorIs(t, err, nearside.ErrBadKey)
		require.ErrorIs(t, err, nearside.ErrNotPublished)
		_, err = c.Update(t.Context(), nearside.Update{Key: key})
		require.ErrorIs(t, err, nearside.ErrBadKey)
	}
	_, err := c.Invalidate(t.Context(), nearside.Prefix("a:"), nearside.Prefix("b:"))
	require.ErrorContains(t, err, "one prefix")
	require.Zero(t, c.Stats().Connected)
}

func TestOptionsAreChecked(t *testing.T) {
	t.Setenv("NEARSIDE_SOCKET", filepath.Join("/", strings.Repeat("x", 107)))
	_, err := nearside.Open(nearside.Options{})
	require.ErrorContains(t, err, "at most 107")
	for _, o := range []nearside.Options{
		{Socket: "s", Timeout: -1}, {Socket: "s", Connections: -1}, {Socket: "s", WriteTimeout: -1},
		{Socket: "s", L0: &nearside.L0Options{Bound: -1}}, {Socket: "s", L0: &nearside.L0Options{MaxBytes: 1, MaxEntries: 1}},
	} {
		_, err := nearside.Open(o)
		require.ErrorContains(t, err, "negative", "%+v", o)
	}
}

// Requests of many callers share a connection, and are answered in any order.
func TestAnswersComeOutOfOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		var held []func()
		var mu sync.Mutex
		f.hooked(func(p *peer, h near.Header, m near.Message) bool {
			g, ok := m.(*near.Get)
			if !ok {
				return false
			}
			mu.Lock()
			defer mu.Unlock()
			held = append(held, func() {
				p.send(near.KindGet.Answer(), h.ID, &near.Value{Status: near.Hit, Value: g.Key})
			})
			return true
		})
		c := f.open(t, nearside.Options{Connections: 1})
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				key := "k:" + strconv.Itoa(i)
				a, err := c.Get(t.Context(), key)
				require.NoError(t, err)
				require.Equal(t, key, string(a.Value))
			})
		}
		synctest.Wait()
		require.Len(t, held, 100)
		for i := len(held) - 1; i >= 0; i-- {
			held[i]()
		}
		all.Wait()
		require.Equal(t, 1, f.dialled())
	})
}

func TestConnectionsArePooled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := f.open(t, nearside.Options{Connections: 3})
		require.Zero(t, f.dialled(), "nothing is done before the first use")
		for range 20 {
			_, err := c.Get(t.Context(), "k")
			require.NoError(t, err)
			synctest.Wait()
		}
		require.Equal(t, 3, f.dialled())
		require.Equal(t, 3, c.Stats().Connected)
	})
}

// A sidecar that is away costs nothing: reads fail at once, and it is tried again by
// and by.
func TestAbsentSidecar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.leave()
		c := f.open(t, nearside.Options{Connections: 1})
		_, err := c.Get(t.Context(), "k")
		require.ErrorIs(t, err, nearside.ErrUnavailable)
		require.ErrorContains(t, err, "no such file")
		before := time.Now()
		for range 1000 {
			_, err := c.Get(t.Context(), "k")
			require.ErrorIs(t, err, nearside.ErrUnavailable)
		}
		require.Equal(t, before, time.Now(), "nobody waits")
		time.Sleep(time.Minute)
		require.Less(t, f.dialled(), 150)
		require.Greater(t, f.dialled(), 30)

		f.comeBack()
		time.Sleep(time.Second)
		_, err = c.Get(t.Context(), "k")
		require.NoError(t, err)
	})
}

func TestReconnectAfterABreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := f.open(t, nearside.Options{Connections: 1})
		_, err := c.Get(t.Context(), "k")
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		f.leave()
		f.comeBack()
		synctest.Wait()
		_, err = c.Get(t.Context(), "k")
		require.NoError(t, err, "a connection that had lived is replaced at once")
		require.Equal(t, uint64(1), c.Stats().Disconnects)
	})
}

// A sidecar that is stopped, or hangs, is found out within Timeout; then reads fail at
// once until it answers a HELLO again.
func TestSilentSidecar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := f.open(t, nearside.Options{Connections: 1, Timeout: 200 * time.Millisecond})
		_, err := c.Get(t.Context(), "k")
		require.NoError(t, err)
		f.hooked(func(*peer, near.Header, near.Message) bool { return true })
		before := time.Now()
		_, err = c.Get(t.Context(), "k")
		require.ErrorIs(t, err, nearside.ErrUnavailable)
		require.LessOrEqual(t, time.Since(before), 300*time.Millisecond)
		time.Sleep(time.Second) // greeted by nobody
		before = time.Now()
		_, err = c.Get(t.Context(), "k")
		require.ErrorIs(t, err, nearside.ErrUnavailable)
		require.Equal(t, before, time.Now())

		f.hooked(nil)
		time.Sleep(3 * time.Second)
		_, err = c.Get(t.Context(), "k")
		require.NoError(t, err)
	})
}

// A read may wait as long as it likes while the sidecar shows that it lives.
func TestWaitingReadIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.hooked(func(p *peer, h near.Header, m near.Message) bool {
			if _, ok := m.(*near.Get); !ok {
				return false
			}
			go func() {
				time.Sleep(5 * time.Second)
				p.send(near.KindGet.Answer(), h.ID, &near.Value{Status: near.Hit})
			}()
			return true
		})
		c := f.open(t, nearside.Options{Timeout: 100 * time.Millisecond})
		_, err := c.Get(t.Context(), "k", nearside.Wait(6*time.Second))
		require.NoError(t, err)
		_, err = c.Get(t.Context(), "k", nearside.Wait(time.Second))
		require.ErrorIs(t, err, nearside.ErrUnavailable)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err = c.Get(ctx, "k", nearside.Wait(6*time.Second))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, nearside.ErrUnavailable)
		require.Zero(t, c.Stats().Disconnects)
		time.Sleep(10 * time.Second)
	})
}

func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.hooked(func(_ *peer, _ near.Header, m near.Message) bool { _, ok := m.(*near.Get); return ok })
		c := f.open(t, nearside.Options{})
		failed := make(chan error, 1)
		go func() {
			_, err := c.Get(t.Context(), "k")
			failed <- err
		}()
		synctest.Wait()
		require.NoError(t, c.Close())
		require.ErrorIs(t, <-failed, nearside.ErrClosed)
		require.NoError(t, c.Close())
		_, err := c.Get(t.Context(), "k")
		require.ErrorIs(t, err, nearside.ErrClosed)
		_, err = c.Invalidate(t.Context(), nearside.Key("k", 0))
		require.ErrorIs(t, err, nearside.ErrClosed)
		for range c.Watch(t.Context()) {
			t.Error("an event after the end")
		}
	})
}

func TestContextsAreHeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		c := f.open(t, nearside.Options{})
		_, err := c.Get(ctx, "k")
		require.ErrorIs(t, err, context.Canceled)
		slow := f.open(t, nearside.Options{Timeout: time.Hour, Dial: func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = slow.Get(ctx, "k")
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

// A write says what became of it.
func TestFailedWrites(t *testing.T) {
	cases := map[near.Code]error{
		near.NoAck: nearside.ErrUncertain, near.NotApplied: nearside.ErrNotApplied, near.NoPerm: nearside.ErrNotPublished,
		near.Busy: nearside.ErrNotPublished, near.Failed: nearside.ErrUncertain, near.Ending: nearside.ErrUncertain,
	}
	for code, want := range cases {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			f.hooked(func(p *peer, h near.Header, m near.Message) bool {
				if _, ok := m.(*near.Invalidate); ok {
					p.fail(h, code)
				}
				_, hello := m.(*near.Hello)
				return !hello
			})
			c := f.open(t, nearside.Options{})
			_, err := c.Invalidate(t.Context(), nearside.Key("k", 1))
			require.ErrorIs(t, err, want, code)
			var answer *near.Error
			require.ErrorAs(t, err, &answer)
			require.Equal(t, code, answer.Code)
			require.Equal(t, uint64(1), c.Stats().FailedWrites)
		})
	}
}

// A write waits for a sidecar that comes back, and says what it knows if none does.
func TestWritesWhileAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.leave()
		c := f.open(t, nearside.Options{WriteTimeout: 2 * time.Second})
		_, err := c.Invalidate(t.Context(), nearside.Key("k", 1))
		require.ErrorIs(t, err, nearside.ErrNotPublished)
		require.ErrorIs(t, err, nearside.ErrUnavailable)
		require.NotErrorIs(t, err, nearside.ErrUncertain)

		time.AfterFunc(time.Second, f.comeBack)
		_, err = c.Invalidate(t.Context(), nearside.Key("k", 1))
		require.NoError(t, err)

		broken := 0
		f.hooked(func(p *peer, _ near.Header, m near.Message) bool {
			_, write := m.(*near.Invalidate)
			if write {
				broken++
				p.nc.Close()
			}
			return write
		})
		_, err = c.Invalidate(t.Context(), nearside.Key("k", 1))
		require.ErrorIs(t, err, nearside.ErrUncertain, "it was sent, and the connection broke")
		require.Greater(t, broken, 1, "and it was sent again")
		require.Less(t, broken, 50)
	})
}

func TestServerErrorsAreNotSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.hooked(func(p *peer, h near.Header, m near.Message) bool {
			if _, ok := m.(*near.Get); ok {
				p.fail(h, near.Busy)
				return true
			}
			return false
		})
		c := f.open(t, nearside.Options{})
		_, err := c.Get(t.Context(), "k")
		var answer *near.Error
		require.ErrorAs(t, err, &answer)
		require.False(t, errors.Is(err, nearside.ErrUnavailable))
		require.Equal(t, uint64(1), c.Stats().FailedReads)
	})
}

// What the answer had no room for is asked again.
func TestGetManyAsksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.hooked(func(p *peer, h near.Header, m near.Message) bool {
			g, ok := m.(*near.Gets)
			if !ok {
				return false
			}
			v := near.Values{Items: make([]near.Value, len(g.Keys))}
			for i, k := range g.Keys {
				v.Items[i] = near.Value{Status: near.Unread}
				if i < 2 {
					v.Items[i] = near.Value{Status: near.Hit, Value: k}
				}
			}
			p.send(near.KindGets.Answer(), h.ID, &v)
			return true
		})
		c := f.open(t, nearside.Options{})
		keys := []string{"a", "b", "c", "d", "e"}
		all, err := c.GetMany(t.Context(), keys)
		require.NoError(t, err)
		for i, a := range all {
			require.Equal(t, keys[i], string(a.Value))
		}
		f.hooked(func(p *peer, h near.Header, m near.Message) bool {
			_, ok := m.(*near.Gets)
			if ok {
				p.send(near.KindGets.Answer(), h.ID, &near.Values{Items: []near.Value{{Status: near.Unread}}})
			}
			return ok
		})
		_, err = c.GetMany(t.Context(), []string{"a"})
		require.ErrorIs(t, err, nearside.ErrUnavailable)
		_, err = c.GetMany(t.Context(), keys)
		require.ErrorIs(t, err, nearside.ErrUnavailable)
	})
}

func TestSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		var tokens []string
		f.hooked(func(_ *peer, _ near.Header, m near.Message) bool {
			if g, ok := m.(*near.Get); ok {
				tokens = append(tokens, g.Token)
			}
			return false
		})
		c := f.open(t, nearside.Options{})
		get := func(ctx context.Context, o ...nearside.ReadOption) string {
			_, err := c.Get(ctx, "k", o...)
			require.NoError(t, err)
			return tokens[len(tokens)-1]
		}
		plain := t.Context()
		ctx := nearside.ContextWithSession(plain)
		require.Empty(t, get(ctx))
		token, err := c.Invalidate(ctx, nearside.Key("k", 1))
		require.NoError(t, err)
		require.Equal(t, token, nearside.TokenFrom(ctx))
		require.Equal(t, string(token), get(ctx))
		require.Empty(t, get(plain))
		require.Empty(t, get(ctx, nearside.Any()))
		require.Equal(t, "7-0-1", get(ctx, nearside.AtLeast("7-0-1")))
		require.Equal(t, string(token), get(ctx, nearside.AtLeast("")))
		require.Empty(t, nearside.TokenFrom(plain))

		other := nearside.ContextWithToken(plain, "1-0-ff-3")
		require.Equal(t, "1-0-ff", get(other), "the version is another key's")
		_, err = c.Invalidate(other, nearside.Key("k", 1))
		require.NoError(t, err)
		require.Equal(t, nearside.Token("1-0-ff"), nearside.TokenFrom(other), "never back")
		other = nearside.ContextWithToken(plain, "0-0-ff")
		_, err = c.Invalidate(other, nearside.Key("k", 1))
		require.NoError(t, err)
		require.Equal(t, nearside.Token("1-0-4"), nearside.TokenFrom(other), "another stream")
	})
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := f.open(t, nearside.Options{Connections: 2})
		ctx, cancel := context.WithCancel(t.Context())
		var seen []nearside.Event
		done := make(chan struct{})
		go func() {
			defer close(done)
			for e := range c.Watch(ctx) {
				seen = append(seen, e)
			}
		}()
		synctest.Wait()
		require.Len(t, seen, 1)
		require.True(t, seen[0].Gap, "the beginning")
		_, err := c.Invalidate(t.Context(), nearside.Key("product:1", 7), nearside.Tag("t"))
		require.NoError(t, err)
		synctest.Wait()
		require.Len(t, seen, 2)
		require.Equal(t, []nearside.KeyVersion{{Key: "product:1", Version: 7}}, seen[1].Keys)
		require.Equal(t, nearside.Token("1-0-2"), seen[1].Position)
		require.False(t, seen[1].Gap)

		for range c.Watch(ctx) {
			break // a second one begins with a gap as well
		}
		f.leave()
		f.comeBack()
		time.Sleep(time.Second)
		synctest.Wait()
		require.Len(t, seen, 3)
		require.True(t, seen[2].Gap, "the connection was away")
		cancel()
		<-done
		synctest.Wait()
		require.False(t, f.peers[0].watches, "nobody watches any more")
	})
}

// A watcher that does not keep up is told how much it has missed.
func TestSlowWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := f.open(t, nearside.Options{})
		n, lost := 0, uint64(0)
		for e := range c.Watch(t.Context()) {
			n, lost = n+1, lost+e.Lost
			if n == 1 {
				for i := range 2000 {
					f.push(near.KindEvent, &near.Event{Seq: uint64(i), Op: "invalidate"})
				}
				synctest.Wait()
				time.AfterFunc(time.Second, func() { f.push(near.KindEvent, &near.Event{Op: "flush", Lost: 5}) })
			}
			if e.Op == "flush" {
				break
			}
		}
		require.Equal(t, uint64(2000+1+1+5), uint64(n)+lost, "the gap, the events, and what the sidecar lost")
		require.Equal(t, lost-5, c.Stats().DroppedEvents)
	})
}

// An answer of another kind than its request's is no answer.
func TestAnswersOfAnotherKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.hooked(func(p *peer, h near.Header, _ near.Message) bool {
			if h.Kind == near.KindGet {
				p.send(near.KindPing.Answer(), h.ID, &near.Pong{})
			}
			return h.Kind == near.KindGet
		})
		c := f.open(t, nearside.Options{Connections: 1})
		_, err := c.Get(t.Context(), "k")
		require.ErrorIs(t, err, near.ErrFraming)
		require.ErrorIs(t, err, nearside.ErrUnavailable)
		synctest.Wait()
		require.Equal(t, uint64(1), c.Stats().Disconnects)
	})
}
