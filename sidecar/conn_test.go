package sidecar_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api"
	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// A command that is not completed in time ends its connection, and says so.
func TestHalfACommandAndSilence(t *testing.T) {
	s, _ := start(t, func(c *sidecar.Config) { c.FrameTimeout = 50 * time.Millisecond })
	for i, half := range []string{"*2\r\n$3\r\nGET\r\n$1\r\n", "*1\r\n", "*", "PIN", "*2\r\n$4\r\nECHO\r\n$9000000\r\nrefused and", "PING\r\n*1\r\n$4\r\nPI"} {
		c := dialRaw(t, s)
		c.send(half)
		if strings.HasPrefix(half, "PING") {
			require.Equal(t, "+PONG", c.line())
		}
		require.Equal(t, "-ERR Protocol error: the command was not completed in time\r\n", c.rest(), half)
		await(t, s, closed("half-command"), float64(i+1))
	}
	await(t, s, connections, 0)
}

// The time is counted from a command's own first byte: a client whose every write
// ends inside a command is not slow.
func TestStreamOfPiecesIsNoHalfCommand(t *testing.T) {
	const timeout = 100 * time.Millisecond
	s, _ := start(t, func(c *sidecar.Config) { c.FrameTimeout = timeout })
	c := dialRaw(t, s)
	c.send("*1\r\n$4\r\nPI")
	for begun := time.Now(); time.Since(begun) < 3*timeout; {
		c.send("NG\r\n*1\r\n$4\r\nPI")
		require.Equal(t, "+PONG", c.line())
	}
	require.Contains(t, c.rest(), "not completed in time")
}

func TestIdleConnectionStays(t *testing.T) {
	s, _ := start(t, func(c *sidecar.Config) { c.FrameTimeout = 20 * time.Millisecond })
	c := dialRaw(t, s)
	c.send("*1\r\n$4\r\nPI")
	c.send("NG\r\n")
	require.Equal(t, "+PONG", c.line())
	require.NoError(t, c.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
	_, err := c.r.ReadByte()
	require.ErrorContains(t, err, "timeout", "neither closed nor told anything")
	require.NoError(t, c.SetReadDeadline(time.Now().Add(sidecartest.Wait)))
	c.send("PING\r\n")
	require.Equal(t, "+PONG", c.line())
}

// What is pushed meanwhile gives a half command no more time.
func TestPushesDoNotExtendTheTime(t *testing.T) {
	s, b := start(t, func(c *sidecar.Config) { c.FrameTimeout = 100 * time.Millisecond })
	c := dialRaw(t, s)
	c.send("HELLO 3\r\nNEAR.WATCH\r\n*1\r\n$4\r\nPI")
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			_, _ = b.Publish(ctx, "ns", bus.Event{Keys: []bus.KeyVersion{{Key: "ns:k"}}})
			time.Sleep(time.Millisecond)
		}
	}()
	require.Contains(t, c.rest(), "not completed in time")
	stop()
	<-ended
}

func TestSlowReaderIsClosed(t *testing.T) {
	s, _ := start(t, func(c *sidecar.Config) { c.WriteTimeout = 50 * time.Millisecond })
	require.Equal(t, "OK", s.Dial(t).Do("SET", "k", strings.Repeat("v", 1<<20)).Str)
	c := dialRaw(t, s)
	c.send(strings.Repeat("GET k\r\n", 20))
	await(t, s, closed("slow-reader"), 1)
	require.Less(t, len(c.rest()), 20<<20)
}

func TestMaxConnections(t *testing.T) {
	s, _ := start(t, func(c *sidecar.Config) { c.MaxConnections = 2 })
	a, b := dialRaw(t, s), dialRaw(t, s)
	for _, c := range []*raw{a, b} {
		c.send("PING\r\n")
		require.Equal(t, "+PONG", c.line())
	}
	require.Equal(t, "-ERR max number of clients reached (2): raise --max-connections\r\n", dialRaw(t, s).rest())
	await(t, s, closed("refused"), 1)
	a.Close()
	await(t, s, connections, 1)
	require.Eventually(t, func() bool {
		c := dialRaw(t, s)
		defer c.Close()
		if _, err := c.Write([]byte("PING\r\n")); err != nil {
			return false
		}
		l, err := c.r.ReadString('\n')
		return err == nil && l == "+PONG\r\n"
	}, sidecartest.Wait, time.Millisecond)
}

// An announced length takes no memory before as much has come.
func TestAnnouncedLengthsTakeNoMemory(t *testing.T) {
	s, _ := start(t, nil)
	clients := make([]*raw, 200)
	for i := range clients {
		clients[i] = dialRaw(t, s)
		clients[i].send("PING\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1048576\r\n")
	}
	for _, c := range clients {
		require.Equal(t, "+PONG", c.line())
	}
	require.LessOrEqual(t, metric(t, s, "nearside_buffer_bytes"), float64(len(clients)*(32<<10)))
}

// The buffers of all connections together are bounded (I15): who finds no room is
// told so, and the others are served.
func TestBuffersExhausted(t *testing.T) {
	const limit = 32 << 20
	s, _ := start(t, func(c *sidecar.Config) { c.Memory = 8 << 20 })
	const n = 5
	value := strings.Repeat("v", 1<<20)
	half := "*23\r\n$4\r\nMSET\r\n" + strings.Repeat("$1\r\nk\r\n$1048576\r\n"+value+"\r\n", 10) + "$1\r\nk\r\n$1048576\r\n"
	answers, settled, finish := make(chan string, n), make(chan struct{}, n), make(chan struct{})
	for range n {
		c := dialRaw(t, s)
		go func() {
			_, err := c.Write([]byte(half)) // fails when refused
			settled <- struct{}{}
			if <-finish; err == nil {
				_, _ = c.Write([]byte(value + "\r\n"))
			}
			l, _ := c.r.ReadString('\n')
			answers <- l
		}()
	}
	for range n {
		require.LessOrEqual(t, metric(t, s, "nearside_buffer_bytes"), float64(limit))
		<-settled
	}
	require.Equal(t, "PONG", s.Dial(t).Do("PING").Str, "small commands always find room")
	close(finish)
	refusals := 0
	for range n {
		if l := <-answers; l != "+OK\r\n" {
			require.Equal(t, "-ERR the memory for buffers is exhausted by all clients together; try again, or raise --memory\r\n", l)
			refusals++
		}
	}
	require.Positive(t, refusals, "five times ten values are more than fit")
	require.Less(t, refusals, n)
	await(t, s, closed("buffers"), float64(refusals))
}

