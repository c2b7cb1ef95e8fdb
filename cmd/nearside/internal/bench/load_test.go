package bench_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/cmd/nearside/internal/bench"
)

// gets reads one key that the server holds.
func gets(s *server) func(int) bench.Requests {
	s.values[bench.Key("k:", 0)] = "x"
	return func(int) bench.Requests {
		r := rand.New(rand.NewPCG(1, 2))
		keys, err := bench.NewKeys(1, 0, r)
		if err != nil {
			panic(err)
		}
		return bench.Mixed(keys, "k:", 1, bench.NewValue(1), r)
	}
}

// stall makes the server answer after 1 ms, and nothing from one moment to
// another.
func (s *server) stall(from, to time.Duration) {
	begin := time.Now()
	s.before = func(string) []byte {
		time.Sleep(time.Millisecond)
		if now := time.Since(begin); now >= from && now < to {
			time.Sleep(to - now)
		}
		return nil
	}
}

// A server that stands still for a second makes all requests of that second late,
// and not only the one that was on its way: coordinated omission.
func TestOpenLoopCountsFromThePlannedMoment(t *testing.T) {
	load := bench.Load{Connections: 1, Pipeline: 1, Size: 1, Rate: 100, Duration: 10 * time.Second, Grace: 5 * time.Second}
	r := inVirtualTime(t, load, 5*time.Second, 6*time.Second)
	require.EqualValues(t, 1000, r.Answered, "100 a second for 10 s, the stall included")
	require.EqualValues(t, 1000, r.Latency.Count)
	require.InDelta(t, 1e6, r.Latency.Max, 20e3)
	// A tenth of the requests came into the stall, and waited half a second on
	// average; the backlog then takes its milliseconds.
	require.InDelta(t, 1e6, r.Latency.P999, 20e3)
	require.Greater(t, r.Latency.P99, 850e3)
	require.InDelta(t, 1e3, r.Latency.P50, 100)
	require.InDelta(t, 0.1*0.5e6, r.Latency.Mean, 10e3)
	require.NotNil(t, r.Service)
	require.InDelta(t, 1e3, r.Service.P99, 100, "from sending, one request was slow")
	require.InDelta(t, 1e6, r.Service.Max, 20e3)
	require.InDelta(t, 100, r.PerSecond, 0.5)
}

// The same, where every connection can have several requests on their way.
func TestOpenLoopSpreadsOverConnections(t *testing.T) {
	load := bench.Load{Connections: 7, Pipeline: 3, Size: 1, Rate: 700, Warmup: time.Second, Duration: 4 * time.Second, Grace: time.Second}
	r := inVirtualTime(t, load, time.Hour, time.Hour)
	require.EqualValues(t, 2800, r.Answered, "what is planned in the warm-up does not count")
	require.InDelta(t, 1e3, r.Latency.Max, 100, "nobody waits for anybody")
	require.InDelta(t, 700, r.PerSecond, 1)
}

// In a closed loop the stall is one slow request: that is what it measures.
func TestClosedLoopWaitsForAnswers(t *testing.T) {
	load := bench.Load{Connections: 1, Pipeline: 1, Size: 1, Duration: 10 * time.Second, Grace: time.Second}
	r := inVirtualTime(t, load, 5*time.Second, 6*time.Second)
	require.InDelta(t, 9000, r.Answered, 5)
	require.InDelta(t, 1e3, r.Latency.P999, 100)
	require.InDelta(t, 1e6, r.Latency.Max, 20e3)
	require.Nil(t, r.Service)
}

// What never gets an answer counts, as slow as it is old when it is given up.
func TestWhatHasNoAnswerCounts(t *testing.T) {
	load := bench.Load{Connections: 2, Pipeline: 1, Size: 1, Rate: 100, Duration: 10 * time.Second, Grace: time.Second}
	r := inVirtualTime(t, load, 4*time.Second, time.Hour)
	require.InDelta(t, 400, r.Answered, 2)
	require.EqualValues(t, 1000, r.Answered+r.Unanswered)
	require.EqualValues(t, 1000, r.Latency.Count)
	require.InDelta(t, 7e6, r.Latency.Max, 50e3, "planned at 4 s, given up at 11 s")
	require.InDelta(t, 6e6, r.Latency.P90, 50e3)
	require.InDelta(t, 40, r.PerSecond, 0.5)

	load.Rate = 0
	r = inVirtualTime(t, load, 4*time.Second, time.Hour)
	require.EqualValues(t, 2, r.Unanswered, "one on each connection")
	require.InDelta(t, 7e6, r.Latency.Max, 50e3)
}

