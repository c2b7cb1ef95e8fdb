package sidecar_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus/membus"
	"github.com/nearside-cache/nearside/sidecar"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

const waitingReaders = "nearside_rights_waiting"

// herd is a sidecar and readers of one key, each with a connection.
type herd struct {
	*sidecartest.Sidecar
	bus    *membus.Bus
	t      *testing.T
	plain  bool
	loads  atomic.Int64
	value  atomic.Pointer[string] // at the origin
	gate   chan struct{}          // loads that began go on when it is closed
	failed chan error
}

func newHerd(t *testing.T, plain bool) *herd {
	s, b := start(t, func(c *sidecar.Config) {
		c.Policies = policy.DefaultSet()
		c.Policies.Default.Lease = policy.Rights{Get: plain, For: sidecartest.Wait, Wait: sidecartest.Wait}
	})
	h := &herd{Sidecar: s, bus: b, t: t, plain: plain, gate: make(chan struct{}), failed: make(chan error, 1000)}
	h.commit("old")
	return h
}

func (h *herd) commit(value string) { h.value.Store(&value) }

// look reads the key. A miss comes with the lease, if it is one of NEAR.GET.
func (h *herd) look(ctx context.Context, c *resp.Client) (value, lease string, found bool, err error) {
	command := []string{"NEAR.GET", "hot", "WAIT", "20000"}
	if h.plain {
		command = []string{"GET", "hot"}
	}
	replies, err := c.Pipeline(ctx, command)
	switch {
	case err != nil:
		return "", "", false, err
	case replies[0].Err() != nil:
		return "", "", false, replies[0].Err()
	case h.plain:
		return replies[0].Str, "", !replies[0].IsNull(), nil
	}
	f := replies[0].Elems
	return f[3].Str, f[3].Str, f[1].Str == "HIT", nil
}

