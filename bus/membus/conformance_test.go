package membus_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/bustest"
	"github.com/nearside-cache/nearside/bus/membus"
)

func TestConformance(t *testing.T) {
	bustest.Run(t, func(t *testing.T) bustest.Harness {
		s, err := membus.NewStream("default")
		require.NoError(t, err)
		return harness{s}
	})
}

// harness adapts membus to the suite.
type harness struct{ s *membus.Stream }

func (h harness) Subjects() bus.Subjects { return h.s.Subjects() }

func (h harness) Attach(t testing.TB) bustest.Attachment {
	b := h.s.Attach(membus.Options{LiveBuffer: 64})
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return attachment{b}
}

func (h harness) PublishRaw(ctx context.Context, subject, id string, data []byte) (uint64, error) {
	for {
		seq, err := h.s.Publish(subject, id, data)
		if err == nil {
			return seq, nil
		}
		select {
		case <-ctx.Done():
			return 0, err
		case <-time.After(time.Millisecond):
		}
	}
}

func (h harness) Trim(_ testing.TB, upTo uint64) { h.s.Trim(upTo) }
func (h harness) Purge(testing.TB)               { h.s.Purge() }
func (h harness) DeleteStream(testing.TB)        { h.s.Delete() }
func (h harness) Recreate(testing.TB)            { h.s.Recreate(1) }
func (h harness) Snapshot(testing.TB)            { h.s.Snapshot() }
func (h harness) Rollback(testing.TB)            { h.s.Rollback() }
func (h harness) Restart(testing.TB)             { h.s.Restart() }

type attachment struct{ *membus.Bus }

func (a attachment) Disconnect(testing.TB) { a.Bus.Disconnect() }
func (a attachment) Reconnect(testing.TB)  { a.Bus.Reconnect() }
