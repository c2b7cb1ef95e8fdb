package cache_test

import (
	"crypto/rand"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/loader"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// soft is good for 10 s, may be served for 5 s more while it is loaded anew, and for
// 20 s more when that fails.
func soft(n *policy.Namespace) {
	n.MaxStale, n.TTL = 30*time.Second, time.Hour
	n.SoftTTL, n.StaleWhileRevalidate, n.StaleIfError = 10*time.Second, 5*time.Second, 20*time.Second
}

func TestStaleWhileRevalidate(t *testing.T) {
	withLoader(t, soft, func(t *testing.T, l *loading) {
		l.must("k", "v")
		l.passes(10*time.Second - time.Millisecond)
		_, found := l.reads("k")
		require.Equal(t, cache.Value, found)
		require.Empty(t, l.origin.requests())

		l.passes(time.Millisecond)
		release := l.origin.holds()
		l.origin.answers(value("new", 0), nil)
		for range 10 {
			v, found := l.reads("k")
			require.Equal(t, cache.Old, found)
			require.Equal(t, "v", v)
		}
		require.Len(t, l.origin.requests(), 1, "one load, in the background")
		require.False(t, l.Wanting("k", l.Now()), "nobody waits for it")
		release()
		synctest.Wait()
		v, found := l.reads("k")
		require.Equal(t, cache.Value, found)
		require.Equal(t, "new", v)
		require.EqualValues(t, 10, count(t, l.metrics.StaleHits))
	})
}

// Bounded means bounded: what is past its soft TTL is served for no longer than the
// policy says, and than the reader does.
func TestStaleIsBounded(t *testing.T) {
	strong, whatever := cache.Mode{Kind: cache.Strong}, cache.Mode{Kind: cache.Any}
	within := func(d time.Duration) cache.Mode { return cache.Mode{Kind: cache.MaxStale, MaxStale: d} }
	for name, c := range map[string]struct {
		past time.Duration // the soft TTL
		mode cache.Mode
		want cache.Outcome
	}{
		"MAXSTALE 200 ms after 1 s":   {time.Second, within(200 * time.Millisecond), cache.Miss},
		"MAXSTALE 200 ms after 200":   {200 * time.Millisecond, within(200 * time.Millisecond), cache.Stale},
		"MAXSTALE 2 s after 1 s":      {time.Second, within(2 * time.Second), cache.Stale},
		"MAXSTALE an hour after 6 s":  {6 * time.Second, within(time.Hour), cache.Miss},
		"the class after 5 s":         {5 * time.Second, cache.Mode{}, cache.Stale},
		"the class after 6 s":         {6 * time.Second, cache.Mode{}, cache.Miss},
		"ANY after 5 s":               {5 * time.Second, whatever, cache.Stale},
		"ANY after 6 s":               {6 * time.Second, whatever, cache.Miss},
		"STRONG at the end":           {0, strong, cache.Miss},
		"STRONG before the end":       {-time.Millisecond, strong, cache.Regular},
		"an old token after 1 s":      {time.Second, cache.Mode{Kind: cache.AtLeast}, cache.Stale},
		"a token of now after 6 s":    {6 * time.Second, cache.Mode{Kind: cache.AtLeast, AtLeast: cache.Token{Position: at(11)}}, cache.Miss},
		"MAXSTALE 200 ms before then": {-time.Second, within(200 * time.Millisecond), cache.Hit},
	} {
		t.Run(name, func(t *testing.T) {
			withLoader(t, soft, func(t *testing.T, l *loading) {
				l.must("k", "v")
				l.origin.holds()
				l.passes(10*time.Second + c.past)
				_, got := l.near(c.mode)
				require.Equal(t, c.want, got)
			})
		})
	}
}

// A plain read in a critical namespace is STRONG, and so never stale; it is loaded for.
func TestCriticalIsNeverStale(t *testing.T) {
	withLoader(t, func(n *policy.Namespace) { n.Class, n.SoftTTL = policy.Critical, time.Second }, func(t *testing.T, l *loading) {
		l.must("k", "v")
		l.passes(time.Second)
		require.True(t, l.Wanting("k", l.Now()))
		_, found := l.reads("k")
		require.Equal(t, cache.Nothing, found)
	})
}

func TestStaleIfError(t *testing.T) {
	withLoader(t, soft, func(t *testing.T, l *loading) {
		l.must("k", "v")
		l.origin.answers(loader.Result{}, errDown)
		l.passes(29 * time.Second)
		require.True(t, l.Wanting("k", l.Now()), "past stale_while_revalidate somebody must try")
		_, found := l.reads("k")
		require.Equal(t, cache.Nothing, found)
		require.ErrorIs(t, l.Load(t.Context(), "k", 0), loader.ErrUnavailable)
		require.Len(t, l.origin.requests(), 1)
		v, found := l.ReadStale("k", nil, l.Now())
		synctest.Wait()
		require.Equal(t, cache.Old, found)
		require.Equal(t, "v", string(v))
		require.Empty(t, l.origin.requests(), "it has just failed")
		_, a := l.Near("k", cache.Mode{}, false, true, nil)
		require.Equal(t, cache.Stale, a.Status)
		_, a = l.Near("k", cache.Mode{Kind: cache.MaxStale, MaxStale: 200 * time.Millisecond}, false, true, nil)
		require.Equal(t, cache.Miss, a.Status, "a reader's bound holds in an outage, too")
		_, a = l.Near("k", cache.Mode{Kind: cache.Strong}, true, true, nil)
		require.Equal(t, cache.Miss, a.Status)
		require.EqualValues(t, 1, count(t, l.metrics.Loads.WithLabelValues("failed")))

		l.passes(time.Second + time.Millisecond) // past all
		_, found = l.ReadStale("k", nil, l.Now())
		require.Equal(t, cache.Nothing, found)
		_, a = l.Near("k", cache.Mode{Kind: cache.Any}, false, true, nil)
		require.Equal(t, cache.Miss, a.Status)
	})
}

// STALE is only for what is past its soft TTL, never for what an event made stale (C6),
// not even when the origin is away.
func TestWhatAnEventMadeStaleIsNotServed(t *testing.T) {
	for name, e := range map[string]bus.Event{
		"event":   {Keys: []bus.KeyVersion{{Key: "k"}}},
		"version": {Keys: []bus.KeyVersion{{Key: "k", Version: 2}}},
		"refresh": {Op: bus.OpRefresh, Keys: []bus.KeyVersion{{Key: "k"}}},
		"tag":     {Tags: []string{"t"}},
		"flush":   {Op: bus.OpFlush},
	} {
		t.Run(name, func(t *testing.T) {
			withLoader(t, soft, func(t *testing.T, l *loading) {
				l.origin.answers(loader.Result{Value: []byte("v"), Version: 1, Tags: []string{"t"}}, nil)
				l.must("k", "v")
				l.passes(11 * time.Second)
				l.origin.answers(loader.Result{}, errDown)
				l.applies(e)
				_, found := l.reads("k")
				require.Equal(t, cache.Nothing, found)
				_, found = l.ReadStale("k", nil, l.Now())
				require.Equal(t, cache.Nothing, found)
				_, a := l.Near("k", cache.Mode{Kind: cache.Any}, false, true, nil)
				require.Equal(t, cache.Miss, a.Status)
				_, held := l.Peek("k", l.Now())
				require.False(t, held)
			})
		})
	}
}

// A load in the background that failed is not tried again by every reader.
func TestFailedLoadsRest(t *testing.T) {
	withLoader(t, soft, func(t *testing.T, l *loading) {
		l.must("k", "v")
		l.passes(11 * time.Second)
		l.origin.answers(loader.Result{}, errDown)
		for range 10 {
			_, found := l.reads("k")
			require.Equal(t, cache.Old, found)
		}
		require.Len(t, l.origin.requests(), 1)
		l.passes(time.Second)
		l.reads("k")
		require.Len(t, l.origin.requests(), 1)
	})
}

// What is read in the last part of its life is loaded anew before it ends.
func TestRefreshAhead(t *testing.T) {
	for name, change := range map[string]func(*policy.Namespace){
		"of the TTL":      func(n *policy.Namespace) { n.TTL, n.RefreshAhead = 10*time.Second, 0.2 },
		"of the soft TTL": func(n *policy.Namespace) { n.SoftTTL, n.RefreshAhead = 10*time.Second, 0.2 },
	} {
		t.Run(name, func(t *testing.T) {
			withLoader(t, change, func(t *testing.T, l *loading) {
				l.must("k", "v")
				l.passes(7 * time.Second)
				l.reads("k")
				require.Empty(t, l.origin.requests())
				l.passes(time.Second)
				l.origin.answers(value("new", 0), nil)
				v, found := l.reads("k")
				require.Equal(t, cache.Value, found)
				require.Equal(t, "v", v, "nobody waits")
				require.Len(t, l.origin.requests(), 1)
				v, _ = l.reads("k")
				require.Equal(t, "new", v)
				require.Empty(t, l.origin.requests())
				l.passes(11 * time.Second)
				l.Read("j", nil, l.Now())
				require.Empty(t, l.origin.requests(), "what nobody reads is not loaded")
			})
		})
	}
}

// An absence is an entry like any other (I12).
func TestNegativeEntries(t *testing.T) {
	for name, c := range map[string]struct {
		happens func(*loading)
		ends    bool
	}{
		"event":         {func(l *loading) { l.changed("k", 0) }, true},
		"version":       {func(l *loading) { l.changed("k", 3) }, true},
		"another's":     {func(l *loading) { l.changed("j", 0) }, false},
		"flush":         {func(l *loading) { l.applies(bus.Event{Op: bus.OpFlush}) }, true},
		"tag":           {func(l *loading) { l.applies(bus.Event{Tags: []string{"t"}}) }, true},
		"another's tag": {func(l *loading) { l.applies(bus.Event{Tags: []string{"u"}}) }, false},
		"doubt": {func(l *loading) {
			l.Doubt(bus.ReasonHole)
			l.Resume(bus.Resume{Position: at(l.seq), Fresh: l.Now()})
		}, true},
		"update": {func(l *loading) {
			l.applies(bus.Event{Op: bus.OpUpdate, Keys: []bus.KeyVersion{{Key: "k", Version: 3}}, Value: []byte("new")})
		}, true},
		"end of its TTL":    {func(l *loading) { l.passes(time.Minute) }, true},
		"just before that":  {func(l *loading) { l.passes(time.Minute - time.Millisecond) }, false},
		"time without news": {func(l *loading) { l.clock.Advance(31 * time.Second) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			withLoader(t, func(n *policy.Namespace) { n.NegativeTTL, n.MaxStale = time.Minute, 30*time.Second }, func(t *testing.T, l *loading) {
				l.origin.answers(loader.Result{Negative: true, Tags: []string{"t"}, ETag: `"1"`}, nil)
				require.NoError(t, l.Reload(t.Context(), "k"))
				_, found := l.reads("k")
				require.Equal(t, cache.Absence, found)
				require.EqualValues(t, 1, count(t, l.metrics.NegativeHits))
				_, a := l.Near("k", cache.Mode{}, false, false, nil)
				require.Equal(t, cache.Negative, a.Status)
				_, held := l.Peek("k", l.Now())
				require.False(t, held)
				require.False(t, l.Expire("k", cache.TTL{Asked: true, For: time.Hour}))
				keys, _, err := l.Scan(0, 100, l.Now())
				require.NoError(t, err)
				require.Empty(t, keys)
				require.Empty(t, l.origin.requests()[1:])
				c.happens(l)
				_, found = l.Read("k", nil, l.Now())
				require.Equal(t, !c.ends, found == cache.Absence)
				if name == "another's" {
					require.NoError(t, l.Reload(t.Context(), "k"))
					require.Empty(t, l.origin.requests()[0].ETag, "there is no value to confirm")
				}
			})
		})
	}
}

// A 404 that an event overtook is refused: the key may exist by now (I12).
func TestNegativeAnswerDuringAnEvent(t *testing.T) {
	for _, ttl := range []time.Duration{time.Minute, 0} {
		withLoader(t, func(n *policy.Namespace) { n.NegativeTTL = ttl }, func(t *testing.T, l *loading) {
			release := l.origin.holds()
			l.origin.answers(loader.Result{Negative: true}, nil)
			ended := l.starts("k")
			l.changed("k", 0)
			l.origin.answers(value("created", 0), nil)
			release()
			require.NoError(t, <-ended)
			require.Equal(t, "created", l.get("k"))
		})
	}
}

// Where the policy keeps no absences, one is no failure: nothing is tried again, and
// what was held of the key is not served any longer.
func TestAbsenceThatIsNotKept(t *testing.T) {
	withLoader(t, soft, func(t *testing.T, l *loading) {
		l.must("k", "v")
		l.passes(11 * time.Second)
		l.origin.answers(loader.Result{Negative: true}, nil)
		require.ErrorIs(t, l.Reload(t.Context(), "k"), cache.ErrAbsent)
		require.Len(t, l.origin.requests(), 1)
		_, found := l.reads("k")
		require.Equal(t, cache.Nothing, found)
		_, found = l.ReadStale("k", nil, l.Now())
		require.Equal(t, cache.Nothing, found)
		lease := l.Lease("k", false)
		require.Equal(t, coherence.Absent, l.Fill("k", nil, cache.FillOptions{Lease: lease, Negative: true}))
	})
}

// A value that follows an absence is a value, whatever it keeps.
func TestValueAfterAbsence(t *testing.T) {
	withLoader(t, func(n *policy.Namespace) { n.NegativeTTL = time.Minute }, func(t *testing.T, l *loading) {
		l.origin.answers(loader.Result{Negative: true, TTL: time.Hour}, nil)
		require.NoError(t, l.Reload(t.Context(), "k"))
		l.passes(policy.DefaultWindow + time.Second)
		require.Equal(t, coherence.Stored, l.Set("k", []byte("set"), cache.TTL{Keep: true}))
		require.Equal(t, "set", l.get("k"))
		i, _ := l.Peek("k", l.Now())
		require.Equal(t, l.Policies().Default.TTL, i.TTL, "nor is its TTL that of the absence")
	})
}

// The origin or a client may ask for less than the negative TTL, never for more.
func TestNegativeTTL(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{0: time.Minute, time.Second: time.Second, time.Hour: time.Minute} {
		withLoader(t, func(n *policy.Namespace) { n.NegativeTTL = time.Minute }, func(t *testing.T, l *loading) {
			l.origin.answers(loader.Result{Negative: true, TTL: asked}, nil)
			require.NoError(t, l.Reload(t.Context(), "k"))
			lease := l.Lease("j", false)
			v := l.Fill("j", nil, cache.FillOptions{Lease: lease, Negative: true, TTL: cache.TTL{Asked: asked > 0, For: asked}})
			require.Equal(t, coherence.Stored, v)
			for _, key := range []string{"k", "j"} {
				require.Equal(t, want, l.Explain(key).TTL)
			}
		})
	}
}

// A TTL follows how often its key is seen to change, within bounds.
func TestAdaptiveTTL(t *testing.T) {
	adaptive := func(n *policy.Namespace) {
		n.TTL, n.AdaptiveTTL = 10*time.Second, policy.AdaptiveTTL{Min: 4 * time.Second, Max: 30 * time.Second}
	}
	is := func(l *loading, ttl time.Duration) {
		l.t.Helper()
		require.NoError(l.t, l.Reload(l.t.Context(), "k"))
		require.Equal(l.t, ttl, l.Explain("k").TTL)
	}
	for name, c := range map[string]struct{ first, same, other loader.Result }{
		"by bytes":   {value("v", 0), value("v", 0), value("w", 0)},
		"by version": {value("v", 1), value("w", 1), value("w", 2)},
		"by ETag":    {loader.Result{ETag: "1"}, loader.Result{ETag: "1", Value: []byte("x")}, loader.Result{ETag: "2"}},
		"by 304":     {loader.Result{ETag: "1"}, loader.Result{NotModified: true, ETag: "1"}, loader.Result{ETag: "2"}},
	} {
		t.Run(name, func(t *testing.T) {
			withLoader(t, adaptive, func(t *testing.T, l *loading) {
				l.origin.answers(c.first, nil)
				is(l, 10*time.Second)
				l.origin.answers(c.same, nil)
				is(l, 20*time.Second)
				is(l, 30*time.Second)
				is(l, 30*time.Second)
				l.origin.answers(c.other, nil)
				is(l, 15*time.Second)
			})
		})
	}
	withLoader(t, adaptive, func(t *testing.T, l *loading) {
		for i, ttl := range []time.Duration{10, 5, 4, 4} {
			l.origin.answers(value("v", uint64(i+1)), nil)
			is(l, ttl*time.Second)
		}
		l.applies(bus.Event{Op: bus.OpFlush})
		is(l, 10*time.Second)
		l.origin.answers(loader.Result{Value: []byte("v"), Version: 5, TTL: time.Hour}, nil)
		is(l, time.Hour)
	})
}

// With a soft TTL it is that which adapts; what never expires still does not.
func TestAdaptiveSoftTTL(t *testing.T) {
	for name, c := range map[string]struct {
		ttl, most, want time.Duration
	}{
		"for ever":           {0, 0, 0},
		"an hour":            {time.Hour, 0, time.Hour + 10*time.Second},
		"an hour, if capped": {time.Hour, time.Minute, time.Minute},
		"capped for ever":    {0, time.Minute, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			withLoader(t, func(n *policy.Namespace) {
				soft(n)
				n.TTL, n.MaxTTL, n.AdaptiveTTL = c.ttl, c.most, policy.AdaptiveTTL{Min: time.Second, Max: time.Minute}
			}, func(t *testing.T, l *loading) {
				l.must("k", "v")
				l.must("k", "v")
				require.Equal(t, c.want, l.Explain("k").TTL)
				l.passes(20*time.Second - time.Millisecond)
				_, found := l.reads("k")
				require.Equal(t, cache.Value, found, "twice as long as before")
				l.passes(time.Millisecond)
				_, found = l.reads("k")
				require.Equal(t, cache.Old, found)
			})
		})
	}
}

