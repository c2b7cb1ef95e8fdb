package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/nearside-cache/nearside/api/resp"
)

var loadFaults = []Fault{
	{"slow-clients", "clients that send much and read nothing (I14 I15)", load, anywhere, slowClients},
	{"held-fills", "loads that take so long that events pass them (I1 I2; C2, C3)", load, anywhere, func(ctx context.Context, w *worker) error {
		w.hold.Store(int64(w.longest))
		defer w.hold.Store(0)
		w.last(ctx)
		return nil
	}},
	{"evictions", "more values than the memory holds (I2 I15; C4)", load, anywhere, evictions},
	{"hot-key", "all writers write one key as fast as they can (I2 I5 I6)", load, anywhere, func(ctx context.Context, w *worker) error {
		key := w.some()
		w.hot.Store(&key)
		defer w.hot.Store(nil)
		w.last(ctx)
		return nil
	}},
	{"crowd", "clients that connect until a sidecar refuses them (I14 I15)", load, anywhere, crowd},
	{"herd", "many readers of one key that was just written (I1 I6 I13)", load, anywhere, herd},
}

// slowClients sends GETs and reads no answers.
func slowClients(ctx context.Context, w *worker) error {
	const clients, batch = 8, 500
	s := w.pod()
	var send []byte
	for range batch {
		send = resp.AppendCommand(send, "NEAR.GET", w.near[0], "ANY")
	}
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for range clients {
		c, err := net.DialTimeout("unix", s.socket, patience)
		if err != nil {
			return nil // it is down
		}
		conns = append(conns, c)
		_ = c.SetWriteDeadline(time.Now().Add(pause)) // it stops taking them: that is right
		_, _ = c.Write(send)
	}
	w.last(ctx)
	return nil
}

// crowd connects until it is refused, and stays.
func crowd(ctx context.Context, w *worker) error {
	s := w.pod()
	ctx, cancel := context.WithTimeout(ctx, w.longest/10+w.span(w.longest))
	defer cancel()
	var conns []*client
	defer func() {
		for _, c := range conns {
			closed(c)
		}
	}()
	for range maxConnections {
		c, err := s.dial(ctx)
		if err != nil {
			return nil // it is down
		}
		conns = append(conns, c)
	}
	c, err := s.dial(ctx)
	if err != nil {
		return nil
	}
	conns = append(conns, c)
	if _, err = c.do(ctx, "PING"); err != nil && strings.Contains(err.Error(), tooMany) {
		w.bite("crowd", 1)
	}
	<-ctx.Done()
	return nil
}

// evictions stores what nobody reads.
func evictions(ctx context.Context, w *worker) error {
	const batch, size = 16, 16 << 10
	s := w.pod()
	ctx, cancel := context.WithTimeout(ctx, w.longest/10+w.span(w.longest))
	defer cancel()
	value := strings.Repeat("e", size)
	var c *client
	defer func() { closed(c) }()
	for i := 0; ctx.Err() == nil; i++ {
		var err error
		if c == nil {
			if c, err = s.dial(ctx); err != nil {
				wait(pause, ctx.Done())
				continue
			}
		}
		var commands [][]string
		for k := range batch {
			commands = append(commands, []string{"SET", fmt.Sprintf("junk:%d", i*batch+k), value})
		}
		limit, stop := context.WithTimeout(ctx, patience)
		_, err = c.conn.Pipeline(limit, commands...)
		stop()
		if err != nil {
			closed(c)
			c = nil
		}
		wait(5*time.Millisecond, ctx.Done())
	}
	return nil
}

// herd writes a key and reads it from many connections at once.
func herd(ctx context.Context, w *worker) error {
	const readers, rounds = 60, 4
	s, key := w.pod(), w.some()
	var all sync.WaitGroup
	defer all.Wait()
	for range readers {
		one := worker{w.run, rand.New(rand.NewPCG(w.rng.Uint64(), w.rng.Uint64()))}
		all.Go(func() {
			c, err := s.dial(ctx)
			for i := 0; err == nil && i < rounds && ctx.Err() == nil; i++ {
				err = one.readKey(ctx, s, c, key, false)
			}
			closed(c)
		})
	}
	w.write(ctx, key, w.rng.IntN(len(w.sidecars)))
	return nil
}

// some returns a near key or one that sidecars load.
func (w *worker) some() string {
	of := w.near
	if w.chance(2) {
		of = w.loaded
	}
	return of[w.rng.IntN(len(of))]
}
