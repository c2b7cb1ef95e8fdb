package cache_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/rights"
)

func failing(context.Context) (bus.Position, error) {
	return bus.Position{}, bus.ErrNotAcknowledged
}

// Two caches live through the same; in one, readers ask for rights. What each
// keeps and refuses is the same: C2 and C3 decide alone.
func TestRightsDecideNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		small := func(c *cache.Config) { c.Memory, c.MaxValue = 4<<20, 1<<10 }
		with, without := byHand(t, small, failing), byHand(t, small, failing)
		both := []by{with, without}
		holders := []*rights.Holder{new(rights.Holder), new(rights.Holder)}
		leases := make(map[string][2]cache.Lease)
		seq := uint64(10)
		key := func() string { return rapid.SampledFrom([]string{"p:a", "p:b", "q:a"}).Draw(rt, "key") }
		same := func(do func(by) any) { require.Equal(rt, do(with), do(without)) }
		rt.Repeat(map[string]func(*rapid.T){
			"miss": func(rt *rapid.T) {
				k, h := key(), holders[rapid.IntRange(0, 1).Draw(rt, "holder")]
				_, a := with.Near(k, cache.Mode{}, false, false, nil)
				_, b := without.Near(k, cache.Mode{}, false, false, nil)
				require.Equal(rt, b.Status, a.Status)
				if a.Status != cache.Miss {
					return
				}
				if o, l := with.Claim(k, cache.Mode{}, h, rapid.Bool().Draw(rt, "plain")); o == rights.Granted {
					require.Equal(rt, a.Lease.Lease, l.Lease, "a right comes with the lease of now")
					a.Lease = l
				}
				leases[k] = [2]cache.Lease{a.Lease, b.Lease}
			},
			"get": func(*rapid.T) { k := key(); same(func(c by) any { return c.get(k) }) },
			"set": func(*rapid.T) {
				k := key()
				same(func(c by) any { return c.set(k, "set") })
				with.SetRefused(k, holders[0])
			},
			"fill": func(rt *rapid.T) {
				k, v := key(), rapid.Uint64Range(0, 3).Draw(rt, "version")
				l := leases[k]
				verdicts := [2]coherence.Verdict{}
				for i, c := range both {
					verdicts[i] = c.Fill(k, []byte("fill"), cache.FillOptions{Lease: l[i], Version: v})
				}
				require.Equal(rt, verdicts[0], verdicts[1])
			},
			"event": func(rt *rapid.T) {
				seq++
				e := bus.Event{Keys: []bus.KeyVersion{{Key: key(), Version: rapid.Uint64Range(0, 3).Draw(rt, "version")}}}
				for _, c := range both {
					c.Apply(bus.Delivery{Position: at(seq), Namespace: "p", Event: e})
				}
			},
			"purge": func(*rapid.T) {
				seq++
				for _, c := range both {
					c.Apply(bus.Delivery{Position: at(seq), Namespace: "p", Event: bus.Event{Op: bus.OpFlush}})
				}
			},
			"own write": func(*rapid.T) {
				k := key()
				for _, c := range both {
					_, err := c.Invalidate(t.Context(), cache.Write{Keys: []bus.KeyVersion{{Key: k}}})
					require.ErrorIs(rt, err, bus.ErrNotAcknowledged)
				}
			},
			"doubt": func(*rapid.T) {
				seq++
				for _, c := range both {
					c.Doubt(bus.ReasonHole)
					c.Resume(bus.Resume{Position: at(seq)})
				}
			},
			"leave": func(*rapid.T) { with.Leave(holders[1]); holders[1] = new(rights.Holder) },
		})
	})
}

// claims asks for the right to fill key, for a reader of its own.
func (c by) claims(key string) (rights.Outcome, cache.Lease) {
	return c.Claim(key, cache.Mode{}, new(rights.Holder), false)
}

