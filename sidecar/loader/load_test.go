package loader_test

import (
	"context"
	"io"
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

// script answers each request by the next of its handlers, the last one for ever.
func script(all ...http.HandlerFunc) http.HandlerFunc {
	var next atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		all[min(int(next.Add(1)), len(all))-1](w, r)
	}
}

func after(d time.Duration, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(d):
			h(w, r)
		case <-r.Context().Done():
		}
	}
}

func hangs(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func TestRetries(t *testing.T) {
	p := policy.Loader{Tries: 3, Backoff: 100 * time.Millisecond, MaxBackoff: 150 * time.Millisecond}
	broken := answers(503, "")
	virtual(t, p, script(broken, broken, answers(200, "lamp")), func(t *testing.T, o *loader.Origin, _ *pipes) {
		began := time.Now()
		got, err := load(t, o, loader.Request{})
		require.NoError(t, err)
		require.Equal(t, "lamp", string(got.Value))
		require.EqualValues(t, 3, o.Counts().Requests)
		require.LessOrEqual(t, time.Since(began), 251*time.Millisecond, "full jitter: 0 to 100 ms, then 0 to 150 ms")
	})
	virtual(t, p, broken, func(t *testing.T, o *loader.Origin, _ *pipes) {
		_, err := load(t, o, loader.Request{})
		require.ErrorIs(t, err, loader.ErrFailed)
		require.ErrorContains(t, err, "status 503")
		require.EqualValues(t, 3, o.Counts().Requests)
		require.Equal(t, loader.Counts{Loads: 1, Failed: 1, Requests: 3}, o.Counts())
	})
}

// Full jitter spreads: pauses come from all of the interval.
func TestPausesAreSpread(t *testing.T) {
	p := policy.Loader{Tries: 2, Backoff: time.Second, BreakerFailures: 1000, BreakerOpen: time.Millisecond}
	var quarters [4]int
	for range 64 {
		virtual(t, p, script(answers(500, ""), answers(200, "")), func(t *testing.T, o *loader.Origin, _ *pipes) {
			began := time.Now()
			_, err := load(t, o, loader.Request{})
			require.NoError(t, err)
			quarters[min(3, int(4*time.Since(began)/time.Second))]++
		})
	}
	for _, n := range quarters {
		require.NotZero(t, n, "%v; by chance once in 100 million", quarters)
	}
}

func TestRetryAfter(t *testing.T) {
	virtual(t, policy.Loader{}, script(answers(429, "", "Retry-After", "2"), answers(200, "")), func(t *testing.T, o *loader.Origin, _ *pipes) {
		began := time.Now()
		_, err := load(t, o, loader.Request{})
		require.NoError(t, err)
		require.Equal(t, 2*time.Second, time.Since(began))
	})
	virtual(t, policy.Loader{}, answers(503, "", "Retry-After", "60"), func(t *testing.T, o *loader.Origin, _ *pipes) {
		began := time.Now()
		_, err := load(t, o, loader.Request{})
		require.ErrorIs(t, err, loader.ErrFailed)
		require.Zero(t, time.Since(began), "nobody waits for what comes after the hard timeout")
	})
}

func TestAtLeast(t *testing.T) {
	p := policy.Loader{VersionHeader: "X-Version", Tries: 3, BreakerFailures: 1}
	lagging := answers(200, "old", "X-Version", "6")
	virtual(t, p, script(lagging, lagging, answers(200, "new", "X-Version", "7")), func(t *testing.T, o *loader.Origin, _ *pipes) {
		got, err := load(t, o, loader.Request{AtLeast: 7})
		require.NoError(t, err)
		require.Equal(t, "new", string(got.Value))
	})
	virtual(t, p, lagging, func(t *testing.T, o *loader.Origin, _ *pipes) {
		got, err := load(t, o, loader.Request{AtLeast: 7})
		require.ErrorIs(t, err, loader.ErrTooOld)
		require.NotErrorIs(t, err, loader.ErrUnavailable)
		require.ErrorContains(t, err, "version 6, want 7")
		require.Equal(t, loader.Result{}, got, "a rejected value is never handed on")
		require.EqualValues(t, 3, o.Counts().Requests)
		require.Contains(t, o.State().Breaker, "closed", "the origin is up")
	})
	virtual(t, policy.Loader{}, answers(200, "lamp"), func(t *testing.T, o *loader.Origin, _ *pipes) {
		_, err := load(t, o, loader.Request{AtLeast: 7})
		require.NoError(t, err, "what has no version is for the rules to judge")
	})
}

// A body that trickles in is cut off, however often a byte of it comes.
func TestSlowDrip(t *testing.T) {
	drip := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
			after(100*time.Millisecond, func(http.ResponseWriter, *http.Request) {})(w, r)
		}
	}
	virtual(t, policy.Loader{Tries: 20, HardTimeout: 5 * time.Second}, drip, func(t *testing.T, o *loader.Origin, _ *pipes) {
		began := time.Now()
		_, err := load(t, o, loader.Request{})
		require.ErrorIs(t, err, loader.ErrTimeout)
		require.ErrorContains(t, err, "none within 5s in 3 tries")
		require.Equal(t, 5*time.Second, time.Since(began))
	})
	virtual(t, policy.Loader{Tries: 1, MaxTimeout: time.Second}, drip, func(t *testing.T, o *loader.Origin, _ *pipes) {
		_, err := load(t, o, loader.Request{})
		require.ErrorIs(t, err, loader.ErrTimeout)
		require.ErrorContains(t, err, "none within 1s")
	})
}

