package nearside_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/sdk/go/nearside"
)

// conversation is what a good sidecar sends to a client with an L0 that reads a key.
func conversation() []byte {
	b := near.Append(nil, near.KindHello.Answer(), 1, &near.Welcome{Version: 1, BootID: bootID(), Clock: elapsed()})
	b = near.Append(b, near.KindTrack.Answer(), 2, &near.Fresh{AsOf: elapsed(), Applied: "1-0-1"})
	b = near.Append(b, near.KindFresh, 0, &near.Fresh{AsOf: elapsed(), Applied: "1-0-1"})
	return near.Append(b, near.KindGet.Answer(), 3, &near.Value{Status: near.Hit, Value: []byte("v"), Bound: time.Hour})
}

// broken dials a sidecar that sends some bytes, whatever it is asked, and then closes
// the connection, or says nothing more. refuse: the next ones are not taken.
func broken(say []byte, closes bool) (dial func(context.Context) (net.Conn, error)) {
	used := false
	return func(context.Context) (net.Conn, error) {
		if used {
			return nil, errors.New("refused")
		}
		used = true
		client, server := net.Pipe()
		go func() {
			go io.Copy(io.Discard, server)
			server.Write(say)
			if closes {
				server.Close()
			}
		}()
		return client, nil
	}
}

// Whatever a sidecar sends, and wherever it stops, a caller gets its answer or an error
// in time, and the loader's value in any case (I14).
func TestBrokenSidecars(t *testing.T) {
	whole := conversation()
	cases := map[string][]byte{
		"HTTP":                  []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
		"RESP":                  []byte("-ERR unknown command\r\n"),
		"an answer to nobody":   near.Append(nil, near.KindGet.Answer(), 9, &near.Value{}),
		"a request":             near.Append(nil, near.KindGet, 1, &near.Get{}),
		"another kind":          near.Append(nil, near.KindPing.Answer(), 1, &near.Pong{}),
		"another version":       near.Append(nil, near.KindHello.Answer(), 1, &near.Welcome{Version: 2}),
		"no version":            near.Append(nil, near.KindHello.Answer(), 1, &near.Welcome{}),
		"a refusal":             near.Append(nil, near.KindError, 1, &near.Error{Code: near.NoVersion, Message: "1 to 1"}),
		"a goodbye":             near.Append(nil, near.KindGoodbye, 0, &near.Goodbye{Error: near.Error{Code: near.Ending}}),
		"a huge frame":          {near.Magic, 0x41, 0, 0, 0, 1, 0x3f, 0xff, 0xff, 0xff},
		"a body that is none":   {near.Magic, 0x41, 0, 0, 0, 1, 0, 0, 0, 1, 0xc1},
		"an error that is none": {near.Magic, 0x40, 0, 0, 0, 1, 0, 0, 0, 1, 0xc1},
	}
	for i := range whole {
		cases[string(rune(i))+" bytes"] = whole[:i]
	}
	r := rand.New(rand.NewPCG(7, 7))
	for i := range 200 {
		b := bytes.Clone(whole)
		for range 1 + r.IntN(3) {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
		cases[string(rune(i))+" spoilt"] = b
	}
	for name, say := range cases {
		for _, closes := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				c, err := nearside.Open(nearside.Options{L0: &nearside.L0Options{}, Clock: elapsed, Dial: broken(say, closes)})
				require.NoError(t, err)
				defer c.Close()
				s := &source{value: "loaded"}
				before := time.Now()
				_, err = nearside.GetOrLoad(t.Context(), c, "k", s.from())
				require.NoError(t, err, name)
				require.LessOrEqual(t, time.Since(before), 2*time.Second, name)
				before = time.Now()
				_, err = c.Invalidate(t.Context(), nearside.Key("k", 1))
				require.Error(t, err, name)
				require.LessOrEqual(t, time.Since(before), 6*time.Second, name)
			})
		}
	}
}

// A sidecar that does not read holds nobody up.
func TestSidecarThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		greeted := make(chan struct{})
		c, err := nearside.Open(nearside.Options{Connections: 1, Clock: elapsed, Dial: func(context.Context) (net.Conn, error) {
			select {
			case <-greeted:
				return nil, errors.New("refused")
			default:
			}
			client, server := net.Pipe()
			go func() {
				server.Read(make([]byte, 4096))
				server.Write(near.Append(nil, near.KindHello.Answer(), 1, &near.Welcome{Version: 1}))
				close(greeted)
			}()
			return client, nil
		}})
		require.NoError(t, err)
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		before := time.Now()
		_, err = c.Get(ctx, "k", nearside.Wait(time.Hour))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Millisecond, time.Since(before))
		_, err = c.Get(t.Context(), "k", nearside.Wait(time.Hour))
		require.ErrorIs(t, err, nearside.ErrUnavailable)
		require.LessOrEqual(t, time.Since(before), time.Second)
	})
}

