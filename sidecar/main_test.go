package sidecar_test

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/nearside-cache/nearside/bus/membus"
	"github.com/nearside-cache/nearside/sidecar"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// TestMain runs the suite with every driver of this system: what is asked for by -bench
// with the default one alone, and what is not about connections.
func TestMain(m *testing.M) { goleak.VerifyTestMain(withEachDriver{m}) }

// onceIsEnough matches tests for which it makes no difference how connections are
// driven, or that try each driver themselves.
const onceIsEnough = "^Test(Drill|Coherent|DelInOne|CutsAndDrivers|ManyLoops|Lives|LaterLife|HotKeys|RefreshEvent|ReadThrough|HerdOver|PlainHerd)"

type withEachDriver struct{ *testing.M }

func (w withEachDriver) Run() (code int) {
	flag.Parse()
	drivers := sidecar.Drivers
	if flag.Lookup("test.bench").Value.String() != "" {
		drivers = drivers[:1]
	}
	for _, sidecartest.Driver = range drivers {
		if c := w.M.Run(); c != 0 {
			fmt.Println("with driver", sidecartest.Driver)
			code = c
		}
		if err := flag.Set("test.skip", onceIsEnough); err != nil {
			panic(err) // that flag is the testing package's
		}
	}
	return code
}

// start runs a sidecar with an admin listener on a stream of its own.
func start(t testing.TB, change func(*sidecar.Config)) (*sidecartest.Sidecar, *membus.Bus) {
	t.Helper()
	b := sidecartest.NewStream(t).Attach(membus.Options{})
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return sidecartest.Start(t, b, func(c *sidecar.Config) {
		c.Admin = "127.0.0.1:0"
		if change != nil {
			change(c)
		}
	}), b
}

// fetch asks the admin listener.
func fetch(t testing.TB, s *sidecartest.Sidecar, path string) (code int, body string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: sidecartest.Wait}
	res, err := client.Get("http://" + s.AdminAddr() + path)
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(b)
}

// metric returns the value of a metric, named with its labels.
func metric(t testing.TB, s *sidecartest.Sidecar, name string) float64 {
	t.Helper()
	_, body := fetch(t, s, "/metrics")
	for line := range strings.Lines(body) {
		if text, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			require.NoError(t, err)
			return v
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// await waits until a metric has a value.
func await(t testing.TB, s *sidecartest.Sidecar, name string, want float64) {
	t.Helper()
	require.Eventually(t, func() bool { return metric(t, s, name) == want }, sidecartest.Wait, 2*time.Millisecond, "%s should become %v", name, want)
}

// closed is the metric of connections that ended for a reason.
func closed(reason string) string {
	return `nearside_connections_closed_total{reason="` + reason + `"}`
}

const connections = "nearside_connections"

// raw is a client that sends bytes.
type raw struct {
	net.Conn
	r *bufio.Reader
	t testing.TB
}

func dialRaw(t testing.TB, s *sidecartest.Sidecar) *raw {
	t.Helper()
	nc, err := net.Dial("unix", s.Socket)
	require.NoError(t, err)
	require.NoError(t, nc.SetDeadline(time.Now().Add(sidecartest.Wait)))
	t.Cleanup(func() { nc.Close() })
	return &raw{Conn: nc, r: bufio.NewReader(nc), t: t}
}

func (r *raw) send(text string) {
	r.t.Helper()
	_, err := io.WriteString(r, text)
	require.NoError(r.t, err)
}

func (r *raw) line() string {
	r.t.Helper()
	l, err := r.r.ReadString('\n')
	require.NoError(r.t, err)
	return strings.TrimSuffix(l, "\r\n")
}

// rest reads until the sidecar closes the connection. That it does so with input
// unread is no failure here.
func (r *raw) rest() string {
	r.t.Helper()
	b, err := io.ReadAll(r.r)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		require.NoError(r.t, err)
	}
	return string(b)
}
