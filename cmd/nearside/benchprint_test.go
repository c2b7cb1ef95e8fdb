package main

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/cmd/nearside/internal/bench"
)

func aMeasurement() *measurement {
	service := bench.Latency{Count: 1, P50: 12.34, P90: 20, P99: 100, P999: 200, Max: 300}
	return &measurement{
		Schema: schema, Command: "bench mixed", Servers: []serverInfo{{"/run/r.sock", "redis", "7.0.15"}}, Nearside: "v1",
		Machine: bench.Machine{CPUs: 2, CPU: "Fast One", Kernel: "Linux 6", Platform: "linux/amd64", Go: "go1"},
		Load:    loadFigures{Connections: 50, Pipeline: 16, Size: 100, Keys: 1000, Zipf: 0.99, Reads: 0.9, Rate: 1000, WarmupSeconds: 1, DurationSeconds: 10},
		Results: []bench.Result{
			{
				Name: "get", Seconds: 10, PerSecond: 812.4, Counts: bench.Counts{Answered: 900, Hits: 899, Misses: 1, Unanswered: 3},
				Latency: bench.Latency{Count: 900, P50: 99.94, P90: 999.4, P99: 9_994, P999: 99_940, Max: 2_000_000}, Service: &service,
			},
			{Name: "set", Seconds: 10, PerSecond: 100, Counts: bench.Counts{Answered: 100}},
		},
		GeneratorCores: 0.5, Interrupted: true,
	}
}

const printed = `/run/r.sock  redis 7.0.15
50 connections, pipeline 16, values of 100 B, 1000 keys by Zipf 0.99, 90 %
reads, 1000 requests/s planned, 10s after 1s of warm-up
2 processors, Fast One, Linux 6, linux/amd64, go1, nearside v1

                per second      p50      p90      p99    p99.9     max     hits
           get         812  99.9 µs   999 µs  9.99 ms  99.9 ms  2.00 s  99.89 %
  from sending              12.3 µs  20.0 µs   100 µs   200 µs  300 µs
           set         100        –        –        –        –       –

3 requests that were planned had no answer until the end; they count as slow as
they were old.
The rate was not kept: 912 of 1000 a second were answered.
This process kept 0.50 processors busy.
It was interrupted: this is what was measured until then.
`

func TestMeasurementIsPrinted(t *testing.T) {
	var b strings.Builder
	require.NoError(t, aMeasurement().print(&b, outputText))
	require.Equal(t, printed, b.String())
	b.Reset()
	require.NoError(t, aMeasurement().print(&b, outputJSON))
	var back measurement
	require.NoError(t, json.Unmarshal([]byte(b.String()), &back))
	require.Equal(t, aMeasurement(), &back)
	require.Equal(t, 1, strings.Count(b.String(), "\n"), "one object in one line")
}

func TestWhatAMeasurementEndsWith(t *testing.T) {
	m := aMeasurement()
	require.NoError(t, m.end(io.Discard, outputText, nil, nil), "what a server did not manage is a result")
	m.Results[1].Errors = 7
	err := m.end(io.Discard, outputText, nil, &resp.ServerError{Text: "NOPERM no"})
	require.ErrorContains(t, err, "7 of 1000 requests were answered with an error, the first: NOPERM no")
	require.Equal(t, codeRefused, codeOf(err))
	broke := errors.New("broke")
	require.ErrorIs(t, m.end(io.Discard, outputText, broke, nil), broke)

	m.Results = []bench.Result{{Name: "get", Counts: bench.Counts{Unanswered: 50}}}
	require.NoError(t, m.end(io.Discard, outputText, nil, nil))
	m.Load.Rate = 0
	err = m.end(io.Discard, outputText, nil, nil)
	require.Equal(t, codeUnreachable, codeOf(err), err)

	m.Results = nil
	require.ErrorIs(t, m.end(io.Discard, outputText, nil, nil), errNothing)
	require.ErrorIs(t, m.end(io.Discard, outputText, broke, nil), broke)
}

func TestProgressLine(t *testing.T) {
	c := bench.Counts{Answered: 30, Hits: 10, Misses: 10}
	require.Equal(t, "1s  warming up", describeProgress(1020*time.Millisecond, 2*time.Second, c, 5))
	require.Equal(t, "3s  5/s  hits 50.0 %", describeProgress(3020*time.Millisecond, 2*time.Second, c, 5))
	require.Equal(t, "3s  5/s  errors 2", describeProgress(3020*time.Millisecond, 0, bench.Counts{Errors: 2}, 5))
}

// settings.Read sets every flag that was given to its own text again.
func TestSocketsReadBackWhatTheyAre(t *testing.T) {
	var s sockets
	for _, one := range []string{"a", "b,c", "a"} {
		require.NoError(t, s.Set(one))
	}
	require.Equal(t, sockets{"a", "b,c", "a"}, s)
	require.NoError(t, s.Set(s.String()))
	require.Equal(t, sockets{"a", "b,c", "a"}, s)
	require.Empty(t, new(sockets).String())
}
