package loader_test

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/loader"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// A thousand readers want to load, again and again, while the origin is down for a
// minute. It sees a few probes; and when it is back, no more than its rate, which
// grows slowly.
func TestOutage(t *testing.T) {
	const (
		outage  = time.Minute
		readers = 1000
	)
	p := policy.Loader{
		Rate: 100, Burst: 50, Concurrency: 16, Queue: 64, BreakerFailures: 5, BreakerOpen: 5 * time.Second, BreakerProbes: 3, SlowStart: 10 * time.Second,
	}
	for name, down := range map[string]http.HandlerFunc{"it fails": answers(503, ""), "it hangs": hangs} {
		t.Run(name, func(t *testing.T) {
			var up atomic.Bool
			var mu sync.Mutex
			var asked []time.Time // since it is up
			var during atomic.Int64
			origin := func(w http.ResponseWriter, r *http.Request) {
				if !up.Load() {
					during.Add(1)
					down(w, r)
					return
				}
				mu.Lock()
				asked = append(asked, time.Now())
				mu.Unlock()
				after(20*time.Millisecond, answers(200, "lamp"))(w, r)
			}
			virtual(t, p, origin, func(t *testing.T, o *loader.Origin, _ *pipes) {
				ctx, cancel := context.WithTimeout(t.Context(), outage+25*time.Second)
				defer cancel()
				var all sync.WaitGroup
				for i := range readers {
					all.Go(func() {
						pause := time.Duration(5000+i) * time.Millisecond // so that they do not come together for ever
						for ctx.Err() == nil {
							if _, err := o.Load(ctx, loader.Request{Key: "product:42"}); err != nil {
								time.Sleep(pause)
							}
						}
					})
				}
				time.Sleep(outage)
				// What is under way when it trips, and the probes of each time that it is half-open.
				most := int64(p.Concurrency + p.BreakerFailures + p.BreakerProbes*int(outage/p.BreakerOpen))
				require.LessOrEqual(t, during.Load(), most)
				require.Greater(t, during.Load(), int64(p.BreakerFailures), "it is tried whether it is back")
				require.Contains(t, o.State().LastFailure, "the origin is unavailable")
				up.Store(true)
				all.Wait()

				require.NotEmpty(t, asked)
				// The probes come before the slow start.
				start := asked[p.BreakerProbes-1]
				require.Less(t, start.Sub(asked[0]), time.Second)
				counts := make([]int, 20)
				for _, at := range asked[p.BreakerProbes:] {
					if s := int(at.Sub(start) / time.Second); s < len(counts) {
						counts[s]++
					}
				}
				require.LessOrEqual(t, counts[0]+p.BreakerProbes, 20, "the first second: a tenth of the rate, and the probes")
				for i, n := range counts {
					require.LessOrEqual(t, n, min(100, 10*(i+2)), "in second %d of %v", i, counts)
				}
				require.GreaterOrEqual(t, counts[15], 95, "the whole rate is used in the end: %v", counts)
				require.Contains(t, o.State().Breaker, "closed")
				require.InDelta(t, 100, o.State().Rate, 0.01)
			})
		})
	}
}

// Who waits when the breaker opens is turned away at once, not by and by.
func TestOpeningTurnsAwayWhoWaits(t *testing.T) {
	p := policy.Loader{Rate: 2, Burst: 1, Concurrency: 4, Queue: 100, BreakerFailures: 1, Tries: 1}
	virtual(t, p, after(100*time.Millisecond, answers(500, "")), func(t *testing.T, o *loader.Origin, _ *pipes) {
		began := time.Now()
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				_, err := load(t, o, loader.Request{})
				require.ErrorIs(t, err, loader.ErrUnavailable)
				require.Equal(t, 100*time.Millisecond, time.Since(began))
			})
		}
		all.Wait()
		require.EqualValues(t, 1, o.Counts().Requests)
		require.EqualValues(t, 49, o.Counts().Refused)
		require.Zero(t, o.State().Waiting)
	})
}

// Failures that come seldom count too.
func TestBreakerCountsFailuresNotTime(t *testing.T) {
	virtual(t, policy.Loader{Tries: 1, BreakerFailures: 3}, answers(500, ""), func(t *testing.T, o *loader.Origin, _ *pipes) {
		for range 3 {
			_, err := load(t, o, loader.Request{})
			require.ErrorIs(t, err, loader.ErrFailed)
			time.Sleep(time.Hour)
		}
		_, err := load(t, o, loader.Request{})
		require.ErrorIs(t, err, loader.ErrFailed, "the hour after the third is over: it was tried again")
		_, err = load(t, o, loader.Request{})
		require.ErrorIs(t, err, loader.ErrBreakerOpen)
	})
}

