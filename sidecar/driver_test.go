package sidecar_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// withDriver is start with a driver of the test's choice.
func withDriver(t testing.TB, driver string) *sidecartest.Sidecar {
	s, _ := start(t, func(c *sidecar.Config) { c.Driver = driver })
	return s
}

func TestUnknownDriver(t *testing.T) {
	cfg := config(t)
	cfg.Driver = "horse"
	_, err := sidecar.Listen(cfg)
	require.ErrorContains(t, err, `driver is "horse"`)
}

// randomCommands are some whose answers do not depend on the time.
func randomCommands(r *rand.Rand) []byte {
	var in []byte
	for range 100 {
		key := fmt.Sprintf("k%d", r.IntN(20))
		switch r.IntN(12) {
		case 0, 1, 2:
			in = resp.AppendCommand(in, "GET", key)
		case 3, 4:
			in = resp.AppendCommand(in, "SET", key, strings.Repeat(key, r.IntN(1<<r.IntN(16))))
		case 5:
			in = resp.AppendCommand(in, "MGET", key, "k0", "k1", "k2")
		case 6:
			in = resp.AppendCommand(in, "DEL", key)
		case 7:
			in = append(in, "PING "+key+"\r\n"...)
		case 8:
			in = resp.AppendCommand(in, "ECHO", strings.Repeat("e", r.IntN(100_000)))
		case 9:
			in = resp.AppendCommand(in, "MULTI")
			in = resp.AppendCommand(in, "DEL", key)
			in = resp.AppendCommand(in, "GET", key)
			in = resp.AppendCommand(in, "EXEC")
		case 10:
			in = resp.AppendCommand(in, "SET", key, strings.Repeat("too large", 1<<17))
		default:
			in = resp.AppendCommand(in, "NONSENSE", key)
		}
	}
	return resp.AppendCommand(in, "QUIT")
}

// Answers do not depend on the driver, nor on how the input is cut.
func TestCutsAndDriversMakeNoDifference(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 2 {
		in := randomCommands(r)
		var want string
		for _, driver := range sidecar.Drivers {
			for _, longest := range []int{len(in), 60_000, 4000} {
				c := dialRaw(t, withDriver(t, driver))
				var writer sync.WaitGroup
				writer.Go(func() {
					for rest := in; len(rest) > 0; {
						n := min(len(rest), 1+r.IntN(longest))
						if _, err := c.Write(rest[:n]); err != nil {
							t.Error(err)
							return
						}
						rest = rest[n:]
						runtime.Gosched()
					}
				})
				got := c.rest()
				writer.Wait()
				if want == "" {
					want = got
				}
				require.Equal(t, want, got, "%s, pieces of at most %d", driver, longest)
			}
		}
	}
}

// More processors have more loops, which share the connections.
func TestManyLoops(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(6))
	s, _ := start(t, nil)
	var clients sync.WaitGroup
	for i := range 24 {
		c := s.Dial(t)
		clients.Go(func() {
			for n := range 50 {
				key := fmt.Sprintf("k%d", i%8)
				if got := c.Do("SET", key, "v").Str; got != "OK" {
					t.Error(got)
				}
				if n%10 == 0 {
					c.Do("DEL", key)
				}
				c.Do("GET", key)
			}
		})
	}
	clients.Wait()
	s.Stop(t)
}

// A sidecar that can open no file goes on serving, and accepts who waits when it can.
func TestNoFilesToAcceptWith(t *testing.T) {
	s, _ := start(t, nil)
	served := s.Dial(t)
	require.Equal(t, "PONG", served.Do("PING").Str)
	var before unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &before))
	restore := sync.OnceFunc(func() { require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &before)) })
	defer restore()
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 256, Max: before.Max}))
	var taken []*os.File
	defer func() {
		for _, f := range taken {
			f.Close()
		}
	}()
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			require.ErrorIs(t, err, unix.EMFILE)
			break
		}
		taken = append(taken, f)
	}
	last := len(taken) - 1
	require.NoError(t, taken[last].Close())
	taken = slices.Delete(taken, last, last+1)
	waiting := dialRaw(t, s) // has the last one
	waiting.send("PING\r\n")
	for range 100 {
		require.Equal(t, "PONG", served.Do("PING").Str)
	}
	require.NoError(t, waiting.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
	_, err := waiting.r.ReadByte()
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	restore()
	require.NoError(t, waiting.SetReadDeadline(time.Now().Add(sidecartest.Wait)))
	require.Equal(t, "+PONG", waiting.line())
}

// TCP is served as the socket is.
func TestLargeValuesOverTCP(t *testing.T) {
	s, _ := start(t, func(c *sidecar.Config) { c.TCP = "127.0.0.1:0" })
	c := sidecartest.Dial(t, s.TCPAddr())
	value := strings.Repeat("v", 1<<20)
	require.Equal(t, "OK", c.Do("SET", "k", value).Str)
	require.Equal(t, value, c.Do("GET", "k").Str)
	require.Equal(t, int64(1), c.Do("DEL", "k").Int)
}

// A client that sends and then says that it will send no more is answered.
func TestHalfClosed(t *testing.T) {
	s, _ := start(t, nil)
	c := dialRaw(t, s)
	c.send(strings.Repeat("PING\r\n", 10_000) + "DEL k\r\n")
	require.NoError(t, c.Conn.(interface{ CloseWrite() error }).CloseWrite())
	got, err := io.ReadAll(c.r)
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("+PONG\r\n", 10_000)+":0\r\n", string(got))
	await(t, s, closed("client"), 1)
}