// At the soft timeout a reader goes on; the load does too, and brings what it
// brings to whoever still waits.
func TestSoftTimeout(t *testing.T) {
	p := policy.Loader{SoftTimeout: 100 * time.Millisecond}
	virtual(t, p, after(time.Second, answers(200, "lamp")), func(t *testing.T, o *loader.Origin, _ *pipes) {
		began := time.Now()
		pending := o.Begin(loader.Request{Key: "product:42"})
		_, err := pending.Wait(t.Context())
		require.ErrorIs(t, err, loader.ErrSlow)
		require.ErrorIs(t, err, loader.ErrUnavailable)
		require.Equal(t, 100*time.Millisecond, time.Since(began))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err = pending.Wait(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, loader.ErrUnavailable)
		<-pending.Done()
		require.Equal(t, time.Second, time.Since(began))
		for _, wait := range []func() (loader.Result, error){pending.Result, func() (loader.Result, error) { return pending.Wait(ctx) }} {
			got, err := wait()
			require.NoError(t, err)
			require.Equal(t, "lamp", string(got.Value))
		}
		require.Equal(t, loader.Counts{Loads: 1, Answered: 1, Requests: 1, WentOn: 1}, o.Counts())
	})
}

// The caller's end ends the load and is no failure of the origin.
func TestCallerEndsTheLoad(t *testing.T) {
	canceled := make(chan struct{})
	origin := func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		close(canceled)
	}
	virtual(t, policy.Loader{BreakerFailures: 1}, origin, func(t *testing.T, o *loader.Origin, _ *pipes) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := o.Load(ctx, loader.Request{Key: "product:42"})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, loader.ErrUnavailable)
		<-canceled
		require.Contains(t, o.State().Breaker, "closed")
	})
}

func TestConcurrencyAndQueue(t *testing.T) {
	var now, most atomic.Int64
	origin := func(w http.ResponseWriter, r *http.Request) {
		most.Store(max(most.Load(), now.Add(1)))
		after(100*time.Millisecond, answers(200, ""))(w, r)
		now.Add(-1)
	}
	virtual(t, policy.Loader{Concurrency: 4, Queue: 6}, origin, func(t *testing.T, o *loader.Origin, net *pipes) {
		var full, loaded atomic.Int64
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				began := time.Now()
				_, err := load(t, o, loader.Request{})
				if err == nil {
					loaded.Add(1)
					return
				}
				require.ErrorIs(t, err, loader.ErrQueueFull)
				require.Zero(t, time.Since(began), "who finds no place is told at once")
				full.Add(1)
			})
		}
		synctest.Wait()
		require.Equal(t, 4, o.State().InFlight)
		require.Equal(t, 6, o.State().Waiting)
		all.Wait()
		require.EqualValues(t, 40, full.Load())
		require.EqualValues(t, 10, loaded.Load())
		require.EqualValues(t, 4, most.Load())
		require.EqualValues(t, 4, net.dials.Load(), "connections are no more than requests, and kept")
		require.Equal(t, loader.Counts{Loads: 50, Answered: 10, Refused: 40, Requests: 10}, o.Counts())
	})
}

