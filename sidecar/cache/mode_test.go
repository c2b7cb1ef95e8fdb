package cache_test

import (
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// turn gives namespace n a mode.
func (c by) turn(mode policy.Mode) {
	p := c.Policies().With(map[string]policy.Override{"n": {Mode: mode}})
	c.SetPolicies(p)
}

func counted(t *testing.T, c interface{ Write(*dto.Metric) error }) int {
	var m dto.Metric
	require.NoError(t, c.Write(&m))
	return int(m.GetCounter().GetValue())
}

// shadowed returns a cache whose namespace n is in shadow mode, and what it
// counts.
func shadowed(t *testing.T) (by, *cache.ShadowMetrics) {
	var m *cache.Metrics
	c := byHand(t, func(cfg *cache.Config) { m = cfg.Metrics }, nil)
	c.turn(policy.Shadow)
	return c, m.Shadow
}

// nothingServed requires that no way of reading finds n:k.
func (c by) nothingServed() {
	c.t.Helper()
	require.Empty(c.t, c.get("n:k"))
	_, held := c.Peek("n:k", c.Now())
	require.False(c.t, held)
	_, held = c.Head("n:k", c.Now())
	require.False(c.t, held)
	require.False(c.t, c.Expire("n:k", cache.TTL{Asked: true, For: time.Hour}))
	keys, _, err := c.Scan(0, 100, c.Now())
	require.NoError(c.t, err)
	require.NotContains(c.t, keys, "n:k")
	for _, kind := range []cache.ModeKind{cache.Class, cache.Any, cache.MaxStale, cache.AtLeast, cache.Strong} {
		for _, caught := range []bool{false, true} {
			value, a := c.Near("n:k", cache.Mode{Kind: kind, AtLeast: cache.Token{Position: at(1000)}}, caught, false, nil)
			require.Empty(c.t, value)
			require.Equal(c.t, cache.Miss, a.Status)
			require.Equal(c.t, kind == cache.Strong, a.Lease.Strong, "what it loads is confirmed (C12)")
			if kind == cache.AtLeast {
				require.Equal(c.t, at(1000), a.Token.Position, "the reader's token is not made older")
			}
		}
	}
}

// Off: nothing is kept or served, and what is held follows the events meanwhile.
func TestModeOff(t *testing.T) {
	c := byHand(t, nil, nil)
	c.load("n:k", "v1")
	c.load("n:gone", "v1")
	c.load("m:k", "v1")
	c.turn(policy.Off)
	c.nothingServed()
	require.Equal(t, "v1", c.get("m:k"), "other namespaces go on")
	require.Equal(t, coherence.Off, c.set("n:k", "v2"))
	require.Equal(t, coherence.Off, c.Fill("n:k", []byte("v2"), cache.FillOptions{Lease: c.Lease("n:k", false)}))
	c.event(11, "n:gone")
	c.turn(policy.Enforce)
	require.Equal(t, "v1", c.get("n:k"))
	require.Empty(t, c.get("n:gone"), "an invalidation is applied in every mode")
}

// Shadow: everything is computed, nothing is served.
func TestModeShadow(t *testing.T) {
	c, shadow := shadowed(t)
	outcomes := func() (hits, misses, bypassed int) {
		return counted(t, shadow.Reads.WithLabelValues("hit")), counted(t, shadow.Reads.WithLabelValues("miss")), counted(t, shadow.Reads.WithLabelValues("bypass"))
	}
	require.Empty(t, c.get("n:k"))
	require.Equal(t, coherence.Stored, c.set("n:k", "v1"), "judged as ever")
	require.Empty(t, c.get("n:k"))
	hits, misses, _ := outcomes()
	require.Equal(t, []int{1, 1}, []int{hits, misses})

	// The reader, who was told of a miss, loads the same.
	require.Equal(t, coherence.Stored, c.set("n:k", "v1"))
	require.Equal(t, []int{1, 0}, []int{counted(t, shadow.Compared), counted(t, shadow.Divergences)})
	// Another value without an event: a write that nobody published.
	require.Empty(t, c.get("n:k"))
	require.Equal(t, coherence.Stored, c.set("n:k", "v2"))
	require.Equal(t, []int{2, 1}, []int{counted(t, shadow.Compared), counted(t, shadow.Divergences)})
	require.Empty(t, c.get("n:k"))
	require.Equal(t, coherence.Stored, c.set("n:k", "v2"), "what was loaded is what is held now")
	require.Equal(t, []int{3, 1}, []int{counted(t, shadow.Compared), counted(t, shadow.Divergences)})

	// A write that was published is none: the entry went with the event.
	c.event(11, "n:k")
	require.Empty(t, c.get("n:k"))
	require.Equal(t, coherence.Stored, c.set("n:k", "v3"))
	require.Equal(t, 1, counted(t, shadow.Divergences))
	// Nor is a load from before an event, which is not kept.
	require.Empty(t, c.get("n:k"))
	c.Apply(bus.Delivery{Position: at(12), Event: bus.Event{Keys: []bus.KeyVersion{{Key: "n:k"}}}})
	require.Equal(t, coherence.Invalidated, c.set("n:k", "v3"))
	require.Equal(t, 1, counted(t, shadow.Divergences))

	require.Empty(t, c.get("n:k"))
	require.Equal(t, coherence.Stored, c.set("n:k", "v5"))
	c.nothingServed()
	require.Equal(t, coherence.Stored, c.Set("n:b", []byte("v"), cache.TTL{Asked: true}))
	c.clock.Advance(c.Policies().OfKey("n:b").Bound() + 1)
	require.Empty(t, c.get("n:b"))
	_, _, bypassed := outcomes()
	require.Equal(t, 1, bypassed)
	require.Zero(t, c.Counts().Hits)
}

// An entry expires in shadow mode when it would without: the loads that the mode
// itself causes do not keep it alive.
func TestShadowKeepsTheExpiry(t *testing.T) {
	c, shadow := shadowed(t)
	set := func(value string) {
		require.Empty(t, c.get("n:k"))
		require.Equal(t, coherence.Stored, c.Set("n:k", []byte(value), cache.TTL{Asked: true, For: 3 * time.Second}))
	}
	set("v")
	for range 2 {
		c.clock.Advance(time.Second)
		set("v")
	}
	c.clock.Advance(time.Second)
	hits := counted(t, shadow.Reads.WithLabelValues("hit"))
	require.Empty(t, c.get("n:k"))
	require.Equal(t, hits, counted(t, shadow.Reads.WithLabelValues("hit")), "a miss")
}

// A FILL with a version is compared too.
func TestShadowComparesFills(t *testing.T) {
	c, shadow := shadowed(t)
	fill := func(value string, version uint64) {
		_, a := c.Near("n:k", cache.Mode{}, false, false, nil)
		require.Equal(t, coherence.Stored, c.Fill("n:k", []byte(value), cache.FillOptions{Lease: a.Lease, Version: version}))
	}
	fill("v1", 1)
	fill("v1", 1)
	require.Zero(t, counted(t, shadow.Divergences))
	fill("v2", 2)
	require.Equal(t, 1, counted(t, shadow.Divergences), "version 2 was not published")
}

func TestMaxValueOfANamespace(t *testing.T) {
	c := byHand(t, func(cfg *cache.Config) {
		n := cfg.Policies.Default
		n.MaxValue = 10
		cfg.Policies.Namespaces = map[string]policy.Namespace{"n": n}
	}, nil)
	ten := strings.Repeat("x", 10)
	require.Equal(t, coherence.Stored, c.set("n:a", ten))
	require.Equal(t, coherence.TooLarge, c.set("n:b", ten+"x"))
	require.Equal(t, coherence.TooLarge, c.Fill("n:c", []byte(ten+"x"), cache.FillOptions{Lease: c.Lease("n:c", false)}))
	require.Equal(t, coherence.Stored, c.set("m:a", ten+"x"))
	c.Apply(bus.Delivery{Position: at(11), Event: bus.Event{Op: bus.OpUpdate, Keys: []bus.KeyVersion{{Key: "n:a", Version: 5}}, Value: []byte(ten + "x")}})
	require.Empty(t, c.get("n:a"), "an update that is too large drops")
}

func TestSensitiveNamespacesExpireSoon(t *testing.T) {
	c := byHand(t, func(cfg *cache.Config) {
		n := cfg.Policies.Default
		n.Sensitive = true
		cfg.Policies.Namespaces = map[string]policy.Namespace{"n": n}
	}, nil)
	d, expires := c.ttl("n:k", cache.TTL{Asked: true, For: time.Hour})
	require.True(t, expires)
	require.Equal(t, 5*time.Minute, d)
	d, _ = c.ttl("n:j", cache.TTL{Asked: true})
	require.Equal(t, 5*time.Minute, d)
}