// What a connection holds of requests without answers is bounded.
func TestRequestsUnderWayAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.hooked(func(_ *peer, h near.Header, _ near.Message) bool {
			return h.Kind == near.KindGet || h.Kind == near.KindUpdate
		})
		c := f.open(t, nearside.Options{Connections: 1, Timeout: time.Hour})
		_, err := c.Barrier(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		for range 8192 {
			go c.Get(ctx, "k")
		}
		synctest.Wait()
		_, err = c.Get(t.Context(), "k")
		require.ErrorIs(t, err, nearside.ErrUnavailable)
		require.ErrorContains(t, err, "too much is under way")
		cancel()

		stuck := f.open(t, nearside.Options{Connections: 1, Timeout: time.Hour, WriteTimeout: time.Second})
		_, err = stuck.Barrier(t.Context())
		require.NoError(t, err)
		gate := make(chan struct{})
		defer close(gate)
		// The fake reads no more than what is under way.
		f.hooked(func(*peer, near.Header, near.Message) bool { <-gate; return true })
		for range 2 { // one has been read, one is being written
			go stuck.Update(t.Context(), nearside.Update{Key: "k", Version: 1, Value: make([]byte, 1<<20)})
			synctest.Wait()
		}
		for range 20 {
			go stuck.Update(t.Context(), nearside.Update{Key: "k", Version: 1, Value: make([]byte, 1<<20)})
		}
		synctest.Wait()
		_, err = stuck.Get(t.Context(), "k")
		require.ErrorContains(t, err, "too much is under way")
	})
}

// Frames are the same, however their bytes come.
func TestFramesInPieces(t *testing.T) {
	var all []byte
	r := rand.New(rand.NewPCG(1, 2))
	sizes := []int{0, 1, 1000, 64 << 10, 64<<10 - 30, 300 << 10, 3 << 20, 5}
	for i, n := range sizes {
		v := make([]byte, n)
		for j := range v {
			v[j] = byte(r.Uint32())
		}
		all = near.Append(all, near.KindGet.Answer(), uint32(i+1), &near.Value{Status: near.Hit, Value: v})
	}
	for name, in := range map[string]io.Reader{
		"whole": bytes.NewReader(all), "halves": iotest.HalfReader(bytes.NewReader(all)), "data with EOF": iotest.DataErrReader(bytes.NewReader(all)),
	} {
		frames, rest := nearside.Frames(in, near.MaxFrame), all
		for range sizes {
			h, body, err := frames()
			require.NoError(t, err, name)
			want, wantBody, err := near.Next(rest)
			require.NoError(t, err)
			require.Equal(t, want, h, name)
			require.True(t, bytes.Equal(wantBody, body), name)
			rest = rest[h.Size():]
		}
		_, _, err := frames()
		require.ErrorIs(t, err, io.EOF, name)
	}
	_, _, err := nearside.Frames(bytes.NewReader(all[:5]), near.MaxFrame)()
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

// What a header announces is not believed before it comes.
func TestAnnouncedFramesTakeNoMemory(t *testing.T) {
	head := []byte{near.Magic, 0x43, 0, 0, 0, 1, 0x3f, 0xff, 0xff, 0xff}
	_, _, err := nearside.Frames(bytes.NewReader(head), 16<<20)()
	require.ErrorIs(t, err, near.ErrFraming)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err = nearside.Frames(io.MultiReader(bytes.NewReader(head), bytes.NewReader(make([]byte, 10<<10))), near.MaxFrame)()
	runtime.ReadMemStats(&after)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4<<20))
}

// The reader of frames finds the same as the codec, in whatever it is given.
func FuzzFrames(f *testing.F) {
	f.Add(conversation())
	f.Add([]byte("HTTP/1.1 400"))
	f.Add([]byte{near.Magic, 0x43, 0, 0, 0, 1, 0x3f, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		frames, rest := nearside.Frames(iotest.HalfReader(bytes.NewReader(b)), 1<<20), b
		for {
			h, body, err := frames()
			want, wantBody, wantErr := near.Next(rest)
			if err != nil {
				if wantErr == nil && want.Length <= 1<<20 {
					t.Fatalf("%v, and there is a frame", err)
				}
				return
			}
			if wantErr != nil || want != h || !bytes.Equal(body, wantBody) {
				t.Fatalf("%v: %v, want %v", h, wantErr, want)
			}
			rest = rest[h.Size():]
		}
	})
}
