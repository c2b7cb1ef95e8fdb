package demo

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
)

func TestOriginKnowsHowFarBehindAValueIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newOrigin([]city{{ID: 1, Population: 1000, Version: 1}}).rows[0]
		version, committed := r.tell()
		require.EqualValues(t, 1, version)
		require.Zero(t, committed, "nothing was committed")
		require.Zero(t, r.behind(1, time.Now()))

		r.commit()
		first := time.Now()
		time.Sleep(3 * time.Second)
		r.commit()
		require.Equal(t, 3*time.Second, r.behind(1, time.Now()))
		require.Zero(t, r.behind(1, first.Add(-time.Second)), "it was the newest then")
		require.Zero(t, r.behind(3, time.Now()))
		version, committed = r.tell()
		require.EqualValues(t, 3, version)
		require.Equal(t, time.Now(), committed)
		_, committed = r.tell()
		require.Zero(t, committed, "told before")
	})
}

// A load brings what the record was when it began.
func TestLoadIsOnItsWayWhileTheOriginChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoad([]city{{ID: 1, Version: 1}})
		got := make(chan city)
		go func() {
			c, err := l.fetch(t.Context(), l.origin.rows[0])
			if err == nil {
				got <- c
			}
		}()
		synctest.Wait()
		l.origin.rows[0].commit()
		require.EqualValues(t, 1, (<-got).Version)
	})
}

func TestLagEndsWithTheLastSidecar(t *testing.T) {
	f := newFlights(3)
	t0 := time.Now()
	f.applied(7, t0.Add(2*time.Millisecond)) // before the acknowledgement
	f.applied(7, t0.Add(9*time.Millisecond))
	f.published(7, t0)
	require.Zero(t, f.lag.now().count)
	late, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, 1, f.wait(late))
	landed := make(chan int)
	go func() { landed <- f.wait(t.Context()) }()
	f.applied(7, t0.Add(5*time.Millisecond))
	require.Zero(t, <-landed)
	require.EqualValues(t, 1, f.lag.now().count)
	require.InDelta(t, 9*time.Millisecond, f.lag.now().max, float64(10*time.Microsecond))

	f.published(8, time.Time{}) // tells of no commit
	for range 3 {
		f.applied(8, t0)
	}
	require.EqualValues(t, 1, f.lag.now().count)
}

// What sidecars serve that the oracle finds stale, and what nobody wrote, makes
// the command fail.
func TestVerdict(t *testing.T) {
	l := newLoad([]city{{ID: 1, Version: 1}})
	p := &pod{name: "pod-a"}
	l.tallies[p] = &tally{}
	good := report{
		writes: 1, lag: quantiles{count: 1}, pods: []podReport{{hits: 1}}, elapsed: time.Second,
	}
	require.NoError(t, good.verdict())

	l.oracle.event(key, 2, 10)
	require.EqualValues(t, 1, l.judge(p, l.origin.rows[0], `{"id":1,"version":1}`, at(10), time.Now()))
	bad := good
	bad.stale, bad.first = l.oracle.staleReads()
	require.ErrorIs(t, bad.verdict(), errStale)
	require.ErrorContains(t, bad.verdict(), "pod-a served version 1 of city:1 though it had applied the invalidation of version 2")

	for _, value := range []string{"", "hello", `{"id":2,"version":1}`, `{"id":1}`} {
		require.Zero(t, l.judge(p, l.origin.rows[0], value, bus.Position{}, time.Now()), value)
	}
	bad = good
	bad.foreign = l.foreign.Load()
	require.ErrorContains(t, bad.verdict(), "4 values were served that the origin never held")

	bad = good
	bad.kept = 1
	require.ErrorIs(t, bad.verdict(), errStale)
	for _, spoil := range []func(*report){
		func(r *report) { r.writes = 0 },
		func(r *report) { r.lag.count = 0 },
		func(r *report) { r.pods = []podReport{{hits: 0}} },
	} {
		bad = good
		spoil(&bad)
		require.ErrorIs(t, bad.verdict(), errUnmeasured)
	}
}