// What idle connections keep for their next answer does not crowd out others.
func TestIdleBuffersAreGivenBack(t *testing.T) {
	s, _ := start(t, nil)
	require.Equal(t, "OK", s.Dial(t).Do("SET", "k", strings.Repeat("v", 60_000)).Str)
	for range 800 {
		require.Len(t, s.Dial(t).Do("GET", "k").Str, 60_000)
	}
	require.LessOrEqual(t, metric(t, s, "nearside_buffer_bytes"), float64(17<<20))
	require.Zero(t, metric(t, s, closed("buffers")))
}

func TestLargestValue(t *testing.T) {
	s, _ := start(t, nil)
	c := s.Dial(t)
	value := strings.Repeat("0123456789abcdef", api.DefaultMaxValue/16)
	require.Equal(t, "OK", c.Do("SET", "k", value).Str)
	require.Equal(t, value, c.Do("GET", "k").Str)
	r := c.Do("SET", "k", value+"x")
	require.Equal(t, resp.KindError, r.Kind)
	require.Equal(t, "ERR argument 2 of the command has 1048577 bytes, the limit is 1048576", r.Str)
	require.Equal(t, value, c.Do("GET", "k").Str, "the connection lives")
}

func TestByteAtATime(t *testing.T) {
	s, _ := start(t, nil)
	c := dialRaw(t, s)
	for _, b := range []byte("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nh\r\nlo\r\nGET k\r\n*2\r\n$3\r\nDEL\r\n$1\r\nk\r\nQUIT\r\n") {
		c.send(string(b))
	}
	require.Equal(t, "+OK\r\n$5\r\nh\r\nlo\r\n:1\r\n+OK\r\n", c.rest())
	await(t, s, closed("client"), 1)
}

func TestDeepPipeline(t *testing.T) {
	s, _ := start(t, nil)
	const n = 3000
	commands := make([][]string, 0, 2*n)
	for i := range n {
		commands = append(commands, []string{"SET", fmt.Sprintf("k%d", i), strconv.Itoa(i)}, []string{"GET", fmt.Sprintf("k%d", i)})
	}
	commands[n] = []string{"DEL", "nothing"}
	ctx, cancel := context.WithTimeout(context.Background(), sidecartest.Wait)
	defer cancel()
	replies, err := s.Dial(t).Pipeline(ctx, commands...)
	require.NoError(t, err)
	for i := range n {
		if 2*i != n {
			require.Equal(t, "OK", replies[2*i].Str)
			require.Equal(t, strconv.Itoa(i), replies[2*i+1].Str)
		}
	}
	require.Equal(t, resp.KindInt, replies[n].Kind)
}

// Each protocol error ends its own connection only.
func TestNoiseEndsItsConnection(t *testing.T) {
	s, _ := start(t, nil)
	other := s.Dial(t)
	for i, noise := range []string{"*1\r\n!", "*99999999999\r\n", "*1\r\n*1\r\n", strings.Repeat("\xff\x00", 40_000)} {
		c := dialRaw(t, s)
		_, _ = c.Write([]byte(noise)) // the end may come before all is sent
		require.Contains(t, c.rest(), "-ERR Protocol error: ")
		await(t, s, closed("bad-input"), float64(i+1))
	}
	require.Equal(t, "PONG", other.Do("PING").Str)
}

func TestWatchOverTheSocket(t *testing.T) {
	s, b := start(t, nil)
	publish := func(key string) {
		t.Helper()
		p, err := b.Publish(t.Context(), "ns", bus.Event{Keys: []bus.KeyVersion{{Key: key}}})
		require.NoError(t, err)
		s.AwaitApplied(t, p)
	}
	for _, stop := range []string{"RESET", "HELLO 2"} {
		c := dialRaw(t, s)
		c.send("HELLO 3\r\n")
		_, err := resp.ReadReply(c.r, resp.ReplyLimits{})
		require.NoError(t, err)
		c.send("NEAR.WATCH\r\n")
		require.Equal(t, "+OK", c.line())
		for range 3 {
			publish("ns:seen") // while the connection is idle
			r, err := resp.ReadReply(c.r, resp.ReplyLimits{})
			require.NoError(t, err)
			require.Equal(t, resp.KindPush, r.Kind)
			require.Contains(t, r.Elems[1].Str, `"ns:seen"`)
		}
		c.send(stop + "\r\n")
		r, err := resp.ReadReply(c.r, resp.ReplyLimits{})
		require.NoError(t, err)
		require.Contains(t, []resp.Kind{resp.KindSimple, resp.KindArray}, r.Kind)
		publish("ns:unseen")
		c.send("PING\r\n")
		require.Equal(t, "+PONG", c.line())
	}
	gone := dialRaw(t, s)
	gone.send("HELLO 3\r\nNEAR.WATCH\r\n")
	await(t, s, connections, 3)
	gone.Close()
	await(t, s, connections, 2)
	publish("ns:nobody")
}
