package cache_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/coherence"
)

// eventsFrom are n invalidations of two keys each, with a pulse in every 16.
func eventsFrom(seq uint64, n int) []bus.Delivery {
	ds := make([]bus.Delivery, n)
	for i := range ds {
		d := &ds[i]
		d.Position, d.Digest, d.Time, d.Namespace = at(seq+uint64(i)), seq, time.Now(), "ns"
		if i%16 == 15 {
			d.Event.Op = bus.OpPulse
			continue
		}
		d.Event.Keys = []bus.KeyVersion{{Key: fmt.Sprintf("ns:%d", i)}, {Key: fmt.Sprintf("ns:%d", i+1), Version: 3}}
		d.Event.Time = d.Time
	}
	return ds
}

// Each event of a batch has its effect, those who wait for one go on, those who watch
// are told of each, and keep what they are told though its keys are used anew.
func TestBatchOfEvents(t *testing.T) {
	c := byHand(t, nil, nil)
	c.load("ns:1", "old")
	c.load("ns:7", "old")
	c.load("other", "new")
	w := c.Watch()
	defer w.Close()
	reached := make(chan error, 1)
	go func() { reached <- c.Await(t.Context(), at(15)) }()
	ds := eventsFrom(11, 20)
	ds[19].Fresh = c.Now()
	c.ApplyAll(ds)
	require.NoError(t, <-reached)
	require.Equal(t, at(30), c.Applied())
	require.Equal(t, c.Now(), c.Fresh())
	require.Empty(t, c.get("ns:1"))
	require.Empty(t, c.get("ns:7"))
	require.Equal(t, "new", c.get("other"))
	for _, d := range ds {
		clear(d.Event.Keys)
	}
	require.Len(t, w.Events, 19, "all but the pulse")
	for a := range len(w.Events) {
		if a >= 15 {
			a++
		}
		require.Equal(t, fmt.Sprintf("ns:%d", a), (<-w.Events).Event.Keys[0].Key)
	}
}

// In a batch, too, an update stands before what comes after it.
func TestUpdateWithinABatch(t *testing.T) {
	c := byHand(t, nil, nil)
	require.Equal(t, coherence.Stored, c.Fill("ns:u", []byte("one"), cache.FillOptions{Lease: c.Lease("ns:u", false), Version: 1}))
	update := func(seq, version uint64, value string) bus.Delivery {
		return bus.Delivery{Position: at(seq), Event: bus.Event{
			Op: bus.OpUpdate, Keys: []bus.KeyVersion{{Key: "ns:u", Version: version}}, Value: []byte(value),
		}}
	}
	c.ApplyAll([]bus.Delivery{update(11, 2, "two"), update(12, 4, "four"), update(13, 3, "three")})
	require.Equal(t, "four", c.get("ns:u"))
	after := eventsFrom(15, 1)[0]
	after.Event.Keys[0] = bus.KeyVersion{Key: "ns:u"}
	c.ApplyAll([]bus.Delivery{update(14, 5, "five"), after})
	require.Empty(t, c.get("ns:u"))
}

// A batch of events costs no more allocations than one: that of the position.
func TestApplyingAllocatesNothingPerEvent(t *testing.T) {
	c := byHand(t, nil, nil)
	for i := range 16 {
		c.event(uint64(11+i), "warm")
	}
	ds := eventsFrom(27, 64)
	c.ApplyAll(ds) // their fences are there from now on
	allocs := testing.AllocsPerRun(100, func() {
		for i := range ds {
			ds[i].Position.Seq += uint64(len(ds))
		}
		c.ApplyAll(ds)
	})
	require.LessOrEqual(t, allocs, 1.0)
}

func BenchmarkApplyAll(b *testing.B) {
	c := byHand(b, nil, nil)
	ds := eventsFrom(11, 64)
	b.ReportAllocs()
	for b.Loop() {
		c.ApplyAll(ds)
		for i := range ds {
			ds[i].Position.Seq += uint64(len(ds))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(ds)), "ns/event")
}