// read is cache-aside.
func (h *herd) read(ctx context.Context, c *resp.Client) (value string, err error) {
	value, lease, found, err := h.look(ctx, c)
	if found || err != nil {
		return value, err
	}
	h.loads.Add(1)
	value = *h.value.Load()
	select {
	case <-h.gate:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	command := []string{"NEAR.FILL", "hot", lease, value}
	if h.plain {
		command = []string{"SET", "hot", value}
	}
	_, err = c.Pipeline(ctx, command)
	return value, err
}

// send lets n readers read once, and returns when each waits or loads. The result
// is what they read, once all have.
func (h *herd) send(n int) func() []string {
	h.t.Helper()
	waiting, loads := metric(h.t, h.Sidecar, waitingReaders), h.loads.Load()
	var (
		all    sync.WaitGroup
		values = make([]string, n)
	)
	ctx, cancel := context.WithTimeout(context.Background(), sidecartest.Wait)
	for i := range n {
		c := h.Dial(h.t).Client
		all.Go(func() {
			var err error
			if values[i], err = h.read(ctx, c); err != nil {
				h.failed <- err
			}
		})
	}
	require.Eventually(h.t, func() bool {
		return int(metric(h.t, h.Sidecar, waitingReaders)-waiting)+int(h.loads.Load()-loads) == n
	}, sidecartest.Wait, 2*time.Millisecond)
	return func() []string {
		h.t.Helper()
		all.Wait()
		cancel()
		require.Empty(h.t, h.failed)
		return values
	}
}

func each(t *testing.T, test func(t *testing.T, h *herd)) {
	for name, plain := range map[string]bool{"NEAR.GET": false, "GET": true} {
		t.Run(name, func(t *testing.T) { test(t, newHerd(t, plain)) })
	}
}

// Of a hundred clients that miss one key at one time, one asks the origin (I13).
func TestHerdLoadsOnce(t *testing.T) {
	each(t, func(t *testing.T, h *herd) {
		values := h.send(100)
		require.Equal(t, int64(1), h.loads.Load())
		close(h.gate)
		for _, v := range values() {
			require.Equal(t, "old", v)
		}
		require.Equal(t, int64(1), h.loads.Load())
		await(t, h.Sidecar, waitingReaders, 0)
		require.Equal(t, 99.0, metric(t, h.Sidecar, "nearside_rights_wait_seconds_count"))
		require.Equal(t, 1.0, metric(t, h.Sidecar, "nearside_rights_granted_total"))
	})
}

// When the connection of the one that loads breaks, the next one loads.
func TestHerdWhoseLoaderDies(t *testing.T) {
	each(t, func(t *testing.T, h *herd) {
		dying := h.Dial(t)
		_, _, found, err := h.look(t.Context(), dying.Client)
		require.NoError(t, err)
		require.False(t, found)
		values := h.send(20)
		require.Zero(t, h.loads.Load())
		require.NoError(t, dying.Close())
		await(t, h.Sidecar, "nearside_rights_passed_on_total", 1)
		require.Eventually(t, func() bool { return h.loads.Load() == 1 }, sidecartest.Wait, time.Millisecond)
		close(h.gate)
		for _, v := range values() {
			require.Equal(t, "old", v)
		}
		require.Equal(t, int64(1), h.loads.Load())
	})
}

// A key that is invalidated while it is loaded is loaded once more, and nobody who
// waited is answered with what the first load saw.
func TestHerdOverAnInvalidation(t *testing.T) {
	for name, events := range map[string]int{"one": 1, "three": 3} {
		t.Run(name, func(t *testing.T) {
			h := newHerd(t, false)
			first := h.send(1)
			values := h.send(50)
			for i := range events {
				h.commit(fmt.Sprint("new", i))
				require.NoError(t, h.Dial(t).Do("DEL", "hot").Err())
				require.Eventually(t, func() bool { return h.loads.Load() == int64(i)+2 }, sidecartest.Wait, time.Millisecond)
			}
			close(h.gate)
			require.Equal(t, []string{"old"}, first())
			last := 0
			for _, v := range values() {
				require.NotEqual(t, "old", v)
				if v == fmt.Sprint("new", events-1) {
					last++
				}
			}
			require.Equal(t, 50-(events-1), last, "all but those that had begun to load what is old by now")
			require.Equal(t, int64(events)+1, h.loads.Load(), "one load for each invalidation")
		})
	}
}

// The same with plain SETs, which C3 judges one for another: it takes a load or two
// more until one is kept.
func TestPlainHerdOverAnInvalidation(t *testing.T) {
	h := newHerd(t, true)
	first := h.send(1)
	values := h.send(50)
	h.commit("new")
	require.NoError(t, h.Dial(t).Do("DEL", "hot").Err())
	require.Eventually(t, func() bool { return h.loads.Load() == 2 }, sidecartest.Wait, time.Millisecond)
	close(h.gate)
	require.Equal(t, []string{"old"}, first())
	for _, v := range values() {
		require.Equal(t, "new", v)
	}
	require.LessOrEqual(t, h.loads.Load(), int64(4))
	require.Equal(t, "new", h.Dial(t).Do("GET", "hot").Str)
}

// Draining waits for nobody's load, also not for that of a connection which is busy
// with something else.
func TestDrainLetsTheHerdGo(t *testing.T) {
	each(t, func(t *testing.T, h *herd) {
		holder := h.Dial(t)
		_, _, _, err := h.look(t.Context(), holder.Client)
		require.NoError(t, err)
		c := h.Dial(t)
		told := make(chan error, 1)
		go func() {
			_, _, found, err := h.look(context.Background(), c.Client)
			if found {
				err = errors.New("found what nobody stored")
			}
			told <- err
		}()
		await(t, h.Sidecar, waitingReaders, 1)
		h.bus.Disconnect()
		publishes := metric(t, h.Sidecar, "nearside_publishes_total")
		go func() { _, _ = holder.Pipeline(context.Background(), []string{"DEL", "other"}) }()
		await(t, h.Sidecar, "nearside_publishes_total", publishes+1)
		began := time.Now()
		h.Stop(t)
		require.NoError(t, <-told, "the answer comes before the end")
		require.Less(t, time.Since(began), 2*time.Second)
	})
}
