package coherence_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/coherence"
)

// A version that was published before the source was restored says nothing of the
// one that comes after (C12). Found by the simulator (I6).
func TestPublishedEndsWithReset(t *testing.T) {
	c := coherence.New(config(), shelf{})
	c.Resume(bus.Resume{}, 0)
	c.Apply(bus.Delivery{
		Position: bus.Position{Seq: 1}, Namespace: "n", Event: bus.Event{Keys: []bus.KeyVersion{{Key: "n:a", Version: 7}}},
	}, 0)
	require.True(t, c.Published("n:a", 2))
	c.Apply(bus.Delivery{Position: bus.Position{Seq: 2}, Namespace: "n", Event: bus.Event{Op: bus.OpFlush, Reset: true}}, 0)
	require.False(t, c.Published("n:a", 2))
}
