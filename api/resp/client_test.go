package resp_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/nearside-cache/nearside/api/resp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve answers every command on conn with answer's bytes until it ends.
func serve(conn net.Conn, answer func(resp.Command) []byte) {
	defer conn.Close()
	d := resp.NewDecoder(resp.Limits{})
	var buf []byte
	for {
		cmd, n, err := d.Next(buf)
		switch {
		case err == nil:
			if _, err := conn.Write(answer(cmd)); err != nil {
				return
			}
		case !errors.Is(err, resp.ErrMore):
			return
		}
		buf = buf[n:]
		if err == nil {
			continue
		}
		piece := make([]byte, 4096+d.WantMore())
		n, err = conn.Read(piece)
		if err != nil {
			return
		}
		buf = append(buf, piece[:n]...)
	}
}

// dial returns a client of a server that gives these answers. Nothing is
// buffered between the two.
func dial(t *testing.T, c resp.ClientConfig, answer func(resp.Command) []byte) *resp.Client {
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		serve(far, answer)
	}()
	client := resp.NewClient(near, c)
	t.Cleanup(func() {
		require.NoError(t, client.Close())
		require.NoError(t, client.Close())
		<-done
	})
	return client
}

func echo(cmd resp.Command) []byte { return resp.AppendBulk(nil, cmd[len(cmd)-1]) }

func TestClientDo(t *testing.T) {
	c := dial(t, resp.ClientConfig{}, echo)
	big := strings.Repeat("x", 1<<20)
	for _, text := range []string{"", "a", "\r\n", big} {
		r, err := c.Do(t.Context(), "ECHO", text)
		require.NoError(t, err)
		require.Equal(t, bulk(text), r)
	}
}

func TestClientServerErrorLeavesConnection(t *testing.T) {
	c := dial(t, resp.ClientConfig{}, func(cmd resp.Command) []byte {
		return resp.AppendError(nil, "NOAUTH "+string(cmd[0]))
	})
	for range 2 {
		_, err := c.Do(t.Context(), "GET", "k")
		var failed *resp.ServerError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, "NOAUTH", failed.Code())
	}
	_, err := c.Pipeline(t.Context(), []string{"GET"}, nil)
	require.ErrorContains(t, err, "command 1 of the pipeline is empty")
}

// The connection buffers nothing, so writing all before reading would hang.
func TestClientPipeline(t *testing.T) {
	c := dial(t, resp.ClientConfig{}, echo)
	var commands [][]string
	for range 1000 {
		commands = append(commands, []string{"ECHO", strings.Repeat("x", len(commands))})
	}
	replies, err := c.Pipeline(t.Context(), commands...)
	require.NoError(t, err)
	for i, r := range replies {
		require.Equal(t, commands[i][1], r.Str)
	}
}

func TestClientPush(t *testing.T) {
	var pushed []resp.Reply
	answer := func(cmd resp.Command) []byte {
		out := resp.AppendBulkString(resp.RESP3.AppendPush(nil, 1), "invalidate")
		return resp.AppendBulk(out, cmd[0])
	}
	c := dial(t, resp.ClientConfig{OnPush: func(r resp.Reply) { pushed = append(pushed, r) }}, answer)
	r, err := c.Do(t.Context(), "PING")
	require.NoError(t, err)
	require.Equal(t, "PING", r.Str)
	require.Equal(t, []resp.Reply{{Kind: resp.KindPush, Elems: []resp.Reply{bulk("invalidate")}}}, pushed)

	r, err = dial(t, resp.ClientConfig{}, answer).Do(t.Context(), "PING")
	require.NoError(t, err)
	require.Equal(t, "PING", r.Str)
}

func push(text string) []byte {
	return resp.AppendBulkString(resp.RESP3.AppendPush(nil, 1), text)
}

