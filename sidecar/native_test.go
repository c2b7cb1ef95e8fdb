package sidecar_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/sidecar"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// peer speaks the native protocol over a socket.
type peer struct {
	t    *testing.T
	conn net.Conn
	read []byte
}

func dialNative(t *testing.T, s *sidecartest.Sidecar) *peer {
	conn, err := net.Dial("unix", s.Socket)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(sidecartest.Wait)))
	p := &peer{t: t, conn: conn}
	p.send(near.KindHello, 1, &near.Hello{Min: near.Version, Max: near.Version})
	var h near.Welcome
	p.next(near.KindHello.Answer(), 1, &h)
	return p
}

func (p *peer) send(kind near.Kind, id uint32, m near.Message) {
	p.t.Helper()
	_, err := p.conn.Write(near.Append(nil, kind, id, m))
	require.NoError(p.t, err)
}

// next wants this frame to come next.
func (p *peer) next(kind near.Kind, id uint32, m near.Message) {
	p.t.Helper()
	for {
		h, body, err := near.Next(p.read)
		if err == nil {
			p.read = p.read[h.Size():]
			require.Equal(p.t, kind, h.Kind)
			require.Equal(p.t, id, h.ID)
			require.NoError(p.t, near.Parse(body, m))
			return
		}
		require.ErrorIs(p.t, err, near.ErrShort)
		part := make([]byte, 4096)
		n, err := p.conn.Read(part)
		require.NoError(p.t, err)
		p.read = append(p.read, part[:n]...)
	}
}

func (p *peer) ends() {
	p.t.Helper()
	_, err := p.conn.Read(make([]byte, 1))
	require.True(p.t, errors.Is(err, io.EOF), "%v", err)
}

// On one socket clients speak the native protocol beside those of Redis.
func TestNativeProtocolOnTheSocket(t *testing.T) {
	s, _ := start(t, nil)
	p, redis := dialNative(t, s), dialRaw(t, s)
	redis.send("SET k v\r\n")
	require.Equal(t, "+OK", redis.line())
	p.send(near.KindGet, 2, &near.Get{Key: []byte("k")})
	var v near.Value
	p.next(near.KindGet.Answer(), 2, &v)
	require.Equal(t, near.Hit, v.Status)
	require.Equal(t, "v", string(v.Value))
	p.send(near.KindInvalidate, 3, &near.Invalidate{Keys: []near.KeyVersion{{Key: []byte("k")}}})
	var w near.Written
	p.next(near.KindInvalidate.Answer(), 3, &w)
	redis.send("GET k\r\n")
	require.Equal(t, "$-1", redis.line())
}

// Of a sidecar that drains, requests that wait get their answer, and then the
// connection ends.
func TestNativeRequestsEndBeforeADrain(t *testing.T) {
	s, b := start(t, func(c *sidecar.Config) { c.DrainTimeout = sidecartest.Wait })
	p := dialNative(t, s)
	b.Hold()
	p.send(near.KindInvalidate, 2, &near.Invalidate{Keys: []near.KeyVersion{{Key: []byte("k")}}})
	p.send(near.KindPing, 3, &near.None{})
	var pong near.Pong
	p.next(near.KindPing.Answer(), 3, &pong) // the other one waits
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.Stop(t)
	}()
	require.Eventually(t, func() bool {
		code, _ := fetch(t, s, "/readyz")
		return code == http.StatusServiceUnavailable
	}, sidecartest.Wait, time.Millisecond)
	b.Release()
	var w near.Written
	p.next(near.KindInvalidate.Answer(), 2, &w)
	p.ends()
	<-stopped
}

// A frame that is not completed in time ends the connection, which is told why.
func TestHalfFrame(t *testing.T) {
	s, _ := start(t, func(c *sidecar.Config) { c.FrameTimeout = 50 * time.Millisecond })
	p := dialNative(t, s)
	_, err := p.conn.Write([]byte{near.Magic})
	require.NoError(t, err)
	var bye near.Goodbye
	p.next(near.KindGoodbye, 0, &bye)
	require.Contains(t, bye.Message, "not completed in time")
	p.ends()
	await(t, s, `nearside_connections_closed_total{reason="half-command"}`, 1)
}
