package cache_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

func TestExpiryToTheMillisecond(t *testing.T) {
	c := byHand(t, nil, nil)
	require.Equal(t, coherence.Stored, c.Set("k", []byte("v"), cache.TTL{Asked: true, For: 1500 * time.Millisecond}))
	c.clock.Advance(1500*time.Millisecond - 1)
	require.Equal(t, "v", c.get("k"))
	c.clock.Advance(1)
	_, ok := c.Peek("k", c.Now())
	require.False(t, ok)
	require.Empty(t, c.get("k"))
	require.True(t, c.Explain("k").Expired)
}

// ttl sets a fresh key and returns the TTL that it got.
func (c by) ttl(key string, asked cache.TTL) (time.Duration, bool) {
	c.t.Helper()
	require.Equal(c.t, coherence.Stored, c.Set(key, []byte("v"), asked))
	i, ok := c.Peek(key, c.Now())
	require.True(c.t, ok)
	if !i.Expires {
		return 0, false
	}
	return i.TTL, true
}

func TestTTLs(t *testing.T) {
	c := byHand(t, func(cfg *cache.Config) {
		n := policy.DefaultNamespace()
		n.TTL, n.TTLJitter, n.MaxStale = 0, 0, cfg.Policies.Default.MaxStale
		capped := n
		capped.MaxTTL = time.Minute
		cfg.Policies.Namespaces = map[string]policy.Namespace{"ever": n, "capped": capped}
	}, nil)
	lowest, highest := time.Hour, time.Duration(0)
	for i := range 200 {
		d, expires := c.ttl(fmt.Sprintf("k%d", i), cache.TTL{})
		require.True(t, expires)
		lowest, highest = min(lowest, d), max(highest, d)
	}
	require.LessOrEqual(t, highest, 10*time.Minute)
	require.GreaterOrEqual(t, lowest, 9*time.Minute)
	require.Greater(t, highest-lowest, 30*time.Second, "entries stored together do not expire together")
	d, _ := c.ttl("asked", cache.TTL{Asked: true, For: time.Hour})
	require.Equal(t, time.Hour, d, "no jitter on what a client asks for")
	_, expires := c.ttl("ever:a", cache.TTL{})
	require.False(t, expires)
	_, expires = c.ttl("ever:b", cache.TTL{Asked: true})
	require.False(t, expires)
	for i, asked := range []cache.TTL{{}, {Asked: true}, {Asked: true, For: time.Hour}, {Keep: true}} {
		d, _ = c.ttl(fmt.Sprintf("capped:%d", i), asked)
		require.Equal(t, time.Minute, d)
	}
	d, _ = c.ttl("capped:short", cache.TTL{Asked: true, For: time.Second})
	require.Equal(t, time.Second, d)
}

func TestPoliciesAreSwapped(t *testing.T) {
	c := byHand(t, nil, nil)
	p := policy.DefaultSet()
	p.Default.TTL, p.Default.TTLJitter, p.Default.MaxStale = time.Second, 0, c.Policies().Default.MaxStale
	p.Namespaces = map[string]policy.Namespace{"own": p.Default}
	c.SetPolicies(p)
	d, _ := c.ttl("k", cache.TTL{})
	require.Equal(t, time.Second, d)
	require.Zero(t, testing.AllocsPerRun(100, func() { c.Policies().OfKey("own:k") }), "every read looks it up")
	window := *p
	window.Default.Set = policy.SetWindow
	c.SetPolicies(&window)
	c.event(11, "j")
	require.Empty(t, c.get("j"))
	require.Equal(t, coherence.Invalidated, c.set("j", "v"), "judged by what was known a window ago, whatever was missed")
}

func TestExpireKeepsTheValue(t *testing.T) {
	c := byHand(t, nil, nil)
	require.False(t, c.Expire("k", cache.TTL{Asked: true, For: time.Second}))
	require.Equal(t, uint64(1), c.Counts().Misses)
	c.load("k", "v")
	require.True(t, c.Expire("k", cache.TTL{Asked: true, For: time.Hour}))
	i, _ := c.Peek("k", c.Now())
	require.Equal(t, time.Hour, i.TTL)
	require.Equal(t, "v", c.get("k"))
	c.event(11, "k")
	require.Empty(t, c.get("k"), "its position is what it was")
}

