package natsbus_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/natsbus"
)

// recorder is a Handler that keeps what it is given.
type recorder struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every call
	resumes []bus.Resume
	doubts  []bus.Reason
	applied []bus.Delivery // pulses left out
	last    uint64         // position of the last call, pulses included
	keys    map[string]int // how often each key was applied
	faults  []string       // breaches of the contract
	trusted bool
}

func newRecorder() *recorder {
	return &recorder{changed: make(chan struct{}), keys: make(map[string]int)}
}

func (r *recorder) note(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *recorder) Apply(d bus.Delivery) {
	r.note(func() {
		if !r.trusted || d.Position.Seq != r.last+1 {
			r.faults = append(r.faults, fmt.Sprintf("event %d after %d, trusted %v", d.Position.Seq, r.last, r.trusted))
		}
		r.last = d.Position.Seq
		if d.Event.Op == bus.OpPulse && d.Err == nil {
			return
		}
		r.applied = append(r.applied, d)
		for _, k := range d.Event.Keys {
			r.keys[k.Key]++
		}
	})
}

func (r *recorder) Doubt(why bus.Reason) {
	r.note(func() { r.doubts, r.trusted = append(r.doubts, why), false })
}

func (r *recorder) Resume(s bus.Resume) {
	r.note(func() { r.resumes, r.trusted, r.last = append(r.resumes, s), true, s.Position.Seq })
}

// wait returns when ok, called under the lock, is true.
func (r *recorder) wait(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		r.mu.Lock()
		done, changed := ok(), r.changed
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			r.mu.Lock()
			defer r.mu.Unlock()
			require.Failf(t, "waited in vain", "for %s: last %d, doubts %v, %d events, faults %v", what, r.last, r.doubts, len(r.applied), r.faults)
		}
	}
}

func (r *recorder) waitResumes(t testing.TB, n int) {
	t.Helper()
	r.wait(t, fmt.Sprintf("resume %d", n), func() bool { return len(r.resumes) >= n })
}

func (r *recorder) waitApplied(t testing.TB, seq uint64) {
	t.Helper()
	r.wait(t, fmt.Sprintf("position %d", seq), func() bool { return r.trusted && r.last >= seq })
}

// check fails when the contract was broken, or a doubt came that is not among
// those allowed.
func (r *recorder) check(t testing.TB, doubts ...bus.Reason) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Empty(t, r.faults)
	require.Equal(t, append([]bus.Reason{}, doubts...), append([]bus.Reason{}, r.doubts...), "doubts")
}

// follow runs Follow until the test ends or stop is called, which returns its
// error.
func follow(t testing.TB, b *natsbus.Bus) (r *recorder, stop func() error) {
	r = newRecorder()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Follow(ctx, r, bus.FollowConfig{Window: time.Second}) }()
	var once sync.Once
	var err error
	stop = func() error {
		once.Do(func() {
			cancel()
			err = <-ended
		})
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return r, stop
}

func invalidate(key string) bus.Event {
	return bus.Event{Op: bus.OpInvalidate, Keys: []bus.KeyVersion{{Key: key}}}
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}
