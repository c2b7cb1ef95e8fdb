package demo

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
)

const key = "city:1"

func at(seq uint64) bus.Position { return bus.Position{Epoch: bus.Epoch{Created: 1}, Seq: seq} }

func testOracle() *oracle {
	return newOracle(newOrigin([]city{{ID: 1, Name: "One", Version: 1}, {ID: 2, Name: "Two", Version: 1}}))
}

func (o *oracle) event(key string, version, seq uint64) {
	o.publishing(key)
	o.published(key, version, at(seq))
}

func TestOracleCountsStaleReads(t *testing.T) {
	for _, c := range []struct {
		name    string
		version uint64
		applied bus.Position
		stale   uint64
	}{
		{"before the invalidation is applied", 1, at(9), 0},
		{"newest", 3, at(20), 0},
		{"newer than what is invalidated", 4, at(20), 0},
		{"old, exactly at the invalidation", 1, at(10), 1},
		{"old, later", 1, at(15), 1},
		{"second newest, before the second invalidation", 2, at(19), 0},
		{"second newest, after it", 2, at(20), 1},
		{"old, in a newer epoch, which began with a flush", 2, bus.Position{Epoch: bus.Epoch{Created: 2}, Seq: 1}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := testOracle()
			o.event(key, 2, 10)
			o.event("city:2", 5, 11)
			o.event(key, 3, 20)
			require.Equal(t, c.stale == 1, o.outdated(key, c.version, c.applied))
			o.served(read{"pod-a", key, c.version, c.applied})
			n, first := o.staleReads()
			require.Equal(t, c.stale, n)
			if n > 0 {
				require.Contains(t, first.String(), "pod-a served version")
			}
		})
	}
}

// A sidecar applies an event before its publisher hears of the acknowledgement.
func TestOracleJudgesWhenNothingIsOnTheWay(t *testing.T) {
	o := testOracle()
	o.publishing(key)
	o.publishing(key)
	o.served(read{"pod-a", key, 1, at(10)})
	o.served(read{"pod-a", key, 2, at(10)})
	o.published(key, 2, at(10))
	n, _ := o.staleReads()
	require.Zero(t, n, "another event is on its way")
	o.published(key, 2, bus.Position{}) // not acknowledged: nothing is required of it
	n, first := o.staleReads()
	require.EqualValues(t, 1, n)
	require.Equal(t, &verdict{read{"pod-a", key, 1, at(10)}, 2}, first)
}

func TestOracleOrdersEventsByPosition(t *testing.T) {
	o := testOracle()
	o.event(key, 3, 30)
	o.event(key, 4, 20) // committed later, yet ahead in the stream
	o.event(key, 2, 10)
	for _, c := range []struct{ seq, required uint64 }{{9, 0}, {10, 2}, {19, 2}, {20, 4}, {29, 4}, {30, 4}} {
		require.Equal(t, c.required, o.keys[key].required(at(c.seq)), "at %d", c.seq)
	}
}
