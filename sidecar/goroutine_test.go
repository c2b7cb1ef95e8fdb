package sidecar

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/session"
)

// heldDeadline lets a test hold a waker between its flag and its deadline.
type heldDeadline struct {
	net.Conn
	hold chan chan struct{}
	held chan struct{}
}

func (h *heldDeadline) SetReadDeadline(t time.Time) error {
	if t.Equal(time.Unix(1, 0)) {
		select {
		case release := <-h.hold:
			close(h.held)
			<-release
		default:
		}
	}
	return h.Conn.SetReadDeadline(t)
}

// Two who wake a connection at once do not end it.
func TestTwoWakesAtOnce(t *testing.T) {
	s := newServer(DefaultConfig(), &session.Env{}, prometheus.NewRegistry())
	client, end := net.Pipe()
	held := &heldDeadline{Conn: end, hold: make(chan chan struct{}, 1), held: make(chan struct{})}
	c, err := goroutines{s, context.Background()}.take(held)
	require.NoError(t, err)
	a := c.(*attendant)
	a.talk = &echo{}
	s.open++
	s.left.Add(1)
	s.conns[a] = struct{}{}
	a.start()
	push := func() {
		b := make([]byte, 1)
		_, err := client.Read(b)
		require.NoError(t, err)
		require.Equal(t, "!", string(b))
	}
	release, first := make(chan struct{}), make(chan struct{})
	held.hold <- release
	go func() {
		a.wake()
		close(first)
	}()
	<-held.held
	a.wake() // takes the flag of both
	push()
	close(release)
	<-first
	push()
	_, err = client.Write([]byte("x"))
	require.NoError(t, err)
	b := make([]byte, 1)
	_, err = client.Read(b)
	require.NoError(t, err)
	require.Equal(t, "x", string(b))
	client.Close()
	s.left.Wait()
}