// A moment that has passed drops the entry as an eviction does: its fence
// remains, so that the key does not go back.
func TestExpireToThePast(t *testing.T) {
	c := byHand(t, nil, nil)
	require.Empty(t, c.get("k")) // a reader begins to load v0
	c.load("k", "v1")
	require.True(t, c.Expire("k", cache.TTL{Asked: true, For: -1}))
	require.Empty(t, c.get("k"))
	require.Equal(t, coherence.Superseded, c.set("k", "v0"))
}

func TestEvictionRaisesFences(t *testing.T) {
	c := byHand(t, nil, nil)
	require.Empty(t, c.get("k")) // a reader begins to load v0
	c.load("k", "v1")
	large := strings.Repeat("x", 20_000)
	for i := 0; ; i++ {
		require.Less(t, i, 10_000, "nothing was evicted")
		c.set(fmt.Sprintf("fill%d", i), large)
		c.get(fmt.Sprintf("fill%d", i)) // what nobody reads gives way to what was read
		if _, ok := c.Peek("k", c.Now()); !ok {
			break
		}
	}
	require.Equal(t, coherence.Superseded, c.set("k", "v0"), "older than what was served")
	require.Empty(t, c.get("k"))
}

// Memory is bounded whatever is stored, and entries that were served are never
// followed by older ones, evictions and evicted fences included.
func TestFullStoreServesNothingOlder(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	c := byHand(t, func(cfg *cache.Config) { cfg.Memory, cfg.MaxValue = 8<<20, 64<<10 }, nil)
	const keys = 200
	source, served := [keys]int{}, [keys]int{}
	type load struct{ key, version int }
	var loads []load
	padding := strings.Repeat("x", 50_000)
	seq := uint64(10)
	for range 12_000 {
		k := random.IntN(keys)
		name := "k" + strconv.Itoa(k)
		switch n := random.IntN(10); {
		case n < 5:
			if v := c.get(name); v == "" {
				loads = append(loads, load{k, source[k]})
			} else {
				got, err := strconv.Atoi(v[strings.LastIndexByte(v, 'x')+1:])
				require.NoError(t, err)
				require.GreaterOrEqual(t, got, served[k], "%s goes back; seed %d", name, seed)
				served[k] = got
			}
		case n < 9 && len(loads) > 0:
			i := random.IntN(len(loads))
			l := loads[i]
			loads = append(loads[:i], loads[i+1:]...)
			c.set("k"+strconv.Itoa(l.key), padding[:30_000+random.IntN(20_000)]+strconv.Itoa(l.version))
		case n == 9 && random.IntN(4) == 0:
			source[k]++
			if random.IntN(2) == 0 {
				seq++
				c.event(seq, name)
				served[k] = source[k]
			}
		}
		c.clock.Advance(time.Microsecond)
	}
	s := c.Status().Store
	require.Positive(t, s.Evicted)
	require.LessOrEqual(t, s.Bytes, s.Capacity)
	require.Positive(t, c.Counts().Stored)
}

// Hits take no lock: while purges are applied no hit may be older than one that
// was reported as applied before the read.
func TestHitsDuringPurges(t *testing.T) {
	c := byHand(t, nil, nil)
	const last = 3000
	var readers sync.WaitGroup
	var stop atomic.Bool
	for range 3 {
		readers.Go(func() {
			for !stop.Load() {
				applied := c.Applied().Seq
				if v := c.get("k"); v != "" {
					if version, _ := strconv.ParseUint(v, 10, 64); version < applied {
						t.Errorf("served %d after %d was applied", version, applied)
						return
					}
				}
			}
		})
	}
	for seq := uint64(11); seq < last; seq++ {
		c.get("k")
		c.set("k", strconv.FormatUint(seq-1, 10)) // what the purge at seq-1 left
		switch seq % 3 {
		case 0:
			c.Apply(bus.Delivery{Position: at(seq), Event: bus.Event{Op: bus.OpFlush}})
		case 1:
			c.event(seq, "k")
		default:
			c.Apply(bus.Delivery{Position: at(seq), Namespace: "default", Event: bus.Event{Op: bus.OpFlush}})
		}
	}
	stop.Store(true)
	readers.Wait()
	require.Positive(t, c.Counts().Stored)
}

