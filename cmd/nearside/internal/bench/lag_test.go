package bench_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/cmd/nearside/internal/bench"
)

// domain is sidecars in one process: a DEL in one arrives in each after its
// delay.
type domain struct {
	t      *testing.T
	shared sync.WaitGroup
	all    []*sidecar
}

// sidecar is one of a domain.
type sidecar struct {
	domain *domain
	socket string
	delay  time.Duration // until an event is applied
	keeps  bool          // it goes on serving what an event has dropped
	deaf   bool          // it drops every SET
	mute   bool          // it pushes nothing

	mu       sync.Mutex
	values   map[string]string
	watchers []net.Conn
}

func newDomain(t *testing.T, n int) *domain {
	d := &domain{t: t}
	t.Cleanup(d.shared.Wait)
	for i := range n {
		s := &sidecar{domain: d, socket: filepath.Join(t.TempDir(), fmt.Sprint(i)), values: map[string]string{}}
		l, err := net.Listen("unix", s.socket)
		require.NoError(t, err)
		t.Cleanup(func() { l.Close() })
		d.shared.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				d.shared.Go(func() { s.serve(c) })
			}
		})
		d.all = append(d.all, s)
	}
	return d
}

func (s *sidecar) serve(c net.Conn) {
	defer c.Close()
	dec := resp.NewDecoder(resp.Limits{})
	var in []byte
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		in = append(in, buf[:n]...)
		for {
			cmd, n, err := dec.Next(in)
			in = in[n:]
			if err != nil {
				break
			}
			if _, err := c.Write(s.answer(c, cmd)); err != nil {
				return
			}
		}
	}
}

func (s *sidecar) answer(c net.Conn, cmd resp.Command) []byte {
	key := ""
	if len(cmd) > 1 {
		key = string(cmd[1])
	}
	if name := string(cmd[0]); name == "DEL" || name == "NEAR.UPDATE" {
		s.domain.publish(key)
		return resp.AppendInt(nil, 1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch string(cmd[0]) {
	case "GET":
		if v, ok := s.values[key]; ok {
			return resp.AppendBulkString(nil, v)
		}
		return resp.RESP3.AppendNull(nil)
	case "SET":
		if !s.deaf {
			s.values[key] = string(cmd[2])
		}
	case "NEAR.WATCH":
		s.watchers = append(s.watchers, c)
	}
	return resp.AppendSimple(nil, "OK")
}

// publish applies an event in all sidecars, each after its delay.
func (d *domain) publish(key string) {
	for _, s := range d.all {
		d.shared.Go(func() {
			time.Sleep(s.delay) // it is what is measured
			s.apply(key)
		})
	}
}

func (s *sidecar) apply(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.keeps {
		delete(s.values, key)
	}
	push := resp.RESP3.AppendPush(nil, 2)
	push = resp.AppendBulkString(push, "near.event")
	push = resp.AppendBulkString(push, fmt.Sprintf(`{"seq":1,"keys":[{"key":%q}]}`, key))
	for _, w := range s.watchers {
		if !s.mute {
			_, _ = w.Write(push)
		}
	}
}

func (d *domain) lag() bench.Lag {
	l := bench.Lag{Command: bench.CommandDel, Prefix: "p:", Size: 10, Duration: 300 * time.Millisecond, Timeout: 20 * time.Second}
	for _, s := range d.all {
		l.Targets = append(l.Targets, bench.Target{Address: s.socket})
	}
	return l
}

func TestLag(t *testing.T) {
	d := newDomain(t, 3)
	d.all[1].delay, d.all[2].delay = 5*time.Millisecond, 20*time.Millisecond
	l := d.lag()
	l.Duration = time.Hour
	const rounds = 7
	ctx, cancel := context.WithCancel(t.Context())
	results, span, err := l.Run(ctx, func(n uint64) {
		if n == rounds {
			cancel()
		}
	})
	require.NoError(t, err)
	require.True(t, span.Interrupted)
	var names []string
	by := map[string]bench.Result{}
	for _, r := range results {
		name := r.Name + " " + filepath.Base(r.Server)
		names, by[name] = append(names, name), r
		require.Zero(t, r.Errors)
	}
	require.Equal(t, []string{"acknowledged 0", "push 0", "read 0", "push 1", "read 1", "push 2", "read 2", "push all others", "read all others"}, names)
	require.EqualValues(t, rounds, by["acknowledged 0"].Answered)
	require.EqualValues(t, (rounds+1)/2, by["push 1"].Answered)
	require.EqualValues(t, rounds/2, by["read 2"].Answered)
	require.EqualValues(t, 2*by["push 1"].Answered, by["push all others"].Answered)
	for _, name := range []string{"push", "read"} {
		require.GreaterOrEqual(t, by[name+" 1"].Latency.Min, 4.9e3)
		require.GreaterOrEqual(t, by[name+" 2"].Latency.Min, 19.9e3)
		require.Equal(t, by[name+" 2"].Latency.Max, by[name+" all others"].Latency.Max)
	}
}

// A sidecar that says that it has applied an event and serves the old value is
// found out.
func TestOldValuesAfterThePushAreErrors(t *testing.T) {
	d := newDomain(t, 2)
	d.all[1].keeps = true
	l := d.lag()
	l.Timeout = time.Second
	results, _, err := l.Run(t.Context(), func(uint64) {})
	require.ErrorIs(t, err, bench.ErrLag, "the round by reads never sees another value")
	require.ErrorContains(t, err, l.Targets[1].Address+": the lag cannot be measured: it still serves the old value")
	require.Equal(t, bench.LagPush, results[3].Name)
	require.EqualValues(t, 1, results[3].Errors)
}

func TestLagTellsWhatItNeeds(t *testing.T) {
	d := newDomain(t, 2)
	d.all[1].deaf = true
	l := d.lag()
	l.Timeout = 100 * time.Millisecond
	_, _, err := l.Run(t.Context(), func(uint64) {})
	require.ErrorContains(t, err, "it does not hold what SET offers it")

	d = newDomain(t, 2)
	d.all[1].mute = true
	l = d.lag()
	l.Timeout = 100 * time.Millisecond
	_, _, err = l.Run(t.Context(), func(uint64) {})
	require.ErrorContains(t, err, "no push came")

	l.Targets[1].Address = filepath.Join(t.TempDir(), strings.Repeat("n", 10))
	_, _, err = l.Run(t.Context(), func(uint64) {})
	require.ErrorContains(t, err, "no such file")
}

func TestLagEndsByItself(t *testing.T) {
	d := newDomain(t, 2)
	d.all[1].delay = time.Millisecond
	var rounds uint64
	results, span, err := d.lag().Run(t.Context(), func(n uint64) { rounds = n })
	require.NoError(t, err)
	require.False(t, span.Interrupted)
	require.GreaterOrEqual(t, span.Took, 300*time.Millisecond)
	require.Equal(t, rounds, results[0].Answered)
}
