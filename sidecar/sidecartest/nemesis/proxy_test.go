package nemesis

import (
	"bufio"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// echo starts a server that sends back what it gets, behind a proxy, and returns
// the proxy and a connection through it.
func echo(t *testing.T) (*proxy, net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	p, err := newProxy(l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.close()) })
	c, err := net.Dial("tcp", p.addr())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return p, c
}

// What is sent while a direction is cut arrives once it is open, and not before.
func TestProxyCuts(t *testing.T) {
	for name, side := range map[string]func(*proxy) *gate{
		"up":   func(p *proxy) *gate { return &p.up },
		"down": func(p *proxy) *gate { return &p.down },
	} {
		t.Run(name, func(t *testing.T) {
			p, c := echo(t)
			side(p).set(true, 0)
			_, err := c.Write([]byte("late\n"))
			require.NoError(t, err)
			require.NoError(t, c.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
			r := bufio.NewReader(c)
			_, err = r.ReadByte()
			require.ErrorContains(t, err, "timeout")
			require.NotZero(t, p.held.Load())
			require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
			p.open()
			line, err := r.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, "late\n", line)
		})
	}
}

func TestProxyDelays(t *testing.T) {
	const lag = 30 * time.Millisecond
	p, c := echo(t)
	p.up.set(false, lag)
	p.down.set(false, lag)
	began := time.Now()
	_, err := c.Write([]byte("x"))
	require.NoError(t, err)
	_, err = c.Read(make([]byte, 1))
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(began), 2*lag)
	require.EqualValues(t, 2, p.held.Load())
}

// Severed connections end for both sides, new ones come through, and close waits
// for nobody who stands at a closed gate.
func TestProxySevers(t *testing.T) {
	p, c := echo(t)
	_, err := c.Write([]byte("x"))
	require.NoError(t, err)
	_, err = c.Read(make([]byte, 1))
	require.NoError(t, err)
	p.sever()
	_, err = c.Read(make([]byte, 1))
	require.Error(t, err)

	again, err := net.Dial("tcp", p.addr())
	require.NoError(t, err)
	defer func() { _ = again.Close() }()
	p.up.set(true, 0)
	_, err = again.Write([]byte("x"))
	require.NoError(t, err)
}
