package sidecar_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/membus"
	"github.com/nearside-cache/nearside/sidecar"
	"github.com/nearside-cache/nearside/sidecar/clock"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

func TestShutdownWhileIdle(t *testing.T) {
	s, _ := start(t, nil)
	c := dialRaw(t, s)
	c.send("PING\r\n")
	require.Equal(t, "+PONG", c.line())
	begun := time.Now()
	s.Stop(t)
	require.Less(t, time.Since(begun), time.Second, "nobody waits for an idle client")
	require.Empty(t, c.rest())
	require.NoFileExists(t, s.Socket)
	s.Stop(t)
}

// What a client has got an answer to is done, and no answer is torn.
func TestShutdownWhileBusy(t *testing.T) {
	s, _ := start(t, nil)
	s.Dial(t).Do("SET", "k", strings.Repeat("v", 10_000))
	var clients sync.WaitGroup
	started := make(chan struct{}, 8)
	for range cap(started) {
		c := dialRaw(t, s)
		clients.Go(func() {
			for i := 0; ; i++ {
				if _, err := io.WriteString(c, strings.Repeat("GET k\r\n", 50)); err != nil {
					return
				}
				for range 50 {
					r, err := resp.ReadReply(c.r, resp.ReplyLimits{})
					if err != nil {
						require.NotErrorIs(t, err, io.ErrUnexpectedEOF, "a torn answer")
						return
					}
					require.Len(t, r.Str, 10_000)
				}
				if i == 3 {
					started <- struct{}{}
				}
			}
		})
	}
	for range cap(started) {
		<-started
	}
	s.Stop(t)
	clients.Wait()
}

// parked begins a DEL that waits for the stream.
func parked(t testing.TB, s *sidecartest.Sidecar, b *membus.Bus) *raw {
	t.Helper()
	b.Disconnect()
	c := dialRaw(t, s)
	c.send("PING\r\nDEL k\r\nPING\r\n")
	require.Equal(t, "+PONG", c.line())
	await(t, s, "nearside_publishes_total", 1)
	return c
}

func TestShutdownWithAParkedInvalidation(t *testing.T) {
	s, b := start(t, func(c *sidecar.Config) { c.DrainTimeout, c.PublishTimeout = 100*time.Millisecond, time.Minute })
	c := parked(t, s, b)
	begun := time.Now()
	s.Stop(t)
	require.Less(t, time.Since(begun), 5*time.Second)
	require.NotContains(t, c.rest(), ":0", "it was not acknowledged")
}

// A drain answers what it can within its time.
func TestDrainAnswersAParkedInvalidation(t *testing.T) {
	s, b := start(t, func(c *sidecar.Config) { c.DrainTimeout = sidecartest.Wait })
	c := parked(t, s, b)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Stop(t)
	}()
	require.Eventually(t, func() bool {
		code, body := fetch(t, s, "/readyz")
		return code == http.StatusServiceUnavailable && body == "not ready: draining\n"
	}, sidecartest.Wait, time.Millisecond)
	_, err := net.Dial("unix", s.Socket)
	require.Error(t, err, "no new clients")
	b.Reconnect()
	require.Equal(t, ":0\r\n+PONG\r\n", c.rest())
	<-ended
}

func TestClientGoneMidCommand(t *testing.T) {
	s, b := start(t, func(c *sidecar.Config) { c.PublishTimeout = 50 * time.Millisecond })
	half := dialRaw(t, s)
	half.send("*2\r\n$3\r\nGET\r\n$1000\r\nabc")
	await(t, s, connections, 1)
	half.Close()
	await(t, s, connections, 0)
	waits := parked(t, s, b)
	waits.Close()
	await(t, s, connections, 0)
	b.Reconnect()
	unread := dialRaw(t, s)
	unread.send(strings.Repeat("PING\r\n", 1000))
	unread.Close()
	await(t, s, connections, 0)
	require.Zero(t, metric(t, s, "nearside_buffer_bytes"))
	require.Equal(t, "PONG", s.Dial(t).Do("PING").Str)
}