// A right is void with what voids its lease.
func TestWhatVoidsARight(t *testing.T) {
	flush := func(op bus.Op, namespace string, e bus.Epoch) func(by) {
		return func(c by) {
			c.Apply(bus.Delivery{Position: bus.Position{Epoch: e, Seq: 11}, Namespace: namespace, Event: bus.Event{Op: op}})
		}
	}
	for name, c := range map[string]struct {
		happens func(by)
		void    bool
	}{
		"event":           {func(c by) { c.event(11, "p:k") }, true},
		"another's":       {func(c by) { c.event(11, "p:j") }, false},
		"flush":           {flush(bus.OpFlush, "p", epoch), true},
		"another's flush": {flush(bus.OpFlush, "q", epoch), false},
		"domain":          {flush(bus.OpFlush, "", epoch), true},
		"fork":            {flush(bus.OpFork, "", bus.Epoch{Created: 1, Fork: 11}), true},
		"pulse":           {flush(bus.OpPulse, "", epoch), false},
		"undecodable": {func(c by) {
			c.Apply(bus.Delivery{Position: at(11), Namespace: "p", Err: fmt.Errorf("x")})
		}, true},
		"prefix": {func(c by) {
			c.Apply(bus.Delivery{Position: at(11), Namespace: "p", Event: bus.Event{Prefix: "p:"}})
		}, true},
		"doubt": {func(c by) {
			c.Doubt(bus.ReasonHole)
			o, _ := c.claims("p:k")
			require.Equal(c.t, rights.Alone, o, "nothing would be kept")
			c.Resume(bus.Resume{Position: at(12)})
		}, true},
		"failed own write": {func(c by) {
			_, err := c.Invalidate(context.Background(), cache.Write{Keys: []bus.KeyVersion{{Key: "p:k"}}})
			require.Error(c.t, err)
		}, true},
		"failed own flush": {func(c by) {
			_, err := c.Flush(context.Background(), "p")
			require.Error(c.t, err)
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := byHand(t, nil, failing)
			o, _ := b.claims("p:k")
			require.Equal(t, rights.Granted, o)
			c.happens(b)
			o, l := b.claims("p:k")
			require.Equal(t, c.void, o == rights.Granted)
			if c.void && name != "failed own flush" { // after which nothing is kept before the next event
				require.Equal(t, coherence.Stored, b.Fill("p:k", []byte("v"), cache.FillOptions{Lease: l}))
			}
		})
	}
}

// Whoever missed before a value was stored, and asks after, does not load.
func TestClaimAfterTheFill(t *testing.T) {
	c := byHand(t, nil, failing)
	_, a := c.Near("k", cache.Mode{}, false, false, nil)
	require.Equal(t, cache.Miss, a.Status)
	c.load("k", "v")
	o, _ := c.claims("k")
	require.Equal(t, rights.Again, o)
	c.event(11, "k")
	o, _ = c.claims("k")
	require.Equal(t, rights.Granted, o, "nobody kept a right that nobody needs")
}

// With all rights taken readers load without one.
func TestRightsRunOut(t *testing.T) {
	c := byHand(t, nil, failing)
	var o rights.Outcome
	n := 0
	for ; n < 100_000; n++ {
		if o, _ = c.claims(fmt.Sprint("k", n)); o != rights.Granted {
			break
		}
	}
	require.Equal(t, rights.Alone, o)
	require.Equal(t, 4096, n)
	_, a := c.Near("more", cache.Mode{}, false, false, nil)
	require.Equal(t, coherence.Stored, c.Fill("more", []byte("v"), cache.FillOptions{Lease: a.Lease}))
}

// What can never be kept is not waited for.
func TestUnfitValueEndsTheRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := byHand(t, nil, failing)
		_, l := c.claims("k")
		got := make(chan rights.Outcome, 1)
		go func() {
			_, o := c.AwaitRight(t.Context(), "k", new(rights.Holder), false)
			got <- o
		}()
		synctest.Wait()
		require.Empty(t, got)
		v := c.Fill("k", make([]byte, c.MaxValue()+1), cache.FillOptions{Lease: l})
		require.Equal(t, coherence.TooLarge, v)
		require.Equal(t, rights.Alone, <-got, "the next reader's would be too large as well")
	})
}