// A server that is too slow for the rate is not said to have kept it, though what
// was planned is answered in the grace.
func TestThroughputIsWhatCameInTime(t *testing.T) {
	load := bench.Load{Connections: 1, Pipeline: 1, Size: 1, Rate: 2000, Duration: 5 * time.Second, Grace: time.Minute}
	r := inVirtualTime(t, load, time.Hour, time.Hour)
	require.EqualValues(t, 10_000, r.Answered)
	require.Zero(t, r.Unanswered)
	require.InDelta(t, 1000, r.PerSecond, 5, "it takes a millisecond for each")
	require.InDelta(t, 5e6, r.Latency.Max, 50e3)
}

func inVirtualTime(t *testing.T, load bench.Load, stallFrom, stallTo time.Duration) (r bench.Result) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		requests := gets(s)
		s.stall(stallFrom, stallTo)
		var rec bench.Recorder
		span, err := load.WithTimers().Run(t.Context(), s.target(), requests, &rec)
		require.NoError(t, err)
		require.False(t, span.Interrupted)
		require.Equal(t, load.Duration, span.Took)
		require.NoError(t, rec.FirstError())
		r = one(t, rec.Results(span.Took))
		require.Equal(t, "get", r.Name)
		require.Equal(t, r.Hits, r.Answered)
	})
	return r
}

func TestInterruptedRunTellsWhatItSaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		requests := gets(s)
		s.stall(time.Hour, time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		var rec bench.Recorder
		load := bench.Load{Connections: 3, Pipeline: 2, Size: 1, Warmup: time.Second, Duration: time.Hour, Grace: time.Minute}
		span, err := load.Run(ctx, s.target(), requests, &rec)
		require.NoError(t, err)
		require.True(t, span.Interrupted)
		require.Equal(t, 2*time.Second, span.Took)
		r := one(t, rec.Results(span.Took))
		require.InDelta(t, 3000, r.PerSecond, 10, "three connections, a millisecond a request")
	})
}

// In its warm-up a run that is interrupted has measured nothing.
func TestInterruptedInTheWarmup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		requests := gets(s)
		s.stall(0, time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var rec bench.Recorder
		load := bench.Load{Connections: 1, Pipeline: 1, Size: 1, Rate: 10, Warmup: time.Minute, Duration: time.Hour, Grace: time.Minute}
		begin := time.Now()
		span, err := load.WithTimers().Run(ctx, s.target(), requests, &rec)
		require.NoError(t, err)
		require.Zero(t, span.Took)
		require.Empty(t, rec.Results(span.Took))
		require.Less(t, time.Since(begin), 3*time.Second, "a user who has pressed Ctrl-C does not wait for the grace")
	})
}

func TestErrorsAndMissesAreNoHits(t *testing.T) {
	s := newServer(t)
	requests := gets(s)
	var n atomic.Int64
	s.before = func(string) []byte {
		switch n.Add(1) % 4 {
		case 0:
			return []byte("-PAUSED for a while\r\n")
		case 1:
			return []byte("$-1\r\n")
		case 2:
			return []byte("$3\r\nabc\r\n")
		}
		return nil
	}
	var rec bench.Recorder
	load := bench.Load{Connections: 1, Pipeline: 4, Size: 1, Duration: 50 * time.Millisecond, Grace: time.Second}
	span, err := load.Run(t.Context(), s.target(), requests, &rec)
	require.NoError(t, err)
	r := one(t, rec.Results(span.Took))
	require.Positive(t, r.Answered)
	require.Equal(t, r.Answered, r.Hits+r.Misses+r.Errors)
	require.Equal(t, r.Hits, r.Misses)
	require.Equal(t, 2*r.Hits, r.Errors)
	require.EqualValues(t, r.Hits+r.Misses, r.Latency.Count, "an error is no latency of a hit")
	require.InDelta(t, 0.5, r.HitRatio(), 0)
	require.ErrorContains(t, rec.FirstError(), "a value of 3 bytes where 1 were stored")
}

