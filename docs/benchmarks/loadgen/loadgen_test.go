//go:build linux

package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
)

// serve answers RESP on a socket until the test ends: GETs with what get
// returns, SETs with OK.
func serve(t *testing.T, get func(key string) []byte) (socket string) {
	socket = filepath.Join(t.TempDir(), "s")
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
			all.Go(func() { answer(conn, get) })
		}
	})
	return socket
}

func answer(conn net.Conn, get func(string) []byte) {
	defer conn.Close()
	d := resp.NewDecoder(resp.Limits{})
	var in, out []byte
	buf := make([]byte, 64<<10)
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
			if string(cmd[0]) == "GET" {
				out = append(out, get(string(cmd[1]))...)
			} else {
				out = resp.AppendSimple(out, "OK")
			}
		}
		if _, err := conn.Write(out); err != nil {
			return
		}
	}
}

func options100(t *testing.T, get func(string) []byte) (options, *protocol) {
	p, err := newProtocol("resp", "k", 100)
	require.NoError(t, err)
	if get == nil {
		get = func(string) []byte { return p.hit }
	}
	o := options{
		load: load{Conns: 5, Depth: 4, Size: 100, Keys: 10}, socket: serve(t, get),
		duration: 50 * time.Millisecond, warmup: time.Millisecond,
	}
	require.NoError(t, o.check())
	return o, p
}

func TestMeasure(t *testing.T) {
	o, p := options100(t, nil)
	o.pid = os.Getpid()
	require.NoError(t, fill(o, p))
	r, err := measure(o, p)
	require.NoError(t, err)
	require.Positive(t, r.OpsPerSecond)
	require.Positive(t, r.P50)
	require.GreaterOrEqual(t, r.P99, r.P50)
	require.GreaterOrEqual(t, r.Max, r.P99)
}

// A server that is fast because it has nothing is not measured.
func TestWhatIsNoHitIsAnError(t *testing.T) {
	for name, reply := range map[string]string{
		"miss": "$-1\r\n", "miss in RESP3": "_\r\n", "error": "-ERR no\r\n", "longer": "$1000\r\n" + strings.Repeat("x", 1000) + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			o, p := options100(t, func(string) []byte { return []byte(reply) })
			o.duration = time.Minute // ended by the error
			_, err := measure(o, p)
			require.Error(t, err)
		})
	}
	o, p := options100(t, func(key string) []byte {
		if strings.HasSuffix(key, "7") {
			return []byte("-ERR the value was not kept, and this line is long enough to be as long as a whole hit would have been: 0123456\r\n")
		}
		return []byte("$100\r\n" + strings.Repeat("x", 100) + "\r\n")
	})
	require.ErrorContains(t, fill(o, p), "get key 7 after its set")
}

func TestKeysAreThoseOfRedisBenchmark(t *testing.T) {
	p, err := newProtocol("resp", "key", 1)
	require.NoError(t, err)
	require.Equal(t, "key:000000000042", string(p.appendKey(nil, 42)))
	require.Equal(t, "key:000000000000", string(p.appendKey(nil, 0)))
	require.Equal(t, "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000042\r\n", string(p.appendGet(nil, 42)))
	cmd, n, err := resp.NewDecoder(resp.Limits{}).Next(p.set(7))
	require.NoError(t, err)
	require.Equal(t, len(p.set(7)), n)
	require.Equal(t, "SET key:000000000007 x EX 86400", string(bytes.Join(cmd, []byte(" "))))

	p, err = newProtocol("memcached", "key", 1)
	require.NoError(t, err)
	require.Equal(t, "mg key:000000000042 v\r\n", string(p.appendGet(nil, 42)))
	require.Equal(t, "ms key:000000000042 1 T86400\r\nx\r\n", string(p.set(42)))
	_, err = newProtocol("smtp", "key", 1)
	require.Error(t, err)
}

