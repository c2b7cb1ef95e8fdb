package main

import (
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
)

// truth is the source of truth of a test: a version for each key.
type truth [200]atomic.Int64

func keyOf(i int) string { return "k:" + strconv.Itoa(i) }

// Two processes on one NATS: what was invalidated in one is not served by the
// other once that has applied it, while others fill both with slow loads.
func TestTwoProcesses(t *testing.T) {
	_, a, b := startFleet(t)
	done := make(chan struct{})
	var origin truth
	fillers := fill(t, done, &origin, a, b)
	var rounds sync.WaitGroup
	for range 4 {
		rounds.Go(func() {
			from, to := a.dial(), b.dial()
			for i := range 2500 {
				if from, to = to, from; !origin.round(t, rand.IntN(len(origin)), from, to) {
					t.Errorf("stale in round %d", i)
					return
				}
			}
		})
	}
	rounds.Wait()
	close(done)
	fillers.Wait()
}

// The same while NATS is killed and started again every second.
func TestTwoProcessesOverRestartsOfNATS(t *testing.T) {
	broker, a, b := startFleet(t)
	done := make(chan struct{})
	var origin truth
	fillers := fill(t, done, &origin, a, b)
	var rounds sync.WaitGroup
	var count atomic.Int64
	for range 2 {
		rounds.Go(func() {
			from, to := a.dial(), b.dial()
			for {
				select {
				case <-done:
					return
				default:
				}
				count.Add(1)
				if from, to = to, from; !origin.round(t, rand.IntN(len(origin)), from, to) {
					t.Error("stale")
					return
				}
			}
		})
	}
	for range 4 {
		<-time.After(time.Second) // of load between two kills
		broker = broker.again()
	}
	close(done)
	rounds.Wait()
	fillers.Wait()
	require.Greater(t, count.Load(), int64(100))
	t.Logf("%d rounds", count.Load())
}

// startFleet starts a process whose embedded server is the broker, and two
// sidecars on it.
func startFleet(t *testing.T) (broker, a, b *process) {
	addr := freeAddress(func(err error) { t.Fatal(err) })
	dir := t.TempDir()
	broker = serveIn(t, dir, "--nats", "embedded", "--data", filepath.Join(dir, "data"), "--nats-listen", addr)
	broker.await("ready: ")
	sidecars := make([]*process, 2)
	for i := range sidecars {
		sidecars[i] = serveIn(t, t.TempDir(), "--nats", "nats://"+addr)
		sidecars[i].await("ready: ")
	}
	return broker, sidecars[0], sidecars[1]
}

// again kills the process and starts it anew on its files.
func (p *process) again() *process {
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGKILL))
	_ = p.cmd.Wait() // it was killed
	p.ended = true
	args := p.cmd.Args[4:] // behind: binary serve --socket path
	return serveIn(p.t, filepath.Dir(p.socket), args...)
}

// fill keeps both sidecars full by plain cache-aside readers, whose loads take a
// while now and then.
func fill(t *testing.T, done <-chan struct{}, origin *truth, sidecars ...*process) *sync.WaitGroup {
	fillers := new(sync.WaitGroup)
	for _, p := range sidecars {
		for range 2 {
			conn := p.dial()
			fillers.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-done:
						return
					default:
					}
					i := rand.IntN(len(origin))
					if r, err := conn.Do(t.Context(), "GET", keyOf(i)); err != nil || !r.IsNull() {
						continue
					}
					loaded := origin[i].Load()
					if n%50 == 0 {
						<-time.After(10 * time.Millisecond) // a slow load
					}
					_, _ = conn.Do(t.Context(), "SET", keyOf(i), strconv.FormatInt(loaded, 10)) // what is kept is judged by round
				}
			})
		}
	}
	return fillers
}

// round commits a new version of a key, invalidates it by DEL through one sidecar
// and reads it from both. It reports whether both served what they should.
func (o *truth) round(t *testing.T, i int, from, to *resp.Client) bool {
	version := o[i].Add(1)
	for {
		if _, err := from.Do(t.Context(), "DEL", keyOf(i)); err == nil {
			break
		}
	}
	at := appliedSeq(t, from)
	for appliedSeq(t, to) < at {
		continue
	}
	for _, conn := range []*resp.Client{from, to} {
		r, err := conn.Do(t.Context(), "GET", keyOf(i))
		if err != nil {
			t.Error(err)
			return false
		}
		if got, _ := strconv.ParseInt(r.Text(), 10, 64); !r.IsNull() && got < version {
			t.Errorf("%s is %d after version %d was invalidated", keyOf(i), got, version)
			return false
		}
	}
	return true
}

func appliedSeq(t *testing.T, conn *resp.Client) int64 {
	r, err := conn.Do(t.Context(), "NEAR.STATUS")
	if err != nil {
		t.Error(err)
		return 1 << 62
	}
	for i := 0; i+1 < len(r.Elems); i += 2 {
		if r.Elems[i].Str == "applied_seq" {
			return r.Elems[i+1].Int
		}
	}
	t.Error("no applied_seq in the answer")
	return 1 << 62
}