func TestHundredsOfConnectionsComeAndGo(t *testing.T) {
	s, _ := start(t, nil)
	var clients sync.WaitGroup
	for range 200 {
		clients.Go(func() {
			c := dialRaw(t, s)
			defer c.Close()
			if _, err := io.WriteString(c, "SET k v\r\nGET k\r\nDEL k\r\n"); err != nil {
				t.Error(err)
			}
			for range 3 {
				if _, err := resp.ReadReply(c.r, resp.ReplyLimits{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	clients.Wait()
	await(t, s, connections, 0)
	require.Equal(t, 200.0, metric(t, s, "nearside_connections_accepted_total"))
	require.Equal(t, 200.0, metric(t, s, closed("client"))+metric(t, s, closed("error")))
}

// brokenBus cannot be followed for good.
type brokenBus struct{ bus.Bus }

var errUnfit = errors.New("bad stream")

func (brokenBus) Follow(context.Context, bus.Handler, bus.FollowConfig) error {
	return errors.Join(bus.ErrUnfit, errUnfit)
}

func TestRunEndsWithWhatFailedForGood(t *testing.T) {
	cfg := config(t)
	cfg.Bus = brokenBus{cfg.Bus}
	s, err := sidecar.Listen(cfg)
	require.NoError(t, err)
	err = s.Run(context.Background())
	require.ErrorIs(t, err, bus.ErrUnfit)
	require.ErrorIs(t, err, errUnfit)
	require.ErrorContains(t, err, "following the stream")
	require.NoFileExists(t, cfg.Socket)
}

func TestAdmin(t *testing.T) {
	b := attach(t)
	b.Disconnect()
	s := sidecartest.StartUnready(t, b, func(c *sidecar.Config) { c.Admin = "127.0.0.1:0" })
	code, body := fetch(t, s, "/readyz")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Equal(t, "not ready: the stream is not being followed yet\n", body)
	code, body = fetch(t, s, "/healthz")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "ok\n", body)
	require.True(t, s.Dial(t).Do("GET", "k").IsNull(), "clients are served as if there were no cache")
	require.Equal(t, "OK", s.Dial(t).Do("SET", "k", "v").Str)
	require.True(t, s.Dial(t).Do("GET", "k").IsNull())
	require.True(t, math.IsInf(metric(t, s, "nearside_fresh_age_seconds"), 1), "it was never fresh, and the machine's uptime is no age")
	near := s.Dial(t).Do("NEAR.GET", "k", "ANY").Elems
	require.Equal(t, "age_ms", near[len(near)-2].Str)
	require.Equal(t, int64(-1), near[len(near)-1].Int)

	b.Reconnect()
	s.AwaitReady(t)
	code, body = fetch(t, s, "/readyz")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "ready\n", body)
	require.Less(t, metric(t, s, "nearside_fresh_age_seconds"), 60.0)
	b.Disconnect()
	code, _ = fetch(t, s, "/readyz")
	require.Equal(t, http.StatusOK, code, "a cache bridges the loss of its broker")
	require.Zero(t, metric(t, s, "nearside_connected"))
	b.Reconnect()

	c := s.Dial(t)
	require.Equal(t, "STORED", c.Do("NEAR.FILL", "k", c.Do("NEAR.GET", "k").Elems[3].Str, "v").Str)
	c.Do("GET", "k")
	c.Do("DEL", "k")
	c.Do("NONSENSE")
	for name, want := range map[string]float64{
		"nearside_hits_total": 1, "nearside_misses_total": 4, `nearside_fills_total{verdict="stored"}`: 1, `nearside_fills_total{verdict="not-ready"}`: 1,
		"nearside_publishes_total": 1, "nearside_publish_errors_total": 0, "nearside_events_applied_total": 1, "nearside_unknown_commands_total": 1,
		"nearside_entries": 0, "nearside_connected": 1, `nearside_doubts_total{reason="hole"}`: 0, "nearside_stream_lag_seconds_count": 1,
		"nearside_protocol_errors_total": 0,
	} {
		require.Equal(t, want, metric(t, s, name), name)
	}
	before := float64(s.Applied().Seq) // pulses come at any time
	require.GreaterOrEqual(t, metric(t, s, "nearside_applied_seq"), before)
	require.GreaterOrEqual(t, float64(s.Applied().Seq), metric(t, s, "nearside_applied_seq"))
	code, _ = fetch(t, s, "/nothing")
	require.Equal(t, http.StatusNotFound, code)
}

func TestSetPolicies(t *testing.T) {
	s, _ := start(t, nil)
	p := policy.DefaultSet()
	p.Default.Set = "nonsense"
	require.ErrorContains(t, s.SetPolicies(p), `set is "nonsense"`)
	p = policy.DefaultSet()
	p.Window = time.Second
	require.ErrorContains(t, s.SetPolicies(p), "it can only change with a restart")
	p = policy.DefaultSet()
	p.Default.Set = policy.SetInvalidate
	require.NoError(t, s.SetPolicies(p))
	c := s.Dial(t)
	require.Equal(t, "OK", c.Do("SET", "k", "v").Str)
	require.True(t, c.Do("GET", "k").IsNull())
}

// judged tells how a plain SET would be judged by a sidecar that starts now on
// this socket.
func judged(t *testing.T, socket string, now *sidecartest.Clock) string {
	t.Helper()
	stream := sidecartest.NewStream(t)
	stream.Delete()
	b := stream.Attach(membus.Options{}) // creates it
	defer b.Close()
	s := sidecartest.Start(t, b, func(c *sidecar.Config) { c.Socket, c.Clock = socket, now.Now })
	defer s.Stop(t)
	r := s.Dial(t).Do("NEAR.EXPLAIN", "k")
	for i := 0; i < len(r.Elems); i += 2 {
		if r.Elems[i].Str == "plain_set" {
			return r.Elems[i+1].Str
		}
	}
	t.Fatal("no plain_set")
	return ""
}

// A sidecar knows whether clients of an earlier life on its socket may still come
// with what they loaded then (C3).
func TestLives(t *testing.T) {
	const (
		first   = "is judged by what was known one fill window ago"
		another = "readers of an earlier life may be under way|events before the start cannot be had"
	)
	socket := filepath.Join(sidecartest.Dir(t), "s")
	now := sidecartest.NewClock()
	require.Equal(t, first, judged(t, socket, now), "the first life")
	now.Advance(5 * time.Second)
	require.Regexp(t, another, judged(t, socket, now), "within a window")
	now.Advance(policy.DefaultWindow)
	require.Regexp(t, another, judged(t, socket, now), "the last beat may be some time before the end")
	now.Advance(policy.DefaultWindow + 3*time.Second)
	require.Equal(t, first, judged(t, socket, now), "long after")

	write := func(text string) { require.NoError(t, os.WriteFile(socket+".lock", []byte(text), 0o600)) }
	write("00000000-0000-0000-0000-000000000000 00000000003600000000000 0 0 0 0\n")
	require.Equal(t, first, judged(t, socket, now), "the machine was started since")
	for name, text := range map[string]string{
		"empty": "", "garbage": "\x00\xff nonsense", "cut off": clock.BootID(), "no number": clock.BootID() + " x\n",
		"in the future": clock.BootID() + " 09000000000000000000 0 0 0 0\n",
	} {
		write(text)
		require.Regexp(t, another, judged(t, socket, now), name)
	}
	require.Equal(t, clock.BootID(), strings.Fields(read(t, socket+".lock"))[0], "and is written anew")
}

// A sidecar that is started again on the stream that it followed before keeps
// plain SETs at once, however young the stream is; on another one it cannot know
// what it missed.
func TestLaterLifeOnTheSameStream(t *testing.T) {
	socket := filepath.Join(sidecartest.Dir(t), "s")
	explain := func(stream *membus.Stream) string {
		b := stream.Attach(membus.Options{})
		defer b.Close()
		s := sidecartest.Start(t, b, func(c *sidecar.Config) { c.Socket = socket })
		defer s.Stop(t)
		c := s.Dial(t)
		c.Do("SET", fmt.Sprint(s.Applied()), "v")
		return c.Do("NEAR.EXPLAIN", fmt.Sprint(s.Applied())).Elems[7].Str
	}
	stream := sidecartest.NewStream(t)
	other := stream.Attach(membus.Options{})
	defer other.Close() // it, and not the sidecar, created the stream
	require.Contains(t, explain(stream), "stored", "the first life")
	require.Contains(t, explain(stream), "stored", "the second life, on the same stream")
	require.NoError(t, os.Remove(socket+".lock"))
	require.Contains(t, explain(stream), "stored", "a first life again")
	stream.Recreate(1)
	require.Contains(t, explain(stream), "blind", "the stream was created again meanwhile")
}

// A life is on record before its first client can miss.
func TestLifeIsOnRecordFromTheFirstClient(t *testing.T) {
	s, _ := start(t, nil)
	s.Dial(t).Do("PING")
	require.NotEmpty(t, read(t, s.Socket+".lock"))
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

// config is that of a sidecar in a folder of its own.
func config(t *testing.T) sidecar.Config {
	t.Helper()
	cfg := sidecar.DefaultConfig()
	cfg.Socket = filepath.Join(sidecartest.Dir(t), "s")
	cfg.Admin = ""
	cfg.Driver = sidecartest.Driver
	cfg.Logger = hclog.NewNullLogger()
	cfg.Bus = attach(t)
	return cfg
}

// attach returns a bus on a stream of its own.
func attach(t *testing.T) *membus.Bus {
	b := sidecartest.NewStream(t).Attach(membus.Options{})
	t.Cleanup(func() { b.Close() })
	return b
}