func TestRate(t *testing.T) {
	var times []time.Time
	var mu sync.Mutex
	origin := func(http.ResponseWriter, *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		times = append(times, time.Now())
	}
	virtual(t, policy.Loader{Rate: 10, Burst: 2, Concurrency: 100, HardTimeout: 2 * time.Second}, origin, func(t *testing.T, o *loader.Origin, _ *pipes) {
		began := time.Now()
		var all sync.WaitGroup
		var refused atomic.Int64
		for range 50 {
			all.Go(func() {
				if _, err := load(t, o, loader.Request{}); err != nil {
					require.ErrorIs(t, err, loader.ErrOverRate)
					require.Zero(t, time.Since(began), "whose turn comes too late is told at once")
					refused.Add(1)
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 29, refused.Load())
		require.Len(t, times, 21)
		for i, at := range times {
			require.Equal(t, time.Duration(max(0, i-1))*100*time.Millisecond, at.Sub(began))
		}
	})
}

func TestCloseEndsLoads(t *testing.T) {
	virtual(t, policy.Loader{Concurrency: 1}, hangs, func(t *testing.T, o *loader.Origin, _ *pipes) {
		ended := make(chan error)
		for range 3 {
			go func() {
				_, err := load(t, o, loader.Request{})
				ended <- err
			}()
		}
		pending := o.Begin(loader.Request{Key: "product:42"})
		synctest.Wait()
		began := time.Now()
		closed := make(chan error)
		for range 2 {
			go func() { closed <- o.Close() }()
		}
		for range 3 {
			require.ErrorIs(t, <-ended, loader.ErrClosed)
		}
		_, err := pending.Result()
		require.ErrorIs(t, err, loader.ErrClosed)
		require.NoError(t, <-closed)
		require.NoError(t, <-closed)
		require.Zero(t, time.Since(began))
		_, err = load(t, o, loader.Request{})
		require.ErrorIs(t, err, loader.ErrClosed)
		_, err = o.Begin(loader.Request{}).Wait(t.Context())
		require.ErrorIs(t, err, loader.ErrClosed)
	})
}

// The timeout follows what the origin takes, within its bounds.
func TestAdaptiveTimeout(t *testing.T) {
	var takes atomic.Int64
	origin := func(w http.ResponseWriter, r *http.Request) {
		after(time.Duration(takes.Load()), answers(200, ""))(w, r)
	}
	p := policy.Loader{MinTimeout: 50 * time.Millisecond, MaxTimeout: 2 * time.Second, Tries: 1, Rate: 1e6}
	virtual(t, p, origin, func(t *testing.T, o *loader.Origin, _ *pipes) {
		const fast, slow = 100 * time.Millisecond, 500 * time.Millisecond
		require.Equal(t, 2*time.Second, o.State().Timeout, "nothing is known yet")
		loads := func(n int) (failed int) {
			for range n {
				if _, err := load(t, o, loader.Request{}); err != nil {
					require.ErrorIs(t, err, loader.ErrTimeout)
					failed++
				}
			}
			return failed
		}
		takes.Store(int64(fast))
		require.Zero(t, loads(100))
		require.Equal(t, 2*fast, o.State().Timeout)
		takes.Store(int64(slow))
		require.LessOrEqual(t, loads(100), 10, "an origin that became slower is found again")
		require.GreaterOrEqual(t, o.State().Timeout, 2*slow)
		require.Contains(t, o.State().Breaker, "closed", "our impatience is no outage")
		takes.Store(int64(time.Millisecond))
		require.Zero(t, loads(600))
		require.Equal(t, 50*time.Millisecond, o.State().Timeout)
		takes.Store(int64(time.Minute))
		for range 20 {
			_, err := load(t, o, loader.Request{})
			require.ErrorIs(t, err, loader.ErrUnavailable)
		}
		require.Equal(t, 2*time.Second, o.State().Timeout)
		require.Contains(t, o.State().Breaker, "open:", "what does not answer within the longest timeout is down")
	})
}

// Also where one try may take all the time that the load has.
func TestHangingOriginOpensTheBreaker(t *testing.T) {
	p := policy.Loader{MaxTimeout: time.Second, HardTimeout: time.Second}
	virtual(t, p, hangs, func(t *testing.T, o *loader.Origin, _ *pipes) {
		for range 5 {
			_, err := load(t, o, loader.Request{})
			require.ErrorIs(t, err, loader.ErrTimeout)
		}
		_, err := load(t, o, loader.Request{})
		require.ErrorIs(t, err, loader.ErrBreakerOpen)
	})
}
