package nearside_test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/sdk/go/nearside"
)

func withL0() nearside.Options { return nearside.Options{L0: &nearside.L0Options{}} }

// fromL0 reads a key twice and reports whether the second answer is from L0.
func fromL0(t *testing.T, c *nearside.Client, key string, o ...nearside.ReadOption) bool {
	_, err := c.Get(t.Context(), key)
	require.NoError(t, err)
	a, err := c.Get(t.Context(), key, o...)
	require.NoError(t, err)
	return a.FromL0
}

func TestL0(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.set("k", "v", 7)
		c := f.open(t, nearside.Options{Connections: 4, L0: &nearside.L0Options{}})
		require.True(t, fromL0(t, c, "k"))
		synctest.Wait()
		require.Equal(t, 1, f.dialled(), "what comes on two connections has no order")
		a, err := c.Get(t.Context(), "k", nearside.WithToken(), nearside.MaxStale(0))
		require.NoError(t, err)
		require.Equal(t, "v", string(a.Value))
		require.Equal(t, nearside.Token("1-0-1-7"), a.Token)

		time.Sleep(time.Second)
		require.True(t, fromL0(t, c, "k"))
		a, err = c.Get(t.Context(), "k", nearside.MaxStale(100*time.Millisecond))
		require.NoError(t, err)
		require.False(t, a.FromL0)
		f.fresh()
		synctest.Wait()
		require.True(t, fromL0(t, c, "k", nearside.MaxStale(100*time.Millisecond)))
		require.False(t, fromL0(t, c, "k", nearside.Strong()))
		require.True(t, fromL0(t, c, "k", nearside.AtLeast("1-0-1")))
		require.True(t, fromL0(t, c, "k", nearside.AtLeast("1-0-1-7")))
		require.False(t, fromL0(t, c, "k", nearside.AtLeast("1-0-1-8")), "C13: the version of the key")
		require.False(t, fromL0(t, c, "k", nearside.AtLeast("1-0-2")))
		require.False(t, fromL0(t, c, "k", nearside.AtLeast("1-1-1")), "another part of history")
		require.False(t, fromL0(t, c, "k", nearside.AtLeast("no token")), "the sidecar says what it is")

		_, err = c.Invalidate(t.Context(), nearside.Key("k", 8))
		require.NoError(t, err)
		a, err = c.Get(t.Context(), "k", nearside.Any())
		require.NoError(t, err)
		require.Equal(t, nearside.Miss, a.Status, "one's own write")
		all, err := c.GetMany(t.Context(), []string{"k", "k"})
		require.NoError(t, err)
		require.Len(t, all, 2)
		st := c.Stats()
		require.NotZero(t, st.L0Hits)
		require.NotZero(t, st.L0Misses)
		require.Equal(t, uint64(1), st.L0Invalidations)
		require.True(t, st.L0Valid)
		time.Sleep(nearside.DefaultL0Bound + 1)
		require.False(t, c.Stats().L0Valid)
	})
}

// What the answer says decides what is kept.
func TestL0KeepsWhatItMay(t *testing.T) {
	hour := func(v near.Value) near.Value { v.Bound = time.Hour; return v }
	for name, c := range map[string]struct {
		v    near.Value
		kept bool
	}{
		"plain":             {hour(near.Value{Status: near.Hit}), true},
		"regular":           {hour(near.Value{Status: near.Regular}), true},
		"absent":            {hour(near.Value{Status: near.Negative}), true},
		"past its soft TTL": {hour(near.Value{Status: near.Stale}), false},
		"a miss":            {hour(near.Value{Status: near.Miss}), false},
		"unheard of":        {hour(near.Value{Status: 99}), false},
		"critical":          {near.Value{Status: near.Hit}, false},
		"expired":           {hour(near.Value{Status: near.Hit, Until: 1}), false},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			v := c.v
			v.Flags |= near.Cacheable
			f.hooked(func(p *peer, h near.Header, m near.Message) bool {
				_, get := m.(*near.Get)
				if get {
					v.AsOf = elapsed()
					p.send(h.Kind.Answer(), h.ID, &v)
				}
				return get
			})
			client := f.open(t, withL0())
			require.Equal(t, c.kept, fromL0(t, client, "k"), name)
			a, err := client.Get(t.Context(), "k")
			require.NoError(t, err)
			require.False(t, a.FromL0 && a.Status == nearside.Regular, "no Strong answer any more")
		})
	}
}

