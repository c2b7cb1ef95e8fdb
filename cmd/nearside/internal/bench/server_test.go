package bench_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/cmd/nearside/internal/bench"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a small map that speaks RESP over pipes.
type server struct {
	mu     sync.Mutex
	values map[string]string
	// before is called before each command is answered; it may change the answer.
	before func(name string) (answer []byte)
	all    sync.WaitGroup
	conns  []net.Conn
}

func newServer(t *testing.T) *server {
	s := &server{values: map[string]string{}}
	t.Cleanup(s.close)
	return s
}

func (s *server) close() {
	s.mu.Lock()
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.all.Wait()
}

func (s *server) target() bench.Target {
	return bench.Target{Address: "/test", Dial: func(context.Context) (net.Conn, error) {
		ours, theirs := net.Pipe()
		s.mu.Lock()
		s.conns = append(s.conns, ours)
		s.mu.Unlock()
		s.all.Go(func() { s.serve(ours) })
		return theirs, nil
	}}
}

func (s *server) serve(c net.Conn) {
	defer c.Close()
	d := resp.NewDecoder(resp.Limits{})
	var in, out []byte
	buf := make([]byte, 1<<20)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		in, out = append(in, buf[:n]...), out[:0]
		for {
			cmd, n, err := d.Next(in)
			in = in[n:]
			if errors.Is(err, resp.ErrMore) {
				break
			}
			if err != nil {
				panic(err)
			}
			out = s.answer(out, cmd)
		}
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

func (s *server) answer(out []byte, cmd resp.Command) []byte {
	name := string(bytes.ToUpper(cmd[0]))
	if s.before != nil {
		if a := s.before(name); a != nil {
			return append(out, a...)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch name {
	case "GET":
		if v, ok := s.values[string(cmd[1])]; ok {
			return resp.AppendBulkString(out, v)
		}
		return resp.RESP2.AppendNull(out)
	case "SET":
		s.values[string(cmd[1])] = string(cmd[2])
		return resp.AppendSimple(out, "OK")
	case "DEL":
		delete(s.values, string(cmd[1]))
		return resp.AppendInt(out, 1)
	}
	return resp.AppendError(out, "ERR unknown command "+name)
}

func one(t *testing.T, results []bench.Result) bench.Result {
	require.Len(t, results, 1)
	return results[0]
}
