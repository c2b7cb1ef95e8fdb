//go:build linux

package main

import (
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
)

// serve is a cache on a socket until the test ends.
func serve(t *testing.T) (socket string) {
	socket = filepath.Join(t.TempDir(), "s")
	var held sync.Map
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	var all sync.WaitGroup
	t.Cleanup(all.Wait)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { answer(conn, &held) })
		}
	})
	return socket
}

func answer(conn net.Conn, held *sync.Map) {
	defer conn.Close()
	d := resp.NewDecoder(resp.Limits{})
	var in, out []byte
	buf := make([]byte, 4<<10)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		in, out = append(in, buf[:n]...), out[:0]
		for {
			cmd, n, err := d.Next(in)
			in = in[n:]
			if err != nil {
				break
			}
			value, found := held.Load(string(cmd[1]))
			switch {
			case string(cmd[0]) == "GET" && found:
				out = resp.AppendBulkString(out, value.(string))
				continue
			case string(cmd[0]) == "GET":
				out = append(out, "$-1\r\n"...)
				continue
			case string(cmd[0]) == "SET":
				held.Store(string(cmd[1]), string(cmd[2]))
			default:
				held.Delete(string(cmd[1]))
			}
			out = append(out, "+OK\r\n"...)
		}
		if _, err := conn.Write(out); err != nil {
			return
		}
	}
}

// Cache-aside is measured as it is: a change makes readers load, and the origin counts
// them.
func TestMeasure(t *testing.T) {
	origin, err := serveOrigin(filepath.Join(t.TempDir(), "o"), time.Millisecond)
	require.NoError(t, err)
	defer func() { require.NoError(t, origin.close()) }()
	socket := serve(t)
	o := options{pods: 1, clients: 10, rate: 100, rounds: 1, quiet: 200 * time.Millisecond, storm: 500 * time.Millisecond, every: 50 * time.Millisecond}
	results, err := measureAll(t.Context(), o, origin, []arm{redisArm(socket)})
	require.NoError(t, err)
	require.Len(t, results, 1)
	r := results[0]
	require.NotEmpty(t, r.quiet.latencies)
	require.Zero(t, r.quiet.loads, "it was loaded before")
	require.InDelta(t, 10, r.storm.changes, 5)
	require.GreaterOrEqual(t, r.storm.loads, r.storm.changes/2)
	require.Equal(t, r.storm.loads, r.storm.aside)
	require.Len(t, r.storm.origin, int(r.storm.loads))

	text := table(o, results)
	require.Contains(t, text, "| cache-aside, Redis | **")
	require.Len(t, strings.Split(strings.TrimSpace(text), "\n"), 5)
}

func TestHistory(t *testing.T) {
	var h history
	began := time.Now()
	require.Zero(t, h.before(began.Add(time.Hour)))
	h.add(7)
	require.Zero(t, h.before(began))
	h.add(8)
	require.EqualValues(t, 8, h.before(time.Now().Add(time.Second)))
	require.EqualValues(t, 7, h.before(h.acks[1].at))
}

func TestRatiosAreWithinRounds(t *testing.T) {
	of := func(name string, round int, loads int64) result {
		return result{arm: name, round: round, storm: measurement{loads: loads, changes: 10}}
	}
	theirs := []result{of(redisName, 0, 100), of(redisName, 1, 1000), of(redisName, 2, 200)}
	ours := []result{of("nearside", 0, 10), of("nearside", 1, 10), of("nearside", 2, 10)}
	require.Equal(t, "**0.05** (0.01–0.1)", ratio(ours, theirs, result.perChange))
	require.Equal(t, "–", ratio(theirs, theirs, result.perChange))
	require.Equal(t, "–", ratio(ours, nil, result.perChange))
	require.InDelta(t, 2.5, median([]float64{4, 1, 2, 3}), 0)
	require.InDelta(t, 3, quantile([]time.Duration{1e6, 3e6, 2e6}, 0.99), 0)
	require.Zero(t, quantile(nil, 0.5))
}

func TestOptions(t *testing.T) {
	good := options{
		nearside: "nearside", pods: 10, clients: 1000, rate: 5, rounds: 3, quiet: time.Second, storm: time.Second, every: 100 * time.Millisecond, latency: time.Millisecond,
	}
	require.NoError(t, good.check())
	for name, change := range map[string]func(*options){
		"-nearside": func(o *options) { o.nearside = "" }, "-pods": func(o *options) { o.pods = 0 }, "-clients": func(o *options) { o.clients = 9 },
		"-rate": func(o *options) { o.rate = 0 }, "-rounds": func(o *options) { o.rounds = 101 }, "-quiet": func(o *options) { o.quiet = 0 },
		"-storm": func(o *options) { o.storm = o.every / 2 }, "-every": func(o *options) { o.every = time.Millisecond }, "-latency": func(o *options) { o.latency = -1 },
	} {
		bad := good
		change(&bad)
		require.ErrorContains(t, bad.check(), name)
	}
}
