package coherence_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/coherence"
)

// elsewhere is a core that has applied up to seq 10, where what is known begins at 5.
func elsewhere() *coherence.Core {
	c := coherence.New(config(), shelf{})
	c.Resume(bus.Resume{Position: bus.Position{Seq: 10}, HistoryFrom: 5}, 0)
	return c
}

func pulse(c *coherence.Core, seq uint64, fresh, now time.Duration) {
	c.Apply(bus.Delivery{Position: bus.Position{Seq: seq}, Fresh: fresh, Event: bus.Event{Op: bus.OpPulse}}, now)
}

func at(seq uint64) bus.Position { return bus.Position{Seq: seq} }

// What another sidecar loaded is judged by all that came here since the position of
// its lease, and only where all of that is known (C2).
func TestLoadedElsewhere(t *testing.T) {
	fill := func(c *coherence.Core, p bus.Position, version uint64) coherence.Verdict {
		_, v := c.Fill(coherence.Fill{Key: "a", Lease: c.LeaseAt(p, p.Seq), Version: version}, time.Minute)
		return v
	}
	c := elsewhere()
	require.Equal(t, coherence.Blind, fill(c, at(4), 1), "nobody knows here what came after 4")
	require.Equal(t, coherence.Blind, fill(c, bus.Position{Epoch: bus.Epoch{Fork: 1}, Seq: 7}, 1), "another epoch")
	require.Equal(t, coherence.Stored, fill(c, at(5), 1))
	require.Equal(t, coherence.Stored, fill(c, at(99), 2), "a sidecar that is ahead")

	c = elsewhere()
	c.Apply(bus.Delivery{Position: at(11), Namespace: "default", Event: bus.Event{Keys: []bus.KeyVersion{{Key: "a"}}}}, time.Second)
	require.Equal(t, coherence.Invalidated, fill(c, at(10), 9))
	require.Equal(t, coherence.Stored, fill(c, at(11), 9))

	c = elsewhere()
	c.Doubt(time.Second)
	require.Equal(t, coherence.NotReady, fill(c, at(10), 1))
}

// A load that began elsewhere before something happened here must not pass for a
// later one (I2): only a pulse that was published after it proves the order.
func TestLoadedElsewhereBeforeWhatHappenedHere(t *testing.T) {
	fill := func(c *coherence.Core, p bus.Position) coherence.Verdict {
		_, v := c.Fill(coherence.Fill{Key: "a", Lease: c.LeaseAt(p, p.Seq)}, time.Minute)
		return v
	}
	c := elsewhere()
	pulse(c, 11, time.Second, 2*time.Second)
	_, v := c.Fill(coherence.Fill{Key: "a", Lease: c.Lease(3*time.Second, 0)}, 3*time.Second)
	require.Equal(t, coherence.Stored, v)
	c.Evicted("a", coherence.Stamp{Seq: 11, Tick: 100, Incarnation: 101}, 4*time.Second)

	require.Equal(t, coherence.Superseded, fill(c, at(11)))
	pulse(c, 12, 3*time.Second, 5*time.Second)
	require.Equal(t, coherence.Superseded, fill(c, at(12)), "published before the eviction, perhaps")
	pulse(c, 13, 4500*time.Millisecond, 6*time.Second)
	require.Equal(t, coherence.Superseded, fill(c, at(12)))
	require.Equal(t, coherence.Stored, fill(c, at(13)))
}

// Who vouches for a value knows of no event against it; that does not make it a later
// load.
func TestLoadedElsewhereAndVouchedFor(t *testing.T) {
	c := elsewhere()
	pulse(c, 11, time.Second, 2*time.Second)
	c.Evicted("a", coherence.Stamp{Version: 7, Tick: 1, Incarnation: 101}, 3*time.Second)
	pulse(c, 12, 4*time.Second, 5*time.Second)
	l := c.LeaseAt(at(12), 2)
	require.Equal(t, at(12), l.Position)
	require.Zero(t, l.Tick)
	require.NotZero(t, c.LeaseAt(at(12), 12).Tick)
}

// An own purge whose event is to come has no seq yet by which what a sidecar that is
// ahead has loaded before it could be told from what was loaded after it (C8, I11).
func TestLoadedElsewhereBeforeAnOwnPurge(t *testing.T) {
	fill := func(c *coherence.Core, p bus.Position) coherence.Verdict {
		_, v := c.Fill(coherence.Fill{Key: "a", Lease: c.LeaseAt(p, p.Seq), Version: 1, Tags: []string{"t"}}, time.Minute)
		return v
	}
	c := elsewhere()
	pulse(c, 11, time.Second, 2*time.Second)
	purge := c.OwnPurge([]string{"t"}, "", 3*time.Second)
	flush := c.OwnFlush("b", 3*time.Second)
	require.Equal(t, coherence.Blind, fill(c, at(20)))
	c.Settled(purge)
	require.Equal(t, coherence.Blind, fill(c, at(20)), "another one is open")
	c.Settled(flush)
	require.Equal(t, coherence.Stored, fill(c, at(20)))

	c = elsewhere()
	pulse(c, 11, time.Second, 2*time.Second)
	c.OwnPurge([]string{"t"}, "", 3*time.Second)
	pulse(c, 12, 2*time.Second, 4*time.Second)
	require.Equal(t, coherence.Blind, fill(c, at(12)), "published before the purge, perhaps")
	pulse(c, 13, 4*time.Second, 5*time.Second)
	require.Equal(t, coherence.Stored, fill(c, at(13)), "the load began after the purge")

	for range 100 { // those that are too many to be kept apart stay open
		c.Settled(c.OwnPurge([]string{"t"}, "", 6*time.Second))
	}
	for range 100 {
		c.OwnPurge([]string{"t"}, "", 7*time.Second)
	}
	require.Equal(t, coherence.Blind, fill(c, at(20)))
}