// Pushes are received while no command is under way, several of one write too.
func TestClientWaitPush(t *testing.T) {
	var during []string
	onPush := func(r resp.Reply) { during = append(during, r.Elems[0].Str) }
	c := dial(t, resp.ClientConfig{OnPush: onPush}, func(resp.Command) []byte {
		out := resp.AppendSimple(push("before"), "OK")
		return append(append(out, push("first")...), push("second")...)
	})
	_, err := c.Do(t.Context(), "NEAR.WATCH")
	require.NoError(t, err)
	for _, want := range []string{"first", "second"} {
		r, err := c.WaitPush(t.Context())
		require.NoError(t, err)
		require.Equal(t, resp.Reply{Kind: resp.KindPush, Elems: []resp.Reply{bulk(want)}}, r)
	}
	require.Equal(t, []string{"before"}, during)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.WaitPush(ctx)
	require.ErrorIs(t, err, context.Canceled)
	_, err = c.WaitPush(t.Context())
	require.ErrorIs(t, err, context.Canceled, "the client is finished")
}

// A reply that no command awaits would answer the next one wrongly.
func TestClientWaitPushGetsReply(t *testing.T) {
	c := dial(t, resp.ClientConfig{}, func(resp.Command) []byte { return []byte("+one\r\n+two\r\n") })
	_, err := c.Do(t.Context(), "PING")
	require.NoError(t, err)
	_, err = c.WaitPush(t.Context())
	var bad *resp.ProtocolError
	require.ErrorAs(t, err, &bad)
	_, err = c.Do(t.Context(), "PING")
	require.ErrorAs(t, err, &bad)
}

// A silent server ends the call at the deadline, and the client with it.
func TestClientDeadline(t *testing.T) {
	c := dial(t, resp.ClientConfig{}, func(resp.Command) []byte { return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := c.Do(ctx, "GET", "k")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, again := c.Do(t.Context(), "GET", "k")
	require.ErrorIs(t, again, context.DeadlineExceeded)
}

// A context that ends between two calls does not harm the next.
func TestClientOutlivesContexts(t *testing.T) {
	c := dial(t, resp.ClientConfig{}, echo)
	for range 100 {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := c.Do(ctx, "ECHO", "a")
		cancel()
		require.NoError(t, err)
	}
}

// A context that ends while the last reply is read does not harm the next call
// either: the reply is returned, and the deadline that came too late is lifted.
func TestClientContextEndsWithTheReply(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := dial(t, resp.ClientConfig{OnPush: func(resp.Reply) { cancel() }}, func(cmd resp.Command) []byte {
		return resp.AppendBulk(resp.RESP3.AppendPush(nil, 0), cmd[0])
	})
	// The push and the reply come in one write: when the push is handed out,
	// the reply needs no more reading.
	r, err := c.Do(ctx, "PING")
	require.NoError(t, err)
	require.Equal(t, "PING", r.Str)
	r, err = c.Do(t.Context(), "PING")
	require.NoError(t, err)
	require.Equal(t, "PING", r.Str)
}

func TestClientServerGone(t *testing.T) {
	near, far := net.Pipe()
	require.NoError(t, far.Close())
	c := resp.NewClient(near, resp.ClientConfig{})
	_, err := c.Do(t.Context(), "PING")
	require.Error(t, err)
	_, again := c.Do(t.Context(), "PING")
	require.Error(t, again)
	require.NoError(t, c.Close())
}

func TestClientNonsense(t *testing.T) {
	c := dial(t, resp.ClientConfig{}, func(resp.Command) []byte { return []byte("HTTP/1.1 400\r\n") })
	_, err := c.Do(t.Context(), "PING")
	var bad *resp.ProtocolError
	require.ErrorAs(t, err, &bad)
}

func TestDial(t *testing.T) {
	for network, addr := range map[string]string{"unix": filepath.Join(t.TempDir(), "s"), "tcp": "127.0.0.1:0"} {
		t.Run(network, func(t *testing.T) {
			l, err := net.Listen(network, addr)
			require.NoError(t, err)
			done := make(chan struct{})
			go func() {
				defer close(done)
				conn, err := l.Accept()
				if err == nil {
					serve(conn, echo)
				}
			}()
			c, err := resp.Dial(t.Context(), l.Addr().String(), resp.ClientConfig{})
			require.NoError(t, err)
			r, err := c.Do(t.Context(), "ECHO", "hello")
			require.NoError(t, err)
			require.Equal(t, "hello", r.Str)
			require.NoError(t, c.Close())
			<-done
			require.NoError(t, l.Close())
			_, err = resp.Dial(t.Context(), l.Addr().String(), resp.ClientConfig{})
			require.ErrorContains(t, err, "resp: connect")
		})
	}
}
