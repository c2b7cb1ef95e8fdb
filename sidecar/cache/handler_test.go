package cache_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stub is a bus whose test plays the stream by calling the cache's handler.
type stub struct {
	bus.Bus // nil: what is not here is not called
	publish func(ctx context.Context, namespace string, e bus.Event) (bus.Position, error)
}

func (s stub) Publish(ctx context.Context, namespace string, e bus.Event) (bus.Position, error) {
	return s.publish(ctx, namespace, e)
}

func (stub) Status() bus.Status { return bus.Status{} }

// by is a cache under the hands of a test.
type by struct {
	*cache.Cache
	clock *sidecartest.Clock
	t     testing.TB
}

var epoch = bus.Epoch{Created: 1}

func at(seq uint64) bus.Position { return bus.Position{Epoch: epoch, Seq: seq} }

// byHand returns a cache that follows the stream from seq 10 on. What it
// publishes is answered by publish.
func byHand(t testing.TB, change func(*cache.Config), publish func(context.Context) (bus.Position, error)) by {
	clock := sidecartest.NewClock()
	cfg := sidecartest.CacheConfig(stub{publish: func(ctx context.Context, _ string, _ bus.Event) (bus.Position, error) {
		return publish(ctx)
	}}, clock)
	cfg.PublishTimeout = time.Second
	if change != nil {
		change(&cfg)
	}
	c, err := cache.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, c.Close())
		require.NoError(t, c.Close(), "may be called twice")
	})
	select {
	case <-c.Ready():
		t.Fatal("ready before the first Resume")
	default:
	}
	c.Resume(bus.Resume{Position: at(10)})
	<-c.Ready()
	return by{c, clock, t}
}

// event applies an invalidation of one key.
func (c by) event(seq uint64, key string) {
	c.Apply(bus.Delivery{Position: at(seq), Namespace: bus.NamespaceOf(key), Event: bus.Event{Keys: []bus.KeyVersion{{Key: key}}}})
}

func (c by) get(key string) string {
	v, _ := c.Get(key, nil, c.Now())
	return string(v)
}

func (c by) set(key, value string) coherence.Verdict {
	return c.Set(key, []byte(value), cache.TTL{})
}

// load is what a reader does after its miss.
func (c by) load(key, value string) {
	c.t.Helper()
	require.Empty(c.t, c.get(key))
	require.Equal(c.t, coherence.Stored, c.set(key, value))
	require.Equal(c.t, value, c.get(key))
}

// An invalidation returns when it is applied here, not when it is acknowledged:
// until then the stream may hold events before it that are not.
func TestInvalidateWaitsForItsOwnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := byHand(t, nil, func(context.Context) (bus.Position, error) { return at(12), nil })
		c.load("k", "old")
		got := make(chan cache.Receipt, 1)
		go func() {
			r, err := c.Invalidate(t.Context(), cache.Write{Keys: []bus.KeyVersion{{Key: "k"}, {Key: "absent"}}})
			if err == nil {
				got <- r
			}
		}()
		for seq := uint64(10); seq < 12; seq++ {
			synctest.Wait()
			require.Empty(t, got, "applied up to %d", seq)
			require.Empty(t, c.get("k"), "gone at once")
			require.Equal(t, 1, c.Waiting())
			c.event(seq+1, "other")
		}
		synctest.Wait()
		require.Equal(t, cache.Receipt{Position: at(12), Alive: 1}, <-got)
		require.Zero(t, c.Waiting())
	})
}

// A publish that fails is a write all the same, perhaps even an event (C8).
func TestFailedInvalidateDropsAndVoids(t *testing.T) {
	failure := errors.New("no")
	c := byHand(t, nil, func(context.Context) (bus.Position, error) {
		return bus.Position{}, errors.Join(bus.ErrNotAcknowledged, failure)
	})
	c.load("k", "old")
	require.Empty(t, c.get("j"), "a reader misses")
	r, err := c.Invalidate(t.Context(), cache.Write{Keys: []bus.KeyVersion{{Key: "k"}, {Key: "j"}}})
	require.ErrorIs(t, err, bus.ErrNotAcknowledged)
	require.ErrorIs(t, err, failure)
	require.Equal(t, cache.Receipt{Alive: 1}, r)
	require.Empty(t, c.get("k"), "dropped")
	require.Equal(t, coherence.Voided, c.set("j", "old"), "its lease is void")
	n := c.Counts()
	require.Equal(t, uint64(1), n.Publishes)
	require.Equal(t, uint64(1), n.PublishErrors)
}

func TestFailedFlushVoidsEverything(t *testing.T) {
	c := byHand(t, nil, func(context.Context) (bus.Position, error) { return bus.Position{}, bus.ErrNotAcknowledged })
	c.load("k", "old")
	require.Empty(t, c.get("j"))
	_, err := c.Flush(t.Context(), "")
	require.ErrorIs(t, err, bus.ErrNotAcknowledged)
	require.Empty(t, c.get("k"))
	require.NotEqual(t, coherence.Stored, c.set("j", "old"))
}

func TestExpiredEntryIsNotCountedAsInvalidated(t *testing.T) {
	c := byHand(t, nil, func(context.Context) (bus.Position, error) { return at(10), nil })
	require.Equal(t, coherence.Stored, c.Set("k", []byte("v"), cache.TTL{Asked: true, For: time.Second}))
	c.clock.Advance(time.Second)
	r, err := c.Invalidate(t.Context(), cache.Write{Keys: []bus.KeyVersion{{Key: "k"}}})
	require.NoError(t, err)
	require.Zero(t, r.Alive)
}

func TestAwaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := byHand(t, nil, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NoError(t, c.Await(ctx, at(10)))
		require.NoError(t, c.Await(ctx, bus.Position{}), "no position at all")
		err := c.Await(ctx, at(11))
		require.ErrorIs(t, err, cache.ErrTimeout)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Zero(t, c.Waiting(), "who gave up is forgotten")
	})
}

// A doubt does not let anybody go: the Resume that follows does, for what it
// covers.
func TestAwaitOverADoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := byHand(t, nil, nil)
		done := make(chan uint64, 2)
		for _, seq := range []uint64{12, 20} {
			go func() {
				if c.Await(t.Context(), at(seq)) == nil {
					done <- seq
				}
			}()
		}
		synctest.Wait()
		c.Doubt(bus.ReasonTooFar)
		synctest.Wait()
		require.Equal(t, 2, c.Waiting())
		c.Resume(bus.Resume{Position: at(15)})
		synctest.Wait()
		require.Equal(t, uint64(12), <-done)
		require.Equal(t, 1, c.Waiting())
		c.Doubt(bus.ReasonRecreated)
		c.Resume(bus.Resume{Position: bus.Position{Epoch: bus.Epoch{Created: 2}, Seq: 1}})
		require.Equal(t, uint64(20), <-done, "a newer stream covers all of the older")
	})
}

func TestDoubtFlushes(t *testing.T) {
	c := byHand(t, nil, nil)
	c.load("k", "old")
	require.Empty(t, c.get("j"))
	c.Doubt(bus.ReasonHole)
	require.Empty(t, c.get("k"))
	require.Equal(t, coherence.NotReady, c.set("k", "v"))
	require.False(t, c.Explain("k").Ready)
	require.Equal(t, at(10), c.Applied())
	c.Resume(bus.Resume{Position: at(11), HistoryFrom: 10, History: []bus.Delivery{
		{Position: at(11), Event: bus.Event{Keys: []bus.KeyVersion{{Key: "j"}}}},
	}})
	require.Equal(t, at(11), c.Applied())
	require.Equal(t, coherence.Invalidated, c.set("j", "old"), "its lease is from before the doubt")
	require.Empty(t, c.get("k"))
	require.Equal(t, coherence.Stored, c.set("k", "new"), "of which history says that nothing happened")
}

// What happened within the last windows is read back (C3): a SET without a miss
// is judged by it.
func TestResumeReadsHistoryBack(t *testing.T) {
	c := byHand(t, nil, nil)
	c.Doubt(bus.ReasonTooFar)
	c.Resume(bus.Resume{Position: at(30), HistoryFrom: 20, History: []bus.Delivery{
		{Position: at(25), Namespace: "default", Event: bus.Event{Keys: []bus.KeyVersion{{Key: "k"}}}},
		{Position: at(30), Event: bus.Event{Op: bus.OpPulse}},
	}})
	require.Equal(t, coherence.Invalidated, c.set("k", "old"))
	require.Equal(t, coherence.Stored, c.set("j", "v"))
}

func TestBlindResumeDropsPlainSets(t *testing.T) {
	c := byHand(t, nil, nil)
	c.Doubt(bus.ReasonTrimmed)
	c.Resume(bus.Resume{Position: at(30), HistoryFrom: 29, Blind: 2 * policy.DefaultWindow})
	require.Equal(t, coherence.Blind, c.set("k", "v"))
	require.Positive(t, c.Explain("k").Blind)
	c.clock.Advance(2*policy.DefaultWindow + time.Millisecond)
	require.Equal(t, coherence.Stored, c.set("k", "v"))
}

func TestWideEvents(t *testing.T) {
	for name, c := range map[string]struct {
		d     bus.Delivery
		stays bool // the entry of the other namespace
	}{
		"flush of a namespace":   {bus.Delivery{Namespace: "ns", Event: bus.Event{Op: bus.OpFlush}}, true},
		"flush of the domain":    {bus.Delivery{Event: bus.Event{Op: bus.OpFlush}}, false},
		"undecodable":            {bus.Delivery{Namespace: "ns", Err: bus.ErrMalformed}, true},
		"undecodable and nobody": {bus.Delivery{Err: bus.ErrMalformed}, false},
		"prefix":                 {bus.Delivery{Namespace: "ns", Event: bus.Event{Prefix: "ns:a"}}, true},
		"fork":                   {bus.Delivery{Event: bus.Event{Op: bus.OpFork}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := byHand(t, nil, nil)
			h.load("ns:a", "1")
			h.load("other:a", "2")
			c.d.Position = at(11)
			h.Apply(c.d)
			require.Empty(t, h.get("ns:a"))
			require.Equal(t, c.stays, h.get("other:a") != "")
		})
	}
}

func TestWatcherIsToldWhatItLost(t *testing.T) {
	c := byHand(t, nil, nil)
	w, gone := c.Watch(), c.Watch()
	gone.Close()
	gone.Close()
	seq := uint64(10)
	for range cache.WatchBuffer + 7 {
		seq++
		c.event(seq, "k")
	}
	seq++
	c.Apply(bus.Delivery{Position: at(seq), Event: bus.Event{Op: bus.OpPulse}})
	require.Equal(t, uint64(7), w.Lost())
	require.Zero(t, w.Lost(), "told once")
	for i := range cache.WatchBuffer {
		require.Equal(t, uint64(11+i), (<-w.Events).Position.Seq)
	}
	require.Empty(t, w.Events, "pulses are left out")
	require.Empty(t, gone.Events)
	w.Close()
	c.event(seq+1, "k")
	require.Empty(t, w.Events)
	require.Equal(t, uint64(cache.WatchBuffer+8), c.Counts().Events)
}
