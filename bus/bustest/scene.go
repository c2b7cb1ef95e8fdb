package bustest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
)

// window is the fill window of followers in cases that are not about it: long
// beside a case, so that all of its history is read back.
const window = time.Minute

// namespace is that of the events published.
const namespace = "product"

// scene is one case: a stream, its followers, a writer that no fault touches,
// and what was acknowledged.
type scene struct {
	t      *testing.T
	h      Harness
	writer Attachment
	begun  time.Time

	mu        sync.Mutex
	sidecars  []*sidecar
	acked     []Acked
	kept      int // how many of acked the last snapshot holds
	published int
}

// sidecar is an attachment that follows.
type sidecar struct {
	Attachment
	*Recorder
	clock *skewed // nil: the bus's own
}

func newScene(t *testing.T, h Harness) *scene {
	return &scene{t: t, h: h, writer: h.Attach(t), begun: time.Now()}
}

// follow attaches a sidecar and returns when it has started.
func (s *scene) follow(c bus.FollowConfig) *sidecar {
	s.t.Helper()
	return s.followOn(s.h.Attach(s.t), c)
}

func (s *scene) followOn(a Attachment, c bus.FollowConfig) *sidecar {
	s.t.Helper()
	side := &sidecar{Attachment: a, Recorder: NewRecorder()}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Follow(ctx, side.Recorder, c) }()
	s.t.Cleanup(func() {
		side.Unblock()
		cancel()
		require.NoError(s.t, <-done, "Follow after its context ended")
	})
	side.WaitResumes(s.t, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sidecars = append(s.sidecars, side)
	return side
}

// publish has the writer publish n events of a key each and returns them.
func (s *scene) publish(n int) []Acked {
	s.t.Helper()
	return s.publishOn(s.writer, n)
}

func (s *scene) publishOn(a Attachment, n int) []Acked {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var events []Acked
	for range n {
		e := s.begin()
		p, err := a.Publish(ctx, namespace, bus.Event{Keys: []bus.KeyVersion{{Key: e.Key}}})
		require.NoError(s.t, err, "publish %s", e.Key)
		e.Position, e.At = p, time.Now()
		s.mu.Lock()
		s.acked = append(s.acked, e)
		s.mu.Unlock()
		events = append(events, e)
	}
	return events
}

// begin makes the next event, not yet published.
func (s *scene) begin() Acked {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.published++
	e := Acked{Key: fmt.Sprintf("%s:%d", namespace, s.published), Since: map[*Recorder]int{}}
	for _, side := range s.sidecars {
		e.Since[side.Recorder] = len(side.Calls())
	}
	return e
}

// settle publishes one more event, waits until every sidecar has settled all
// that was acknowledged and applied that last one, and checks them.
func (s *scene) settle() {
	s.t.Helper()
	last := s.publish(1)[0]
	for _, side := range s.sidecars {
		side.WaitSettled(s.t, last)
		// A start may have passed over it: one more then is applied.
		for len(deliveries(side.Calls(), last.Key)) == 0 {
			last = s.publish(1)[0]
			side.WaitSettled(s.t, last)
		}
		Check(s.t, side.Recorder, s.acked)
	}
}

// waitAll waits until each event was applied by the sidecar.
func (s *scene) waitAll(side *sidecar, events []Acked) {
	s.t.Helper()
	for _, e := range events {
		side.WaitEvent(s.t, e.Key)
	}
}

// snapshot and rollback keep account of what the broker loses.
func (s *scene) snapshot() {
	s.t.Helper()
	s.h.Snapshot(s.t)
	s.kept = len(s.acked)
}

func (s *scene) rollback() {
	s.t.Helper()
	s.h.Rollback(s.t)
	for i := s.kept; i < len(s.acked); i++ {
		s.acked[i].Lost = true
	}
}

// raw publishes as a foreign writer.
func (s *scene) raw(subject, data string) uint64 {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	seq, err := s.h.PublishRaw(ctx, subject, "", []byte(data))
	require.NoError(s.t, err)
	return seq
}