// What is kept compressed is read as it was, and as long as it was.
func TestCompression(t *testing.T) {
	withLoader(t, func(n *policy.Namespace) { n.CompressOver = 100 }, func(t *testing.T, l *loading) {
		noise := make([]byte, 1000)
		_, err := rand.Read(noise)
		require.NoError(t, err)
		for name, v := range map[string]string{
			"long": strings.Repeat("words ", 1000), "below 256": strings.Repeat("words ", 30), "short": "words", "noise": string(noise), "empty": "",
		} {
			l.origin.answers(value(v, 0), nil)
			require.NoError(t, l.Reload(t.Context(), name))
			for range 2 {
				got, found := l.Read(name, []byte("before "), l.Now())
				require.Equal(t, cache.Value, found)
				require.Equal(t, "before "+v, string(got))
				near, a := l.Near(name, cache.Mode{}, false, false, []byte("before "))
				require.Equal(t, cache.Hit, a.Status)
				require.Equal(t, "before "+v, string(near))
				i, held := l.Peek(name, l.Now())
				require.True(t, held)
				require.Equal(t, len(v), i.Size)
				require.Equal(t, len(v), l.Explain(name).Size)
				require.True(t, l.Expire(name, cache.TTL{Asked: true, For: time.Minute}))
			}
		}
		require.Less(t, l.Status().Store.Bytes, int64(3000), "less than the long one alone")
		plain := *l.Policies()
		plain.Default.CompressOver = 0
		l.SetPolicies(&plain)
		require.Len(t, l.get("long"), 6000, "also when the policy changes")
	})
}

// A value longer than the store's is not kept, however short it can be made.
func TestCompressionDoesNotRaiseTheLimit(t *testing.T) {
	withLoader(t, func(n *policy.Namespace) { n.CompressOver = 100 }, func(t *testing.T, l *loading) {
		l.origin.answers(loader.Result{Value: make([]byte, l.MaxValue()+1)}, nil)
		require.ErrorIs(t, l.Reload(t.Context(), "k"), cache.ErrNotKept)
	})
}