func TestABrokenConnectionEndsTheRun(t *testing.T) {
	s := newServer(t)
	requests := gets(s)
	var n atomic.Int64
	s.before = func(string) []byte {
		if n.Add(1) == 100 {
			return []byte("HTTP/1.1 400 Bad Request\r\n")
		}
		return nil
	}
	var rec bench.Recorder
	load := bench.Load{Connections: 3, Pipeline: 1, Size: 1, Duration: time.Hour, Grace: time.Hour}
	_, err := load.Run(t.Context(), s.target(), requests, &rec)
	require.ErrorContains(t, err, "is it a server that speaks RESP?")
	require.Positive(t, rec.Counts().Answered)

	refused := bench.Target{Dial: func(context.Context) (net.Conn, error) { return nil, errors.New("no") }}
	_, err = load.Run(t.Context(), refused, requests, &rec)
	require.ErrorContains(t, err, "connection 1 of 3: connect: no")
}

func TestPassword(t *testing.T) {
	s := newServer(t)
	requests := gets(s)
	s.before = func(name string) []byte {
		if name == "AUTH" {
			return []byte("-WRONGPASS no\r\n")
		}
		return nil
	}
	target := s.target()
	target.Password = "secret"
	var answered *resp.ServerError
	_, err := bench.Load{Connections: 1, Pipeline: 1, Duration: time.Hour}.Run(t.Context(), target, requests, new(bench.Recorder))
	require.ErrorAs(t, err, &answered)
	require.Equal(t, "WRONGPASS", answered.Code())
}

// A batch larger than what is written before reading does not lock up with a
// server that does not read while its answers are not read.
func TestLargeBatches(t *testing.T) {
	s := newServer(t)
	r := rand.New(rand.NewPCG(1, 2))
	var filled atomic.Uint64
	require.NoError(t, bench.Fill(t.Context(), s.target(), "k:", 300, 20_000, &filled))
	require.EqualValues(t, 300, filled.Load())
	require.Len(t, s.values, 300)
	keys, err := bench.NewKeys(300, 0.9, r)
	require.NoError(t, err)
	var rec bench.Recorder
	load := bench.Load{Connections: 1, Pipeline: 200, Size: 20_000, Duration: 100 * time.Millisecond, Grace: time.Minute}
	span, err := load.Run(t.Context(), s.target(), func(int) bench.Requests { return bench.Mixed(keys, "k:", 0.5, bench.NewValue(20_000), r) }, &rec)
	require.NoError(t, err)
	require.NoError(t, rec.FirstError())
	results := rec.Results(span.Took)
	require.Len(t, results, 2)
	require.Equal(t, []string{"get", "set"}, []string{results[0].Name, results[1].Name})
	require.InEpsilon(t, results[0].Answered, results[1].Answered, 0.3)
	require.Zero(t, results[0].Misses)
}

func TestFillTellsWhatIsRefused(t *testing.T) {
	s := newServer(t)
	s.before = func(string) []byte { return []byte("-NOPERM not here\r\n") }
	err := bench.Fill(t.Context(), s.target(), "k:", 300, 10, new(atomic.Uint64))
	require.ErrorContains(t, err, "set k:000000000000: NOPERM not here")
	ctx, cancel := context.WithCancel(t.Context())
	s.before = func(string) []byte { cancel(); return nil }
	require.ErrorIs(t, bench.Fill(ctx, s.target(), "k:", 1_000_000, 10, new(atomic.Uint64)), context.Canceled)
}

func TestLoadIsBounded(t *testing.T) {
	good := bench.Load{Connections: 1, Pipeline: 1, Duration: 1}
	require.NoError(t, good.Check())
	for name, spoil := range map[string]func(*bench.Load){
		"connections": func(l *bench.Load) { l.Connections = 10_001 }, "pipeline": func(l *bench.Load) { l.Pipeline = 0 },
		"rate": func(l *bench.Load) { l.Rate = -1 }, "duration": func(l *bench.Load) { l.Duration = 13 * time.Hour },
		"values on their way": func(l *bench.Load) { l.Connections, l.Pipeline, l.Size = 10_000, 1000, 1<<20 },
		"warmup":              func(l *bench.Load) { l.Warmup = -1 },
	} {
		bad := good
		spoil(&bad)
		require.ErrorContains(t, bad.Check(), name)
	}
}