// An origin of which every second answer fails is in trouble as well.
func TestBreakerOpensForHalf(t *testing.T) {
	var n atomic.Int64
	origin := func(w http.ResponseWriter, r *http.Request) {
		answers([]int{200, 500}[n.Add(1)%2], "")(w, r)
	}
	virtual(t, policy.Loader{Tries: 1}, origin, func(t *testing.T, o *loader.Origin, _ *pipes) {
		for range 21 {
			_, err := load(t, o, loader.Request{})
			require.NotErrorIs(t, err, loader.ErrBreakerOpen)
		}
		require.Contains(t, o.State().Breaker, "open: ")
	})
}

// An answer that is of no use shows that the origin is up.
func TestBreakerStaysClosedForBadAnswers(t *testing.T) {
	virtual(t, policy.Loader{MaxBody: 1, BreakerFailures: 1}, script(answers(403, ""), answers(200, "lamp"), answers(404, "")), func(t *testing.T, o *loader.Origin, _ *pipes) {
		for range 5 {
			_, _ = load(t, o, loader.Request{})
		}
		require.EqualValues(t, 5, o.Counts().Requests)
		require.Contains(t, o.State().Breaker, "closed")
	})
}

// Who ends a probe does not use it up.
func TestHalfOpen(t *testing.T) {
	var up atomic.Bool
	origin := func(w http.ResponseWriter, r *http.Request) {
		if up.Load() {
			after(time.Second, answers(200, "lamp"))(w, r)
		} else {
			answers(500, "")(w, r)
		}
	}
	p := policy.Loader{Tries: 1, BreakerFailures: 1, BreakerProbes: 2, BreakerOpen: time.Second}
	virtual(t, p, origin, func(t *testing.T, o *loader.Origin, _ *pipes) {
		_, err := load(t, o, loader.Request{})
		require.ErrorIs(t, err, loader.ErrFailed)
		_, err = load(t, o, loader.Request{})
		require.ErrorIs(t, err, loader.ErrBreakerOpen)
		require.Contains(t, o.State().Breaker, "open: the origin failed too often and is not asked for 1")
		up.Store(true)
		time.Sleep(1300 * time.Millisecond)

		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error)
		go func() {
			_, err := o.Load(ctx, loader.Request{Key: "product:42"})
			gone <- err
		}()
		synctest.Wait()
		require.Contains(t, o.State().Breaker, "half-open: 2 requests try")
		cancel()
		require.ErrorIs(t, <-gone, context.Canceled)

		var loaded, refused atomic.Int64
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if _, err := load(t, o, loader.Request{}); err != nil {
					require.ErrorIs(t, err, loader.ErrBreakerOpen)
					refused.Add(1)
				} else {
					loaded.Add(1)
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 2, loaded.Load())
		require.EqualValues(t, 8, refused.Load())
		require.Contains(t, o.State().Breaker, "closed")
	})
}

// A probe that ends before its turn does not use up its leave.
func TestProbeThatWaitsForItsTurn(t *testing.T) {
	p := policy.Loader{Tries: 1, BreakerFailures: 1, BreakerProbes: 1, BreakerOpen: 100 * time.Millisecond, Rate: 1, Burst: 1}
	virtual(t, p, script(answers(500, ""), answers(200, "")), func(t *testing.T, o *loader.Origin, _ *pipes) {
		_, err := load(t, o, loader.Request{})
		require.ErrorIs(t, err, loader.ErrFailed)
		time.Sleep(200 * time.Millisecond)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			_, err := o.Load(ctx, loader.Request{Key: "product:42"})
			ended <- err
		}()
		synctest.Wait()
		require.Equal(t, 1, o.State().InFlight)
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		_, err = load(t, o, loader.Request{})
		require.NoError(t, err)
		require.Contains(t, o.State().Breaker, "closed")
	})
}

// What failed before the outage is forgotten after it.
func TestBreakerBeginsAnew(t *testing.T) {
	var status atomic.Int64
	origin := func(w http.ResponseWriter, r *http.Request) { answers(int(status.Load()), "")(w, r) }
	virtual(t, policy.Loader{Tries: 1, BreakerFailures: 4, Rate: 1e6}, origin, func(t *testing.T, o *loader.Origin, _ *pipes) {
		loads := func(n int, as int64) {
			status.Store(as)
			for range n {
				_, err := load(t, o, loader.Request{})
				require.NotErrorIs(t, err, loader.ErrBreakerOpen)
			}
		}
		for range 10 {
			loads(1, http.StatusOK)
			loads(1, http.StatusInternalServerError)
		}
		require.Contains(t, o.State().Breaker, "open:")
		time.Sleep(6 * time.Second)
		loads(3, http.StatusOK)
		loads(3, http.StatusInternalServerError)
		require.Contains(t, o.State().Breaker, "closed", "with the former ones, half of the last 20 failed")
	})
}