// However many keys an invalidation names, it becomes events that the stream
// takes.
func TestInvalidationOfManyKeys(t *testing.T) {
	c := sidecartest.NewCache(t, sidecartest.NewStream(t), func(cfg *cache.Config) { cfg.Memory = 128 << 20 })
	w := c.Watch()
	defer w.Close()
	var keys []bus.KeyVersion
	for i := range 20_000 {
		keys = append(keys, bus.KeyVersion{Key: fmt.Sprintf("ns%d:%d", i%2, i)})
	}
	for i := range 50 {
		keys = append(keys, bus.KeyVersion{Key: fmt.Sprintf("long:%060000d", i)})
	}
	for _, kv := range keys {
		require.Equal(t, coherence.Stored, c.Set(kv.Key, []byte("v"), cache.TTL{}))
	}
	r, err := c.Invalidate(t.Context(), cache.Write{Keys: keys})
	require.NoError(t, err)
	require.Equal(t, len(keys), r.Alive)
	require.True(t, c.Applied().Covers(r.Position))
	seen := 0
	for range len(w.Events) {
		e := <-w.Events
		size := 0
		for _, kv := range e.Event.Keys {
			require.Equal(t, e.Namespace, bus.NamespaceOf(kv.Key))
			size += len(kv.Key)
		}
		require.LessOrEqual(t, len(e.Event.Keys), cache.BatchKeys)
		require.LessOrEqual(t, size, cache.BatchBytes)
		seen += len(e.Event.Keys)
	}
	require.Equal(t, len(keys), seen, "each once")
	for _, kv := range keys {
		_, held := c.Peek(kv.Key, c.Now())
		require.False(t, held)
	}
}

func TestStreamAway(t *testing.T) {
	c := sidecartest.NewCache(t, sidecartest.NewStream(t), func(cfg *cache.Config) { cfg.PublishTimeout = 30 * time.Millisecond })
	c.Bus.Disconnect()
	_, err := c.Invalidate(t.Context(), cache.Write{Keys: []bus.KeyVersion{{Key: "k"}}})
	require.ErrorIs(t, err, bus.ErrNotAcknowledged)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Flush(ctx, "ns")
	require.ErrorIs(t, err, bus.ErrNotAcknowledged)
	require.False(t, c.Status().Bus.Connected)
	c.Bus.Reconnect()
}

// Acknowledged and not applied is another failure than not acknowledged.
func TestAcknowledgedAndNotApplied(t *testing.T) {
	c := sidecartest.NewCache(t, sidecartest.NewStream(t), func(cfg *cache.Config) { cfg.PublishTimeout = 10 * time.Millisecond })
	c.Bus.Hold() // the follower looks into the log later than that
	defer c.Bus.Release()
	_, err := c.Invalidate(t.Context(), cache.Write{Keys: []bus.KeyVersion{{Key: "k"}}})
	require.ErrorIs(t, err, bus.ErrNotApplied)
	require.NotErrorIs(t, err, bus.ErrNotAcknowledged)
	require.Zero(t, c.Waiting())
}

func TestScanListsWhatMayBeServed(t *testing.T) {
	c := byHand(t, nil, nil)
	for i := range 100 {
		c.load(fmt.Sprintf("a:%d", i), "v")
		c.load(fmt.Sprintf("b:%d", i), "v")
	}
	c.Apply(bus.Delivery{Position: at(11), Namespace: "b", Event: bus.Event{Op: bus.OpFlush}})
	seen := map[string]bool{}
	for cursor := uint64(0); ; {
		keys, next, err := c.Scan(cursor, 20, c.Now())
		require.NoError(t, err)
		for _, k := range keys {
			require.True(t, strings.HasPrefix(k, "a:"))
			require.False(t, seen[k], "twice: %s", k)
			seen[k] = true
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	require.Len(t, seen, 100)
	require.Equal(t, 200, c.Len())
	_, _, err := c.Scan(12345, 10, c.Now())
	require.Error(t, err)
}