func TestOptionsAreBounded(t *testing.T) {
	good := options{load: load{Conns: 1, Depth: 1, Size: 1, Keys: 1}, duration: 1}
	require.NoError(t, good.check())
	for _, spoil := range []func(*options){
		func(o *options) { o.Conns = 0 }, func(o *options) { o.Conns = 10_001 },
		func(o *options) { o.Depth = 1001 }, func(o *options) { o.Size = 2 << 20 }, func(o *options) { o.Keys = -1 },
		func(o *options) { o.duration = 0 }, func(o *options) { o.duration = 2 * time.Hour }, func(o *options) { o.warmup = -1 },
	} {
		o := good
		spoil(&o)
		require.Error(t, o.check())
	}
}

func TestParseStat(t *testing.T) {
	used, err := parseStat([]byte("42 (a ) b) S 1 42 42 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 9 0"))
	require.NoError(t, err)
	require.Equal(t, 2*time.Second, used)
	for _, bad := range []string{"", "42 (a) S 1", "42 (a) S 1 42 42 0 -1 4194560 9 0 0 0 x 50 0"} {
		_, err := parseStat([]byte(bad))
		require.Error(t, err, bad)
	}
}

const results = `{"conns":50,"depth":16,"size":1024,"keys":9,"server":"redis","generator":"loadgen","round":1,"ops_per_second":1000000,"p50_us":100,"p99_us":200,"cpu_us":2}
{"conns":50,"depth":16,"size":1024,"keys":9,"server":"nearside","generator":"loadgen","round":1,"ops_per_second":1500000,"p50_us":80,"p99_us":100,"cpu_us":1}
{"conns":50,"depth":16,"size":1024,"keys":9,"server":"redis","generator":"loadgen","round":2,"ops_per_second":100000,"p50_us":100,"p99_us":200,"cpu_us":2}
{"conns":50,"depth":16,"size":1024,"keys":9,"server":"nearside","generator":"loadgen","round":2,"ops_per_second":200000,"p50_us":80,"p99_us":300,"cpu_us":1}
{"conns":50,"depth":1,"size":100,"keys":9,"server":"redis","generator":"redis-benchmark","round":1,"ops_per_second":5000,"p50_us":100,"p99_us":200}
`

func TestReport(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results")
	require.NoError(t, os.WriteFile(file, []byte(results), 0o600))
	picture := filepath.Join(t.TempDir(), "plot.svg")
	var b strings.Builder
	require.NoError(t, report(file, picture, &b))
	lines := strings.Split(b.String(), "\n")
	require.Equal(t, "| 50 × 16 × 1 KiB | loadgen | 550 k/s, 100 / 200 µs, CPU 2.00 µs | – | 850 k/s, 80 / 200 µs, CPU 1.00 µs "+
		"| **1.75** (1.50–2.00) | **1.00** (0.50–1.50) | **0.50** (0.50–0.50) | – | – | – |", lines[2])
	require.Equal(t, "| 50 × 1 × 100 B | redis-benchmark | 5 k/s, 100 / 200 µs | – | – | – | – | – | – | – | – |", lines[3])
	require.Equal(t, strings.Count(lines[0], "|"), strings.Count(lines[1], "|"))
	require.Equal(t, strings.Count(lines[0], "|"), strings.Count(lines[2], "|"))

	drawn, err := os.ReadFile(picture)
	require.NoError(t, err)
	require.Contains(t, string(drawn), "50 × 16 × 1 KiB, loadgen")
	require.Contains(t, string(drawn), "nearside: 1.75 (1.50–2.00)")
	require.NotContains(t, string(drawn), "redis-benchmark", "nothing to compare it with")

	require.ErrorIs(t, report(filepath.Join(t.TempDir(), "none"), "", io.Discard), os.ErrNotExist)
	require.NoError(t, os.WriteFile(file, []byte("{}\nx\n"), 0o600))
	require.Error(t, report(file, "", io.Discard))
}

func TestMedian(t *testing.T) {
	require.InDelta(t, 2, median([]float64{3, 1, 2}), 0)
	require.InDelta(t, 2.5, median([]float64{4, 1, 2, 3}), 0)
}

// A failure to connect says so.
func TestMeasureWithoutServer(t *testing.T) {
	o, p := options100(t, nil)
	o.socket += "none"
	_, err := measure(o, p)
	require.ErrorIs(t, err, os.ErrNotExist)
}