func TestL0Expires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.values["k"] = near.Value{Status: near.Hit, Until: elapsed() + time.Second}
		c := f.open(t, withL0())
		require.True(t, fromL0(t, c, "k"))
		time.Sleep(time.Second - 1)
		require.True(t, fromL0(t, c, "k"))
		time.Sleep(time.Nanosecond)
		require.False(t, fromL0(t, c, "k", nearside.Any()))
	})
}

// Without a connection, or the sidecar's clock, or a sidecar that tracks, L0 is silent.
func TestL0NeedsItsSidecar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.set("k", "v", 1)
		c := f.open(t, withL0())
		require.True(t, fromL0(t, c, "k"))
		f.leave()
		synctest.Wait()
		_, err := c.Get(t.Context(), "k", nearside.Any())
		require.ErrorIs(t, err, nearside.ErrUnavailable)
		require.Zero(t, c.Stats().L0Entries)
		f.comeBack()
		time.Sleep(3 * time.Second)
		require.True(t, fromL0(t, c, "k"))

		for name, spoil := range map[string]func(f *fake){
			"another boot":       func(f *fake) { f.welcome.BootID = "other" },
			"another clock":      func(f *fake) { f.now = func() time.Duration { return elapsed() + time.Hour } },
			"an earlier one":     func(f *fake) { f.now = func() time.Duration { return elapsed() - time.Hour } },
			"no room to track":   func(f *fake) { f.hook = refuse(near.KindTrack, near.Busy) },
			"tracking not known": func(f *fake) { f.hook = refuse(near.KindTrack, near.Unknown) },
		} {
			f := newFake()
			f.set("k", "v", 1)
			spoil(f)
			c := f.open(t, withL0())
			require.False(t, fromL0(t, c, "k"), name)
			require.False(t, c.Stats().L0Valid, name)
		}
	})
}

func refuse(kind near.Kind, code near.Code) func(p *peer, h near.Header, _ near.Message) bool {
	return func(p *peer, h near.Header, _ near.Message) bool {
		if h.Kind == kind {
			p.fail(h, code)
		}
		return h.Kind == kind
	}
}

// A push that cannot be read may have named anything.
func TestL0EndsWithWhatItCannotRead(t *testing.T) {
	for _, kind := range []near.Kind{near.KindInvalidated, near.KindFresh, near.KindEvent, near.KindGoodbye} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			f.set("k", "v", 1)
			c := f.open(t, withL0())
			require.True(t, fromL0(t, c, "k"))
			f.mu.Lock()
			f.away = net.ErrClosed
			p := f.peers[0]
			f.mu.Unlock()
			p.raw([]byte{near.Magic, byte(kind), 0, 0, 0, 0, 0, 0, 0, 1, 0xc1})
			synctest.Wait()
			_, err := c.Get(t.Context(), "k", nearside.Any())
			require.ErrorIs(t, err, nearside.ErrUnavailable, kind)
		})
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.set("k", "v", 1)
		c := f.open(t, withL0())
		require.True(t, fromL0(t, c, "k"))
		f.push(near.KindFresh, &near.Fresh{Applied: "no token"})
		synctest.Wait()
		require.Equal(t, uint64(1), c.Stats().Disconnects)
	})
}

