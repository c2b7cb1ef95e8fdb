package cache_test

import (
	"context"
	"math"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/membus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/clock"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

const (
	tight = 200 * time.Millisecond
	// oneRepair is the longest pause of a follower before it tries a repair again.
	oneRepair = 1500 * time.Millisecond
	hotKey    = "k:1"
)

// outage is two caches, a writer with a connection of its own, and a reader of
// each cache, in virtual time.
type outage struct {
	t      *testing.T
	clock  clock.Clock
	stream *membus.Stream
	buses  []*membus.Bus
	caches []*cache.Cache
	writer *membus.Bus

	version uint64 // at the origin
	acks    []ack
	stopped int // cache that does not run; -1: none
	hits    int
	refused int
}

type ack struct {
	version uint64
	at      time.Duration
}

func newOutage(t *testing.T) *outage {
	o := &outage{t: t, clock: clock.Elapsed(), stream: sidecartest.NewStream(t), version: 1, stopped: -1}
	o.writer = o.stream.Attach(membus.Options{})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	for range 2 {
		b := o.stream.Attach(membus.Options{})
		cfg := sidecartest.CacheConfig(b, sidecartest.NewClock())
		cfg.Clock, cfg.PublishTimeout = o.clock, time.Second
		c, err := cache.New(cfg)
		require.NoError(t, err)
		o.buses, o.caches = append(o.buses, b), append(o.caches, c)
		go func() { ended <- c.Follow(ctx) }()
		<-c.Ready()
	}
	t.Cleanup(func() {
		stop()
		for i, c := range o.caches {
			require.NoError(t, <-ended)
			require.NoError(t, c.Close())
			require.NoError(t, o.buses[i].Close())
		}
		require.NoError(t, o.writer.Close())
	})
	return o
}

// run lets 10 ms pass at a time. In each the writer tries to write once, and each
// reader reads with MAXSTALE 200 ms, without waiting.
func (o *outage) run(d time.Duration) {
	const step = 10 * time.Millisecond
	for end := o.clock() + d; o.clock() < end; {
		o.write()
		for i := range o.caches {
			if i != o.stopped {
				o.read(i)
			}
		}
		time.Sleep(step)
		synctest.Wait()
	}
}

func (o *outage) write() {
	o.version++
	ctx, cancel := context.WithTimeout(o.t.Context(), time.Millisecond)
	defer cancel()
	e := bus.Event{Keys: []bus.KeyVersion{{Key: hotKey, Version: o.version}}}
	if _, err := o.writer.Publish(ctx, "k", e); err == nil {
		o.acks = append(o.acks, ack{o.version, o.clock()})
	}
}

// read requires that what is served is not older than any version that was
// acknowledged more than 200 ms before.
func (o *outage) read(i int) {
	called := o.clock()
	value, a := o.caches[i].Near(hotKey, cache.Mode{Kind: cache.MaxStale, MaxStale: tight}, false, false, nil)
	switch a.Status {
	case cache.Hit:
		o.hits++
		version, err := strconv.ParseUint(string(value), 10, 64)
		require.NoError(o.t, err)
		for _, k := range o.acks {
			if version < k.version && called-k.at > tight {
				require.Fail(o.t, "stale", "cache %d served version %d at %v; %d was acknowledged at %v", i, version, called, k.version, k.at)
			}
		}
	case cache.Miss:
		v := o.caches[i].Fill(hotKey, strconv.AppendUint(nil, o.version, 10), cache.FillOptions{Lease: a.Lease, Version: o.version})
		require.Equal(o.t, coherence.Stored, v)
	default:
		o.refused++
	}
}

// MAXSTALE 200 ms: with NATS paused, partitioned or without
// quorum, with a sidecar stopped for 5 s and continued, no read ever returns a
// value whose invalidation had been acknowledged more than 200 ms before the call;
// after healing, the state is live within 2 pulses and one repair.
func TestMaxStaleIsSafeAndLiveWithinTwoPulsesAndOneRepair(t *testing.T) {
	each := func(o *outage, do func(*membus.Bus)) {
		for _, b := range append([]*membus.Bus{o.writer}, o.buses...) {
			do(b)
		}
	}
	cases := map[string]struct{ harm, heal func(*outage) }{
		"NATS is paused": {
			func(o *outage) { each(o, (*membus.Bus).Disconnect) },
			func(o *outage) { each(o, (*membus.Bus).Reconnect) },
		},
		"a sidecar is partitioned": {
			func(o *outage) { o.buses[0].Disconnect() },
			func(o *outage) { o.buses[0].Reconnect() },
		},
		"the writer and a sidecar are on the other side": {
			func(o *outage) { o.buses[1].Disconnect(); o.writer.Disconnect() },
			func(o *outage) { o.buses[1].Reconnect(); o.writer.Reconnect() },
		},
		"no quorum": { // what is stored can be read, nothing is stored
			func(o *outage) { each(o, func(b *membus.Bus) { b.FailPublishes(math.MaxInt) }) },
			func(o *outage) { each(o, func(b *membus.Bus) { b.FailPublishes(0) }) },
		},
		"a sidecar hears nothing, and is heard": {
			func(o *outage) { o.buses[0].Hold() },
			func(o *outage) { o.buses[0].Release() },
		},
		"a sidecar is stopped": { // its first reads come before it has taken what waits for it
			func(o *outage) {
				o.stopped = 0
				o.buses[0].Hold()
				o.buses[0].FailPublishes(math.MaxInt)
				o.buses[0].FailCalls(math.MaxInt)
			},
			func(o *outage) {
				o.stopped = -1
				o.read(0)
				o.buses[0].FailPublishes(0)
				o.buses[0].FailCalls(0)
				o.read(0)
				o.buses[0].Release()
			},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			for phase := range 5 { // of what is paced, at the heal
				synctest.Test(t, func(t *testing.T) {
					o := newOutage(t)
					o.suffer(5*time.Second+time.Duration(phase)*60*time.Millisecond, c.harm, c.heal)
				})
			}
		})
	}
}

// suffer harms for d, heals, and requires that both caches are live in time.
func (o *outage) suffer(d time.Duration, harm, heal func(*outage)) {
	o.run(3 * time.Second)
	o.areLive()
	require.NotZero(o.t, o.hits)
	harm(o)
	o.run(d)
	heal(o)
	require.NotZero(o.t, o.refused, "the bound is broken meanwhile")
	o.run(2*bus.DefaultPulseInterval + oneRepair)
	o.areLive()
	hits := o.hits
	o.run(time.Second)
	require.Greater(o.t, o.hits, hits)
}

func (o *outage) areLive() {
	for i, c := range o.caches {
		age := o.clock() - c.Fresh()
		require.Equal(o.t, cache.Live, c.State(&c.Policies().Default, o.clock()), "cache %d is %v old", i, age)
	}
}