// A value that was loaded is never followed by an older one that L0 has.
func TestL0GivesWayToLoads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(), &source{value: "v2", version: 2}
		f.set("k", "v1", 1)
		c := f.open(t, withL0())
		require.True(t, fromL0(t, c, "k"))
		f.hooked(func(p *peer, h near.Header, m near.Message) bool {
			switch m := m.(type) {
			case *near.Get:
				if m.Mode == near.Strong {
					p.send(h.Kind.Answer(), h.ID, &near.Value{Status: near.Bypass})
					return true
				}
			case *near.Fill:
				f.set("k", "v2", 2)
				p.send(h.Kind.Answer(), h.ID, &near.Filled{Stored: true})
				return true
			}
			return false
		})
		v, err := nearside.GetOrLoad(t.Context(), c, "k", s.from(), nearside.Strong())
		require.ErrorIs(t, err, nearside.ErrUnproven)
		require.Equal(t, "v2", v)
		a, err := c.Get(t.Context(), "k", nearside.Any())
		require.NoError(t, err)
		require.False(t, a.FromL0)
		require.True(t, fromL0(t, c, "k"))
		_, err = c.Fill(t.Context(), nearside.Fill{Key: "k", Value: []byte("v2")})
		require.NoError(t, err)
		a, err = c.Get(t.Context(), "k", nearside.Any())
		require.NoError(t, err)
		require.False(t, a.FromL0)
	})
}

func TestL0IsBounded(t *testing.T) {
	f := newFake()
	for name, o := range map[string]nearside.L0Options{"entries": {MaxEntries: 50}, "bytes": {MaxBytes: 50 * (1000 + 256 + 6)}} {
		c := f.open(t, nearside.Options{L0: &o})
		for i := range 1000 {
			key := fmt.Sprintf("k:%04d", i)
			f.set(key, strings.Repeat("v", 1000), 1)
			_, err := c.Get(t.Context(), key)
			require.NoError(t, err)
		}
		// The library evicts after it has put in.
		require.Eventually(t, func() bool { return c.Stats().L0Entries <= 60 }, 5*time.Second, time.Millisecond, name)
	}
}

func TestL0HitDoesNotAllocate(t *testing.T) {
	f := newFake()
	f.set("k", `{"A":"a"}`, 1)
	f.bound = time.Hour
	c := f.open(t, nearside.Options{L0: &nearside.L0Options{Bound: time.Hour}})
	require.True(t, fromL0(t, c, "k"))
	from := nearside.Source[*doc]{Shared: true}
	ctx := t.Context()
	_, err := nearside.GetOrLoad(ctx, c, "k", from)
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if a, _ := c.Get(ctx, "k", nearside.MaxStale(time.Hour)); !a.FromL0 {
			panic("not from L0")
		}
		if v, _ := nearside.GetOrLoad(ctx, c, "k", from); v.A != "a" {
			panic("another value")
		}
	}))
}

// Readers, invalidations and broken connections at the same time, with real clocks: what
// a write's answer has confirmed is in every read that begins afterwards.
func TestL0Concurrently(t *testing.T) {
	f := newFake()
	f.now = nearside.BootTime
	c, err := nearside.Open(nearside.Options{Dial: f.dial, L0: &nearside.L0Options{}})
	require.NoError(t, err)
	var all sync.WaitGroup
	var mu sync.Mutex
	written := map[string]uint64{}
	stop := make(chan struct{})
	for i := range 4 {
		all.Go(func() {
			for n := i; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprintf("k:%d", n%5)
				mu.Lock()
				least := written[key]
				mu.Unlock()
				if a, err := c.Get(t.Context(), key); err == nil && a.Status.Found() && a.Version < least {
					t.Errorf("%s: version %d after %d was written", key, a.Version, least)
				}
			}
		})
	}
	for version := range uint64(2000) {
		key := fmt.Sprintf("k:%d", version%5)
		f.set(key, "v", version) // committed, and filled by somebody
		if version%3 == 0 {
			f.fresh()
		}
		if version%500 == 499 {
			f.leave()
			f.comeBack()
			continue
		}
		if _, err := c.Invalidate(t.Context(), nearside.Key(key, version)); err == nil {
			mu.Lock()
			written[key] = version
			mu.Unlock()
		}
	}
	close(stop)
	all.Wait()
	require.NoError(t, c.Close())
}
