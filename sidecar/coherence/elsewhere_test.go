package coherence_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/coherence"
)

// elsewhere is a core that has applied up to seq 10, where what is known begins at 6.
// The digest of a message is 100 times its seq.
func elsewhere() *coherence.Core {
	c := coherence.New(config(), shelf{})
	r := bus.Resume{Position: bus.Position{Seq: 10}, HistoryFrom: 5}
	for seq := r.HistoryFrom + 1; seq <= 10; seq++ {
		r.History = append(r.History, bus.Delivery{Position: at(seq), Digest: 100 * seq, Event: bus.Event{Op: bus.OpPulse}})
	}
	c.Resume(r, 0)
	return c
}

func pulse(c *coherence.Core, seq uint64, fresh, now time.Duration) {
	c.Apply(bus.Delivery{Position: bus.Position{Seq: seq}, Digest: 100 * seq, Fresh: fresh, Event: bus.Event{Op: bus.OpPulse}}, now)
}

// take offers a value of a that was loaded elsewhere under a lease at p.
func take(c *coherence.Core, p bus.Position, f coherence.Fill) coherence.Verdict {
	l, v := c.LeaseAt("a", coherence.Elsewhere{Good: p, Digest: 100 * p.Seq, Loaded: p.Seq})
	if v != coherence.Stored {
		return v
	}
	f.Key, f.Lease = "a", l
	_, v = c.Fill(f, time.Minute)
	return v
}

func at(seq uint64) bus.Position { return bus.Position{Seq: seq} }

// What another sidecar loaded is judged by all that came here since the position of
// its lease, and only where all of that is known (C2).
func TestLoadedElsewhere(t *testing.T) {
	fill := func(c *coherence.Core, p bus.Position, version uint64) coherence.Verdict {
		return take(c, p, coherence.Fill{Version: version})
	}
	c := elsewhere()
	require.Equal(t, coherence.Blind, fill(c, at(5), 1), "nobody knows here what that message was")
	require.Equal(t, coherence.OtherIncarnation, fill(c, bus.Position{Epoch: bus.Epoch{Fork: 1}, Seq: 7}, 1), "another epoch")
	require.Equal(t, coherence.Stored, fill(c, at(6), 1))
	require.Equal(t, coherence.Ahead, fill(c, at(11), 2))

	c = elsewhere()
	c.Apply(bus.Delivery{Position: at(11), Digest: 1100, Namespace: "default", Event: bus.Event{Keys: []bus.KeyVersion{{Key: "a"}}}}, time.Second)
	require.Equal(t, coherence.Invalidated, fill(c, at(10), 9))
	require.Equal(t, coherence.Stored, fill(c, at(11), 9))

	c = elsewhere()
	c.Doubt(time.Second)
	require.Equal(t, coherence.NotReady, fill(c, at(10), 1))
}

// After a rollback a seq is that of another message: who never had the lost ones can
// tell by the digest alone that a position is not one of the stream any more (I1).
func TestLoadedElsewhereUnderALostLog(t *testing.T) {
	c := elsewhere()
	_, v := c.LeaseAt("a", coherence.Elsewhere{Good: at(10), Digest: 999, Loaded: 10})
	require.Equal(t, coherence.OtherLog, v)
	_, v = c.LeaseAt("a", coherence.Elsewhere{Good: at(10), Digest: 1000, Loaded: 10})
	require.Equal(t, coherence.Stored, v)

	for seq := uint64(11); seq < 11+maxTrail; seq++ { // no more than so many are remembered
		pulse(c, seq, 0, time.Second)
	}
	require.Equal(t, coherence.Blind, take(c, at(10), coherence.Fill{Version: 1}))
	for seq := uint64(11); seq < 11+maxTrail; seq++ {
		require.Equal(t, coherence.Stored, take(c, at(seq), coherence.Fill{Version: seq}), seq)
	}
	c.Resume(bus.Resume{Position: at(50), HistoryFrom: 49, History: []bus.Delivery{{Position: at(50), Digest: 5000}}}, time.Minute)
	require.Equal(t, coherence.Blind, take(c, at(11+maxTrail-1), coherence.Fill{Version: 99}), "of before a doubt")
	require.Equal(t, coherence.Stored, take(c, at(50), coherence.Fill{Version: 99}))
}

// A load that began elsewhere after the event of an own write was applied there began
// after the write; one that began before it is void, whatever its version (C8).
func TestLoadedElsewhereAfterAnOwnWrite(t *testing.T) {
	event := func(c *coherence.Core, seq uint64) {
		c.Apply(bus.Delivery{Position: at(seq), Digest: 100 * seq, Event: bus.Event{Keys: []bus.KeyVersion{{Key: "a", Version: seq}}}}, time.Second)
	}
	fill := func(c *coherence.Core, seq uint64) coherence.Verdict {
		return take(c, at(seq), coherence.Fill{Version: 1000 + seq})
	}
	c := elsewhere()
	first, _ := c.OwnWrite("a", time.Second)
	event(c, 11)
	require.Equal(t, coherence.Voided, fill(c, 11), "whose event that is nobody knows yet")
	second, _ := c.OwnWrite("a", time.Second)
	c.OwnWritten(first, 11)
	require.Equal(t, coherence.Voided, fill(c, 11), "there is a newer one")
	event(c, 12)
	event(c, 13)
	c.OwnWritten(second, 13)
	require.Equal(t, coherence.Voided, fill(c, 12), "loaded before it")
	require.Equal(t, coherence.Stored, fill(c, 13))

	c = elsewhere()
	lost, _ := c.OwnWrite("a", time.Second)
	c.Doubt(time.Second)
	c.Resume(bus.Resume{Position: at(20), HistoryFrom: 19, History: []bus.Delivery{{Position: at(20), Digest: 2000}}}, time.Second)
	c.OwnWritten(lost, 20)
	require.Equal(t, coherence.Voided, fill(c, 20), "seq 20 may be one of another log")
}

// A load that began elsewhere before something happened here must not pass for a
// later one (I2): only a pulse that was published after it proves the order.
func TestLoadedElsewhereBeforeWhatHappenedHere(t *testing.T) {
	fill := func(c *coherence.Core, p bus.Position) coherence.Verdict { return take(c, p, coherence.Fill{}) }
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
	l, _ := c.LeaseAt("a", coherence.Elsewhere{Good: at(12), Digest: 1200, Loaded: 2})
	require.Equal(t, at(12), l.Position)
	require.Zero(t, l.Tick)
	l, _ = c.LeaseAt("a", coherence.Elsewhere{Good: at(12), Digest: 1200, Loaded: 12})
	require.NotZero(t, l.Tick)
}

// An own purge whose event is to come has no seq yet by which what a sidecar that is
// ahead has loaded before it could be told from what was loaded after it (C8, I11).
func TestLoadedElsewhereBeforeAnOwnPurge(t *testing.T) {
	fill := func(c *coherence.Core, p bus.Position) coherence.Verdict {
		return take(c, p, coherence.Fill{Version: 1, Tags: []string{"t"}})
	}
	c := elsewhere()
	pulse(c, 11, time.Second, 2*time.Second)
	purge := c.OwnPurge([]string{"t"}, "", 3*time.Second)
	flush := c.OwnFlush("b", 3*time.Second)
	pulse(c, 12, 2*time.Second, 4*time.Second)
	require.Equal(t, coherence.Voided, fill(c, at(12)))
	c.Settled(purge)
	require.Equal(t, coherence.Voided, fill(c, at(12)), "another one is open")
	c.Settled(flush)
	require.Equal(t, coherence.Stored, fill(c, at(12)))

	c = elsewhere()
	pulse(c, 11, time.Second, 2*time.Second)
	c.OwnPurge([]string{"t"}, "", 3*time.Second)
	pulse(c, 12, 2*time.Second, 4*time.Second)
	require.Equal(t, coherence.Voided, fill(c, at(12)), "published before the purge, perhaps")
	pulse(c, 13, 4*time.Second, 5*time.Second)
	require.Equal(t, coherence.Stored, fill(c, at(13)), "the load began after the purge")

	for range 100 { // those that are too many to be kept apart stay open
		c.Settled(c.OwnPurge([]string{"t"}, "", 6*time.Second))
	}
	for range 100 {
		c.OwnPurge([]string{"t"}, "", 7*time.Second)
	}
	require.Equal(t, coherence.Voided, fill(c, at(13)))
}

// A pulse of a backlog is fresh as of longer ago than what is remembered of the past: then
// it proves nothing.
func TestPulseFromBeforeWhatIsRemembered(t *testing.T) {
	c := elsewhere()
	now := time.Duration(0)
	busy := func(until time.Duration) {
		for now < until {
			now += 160 * time.Millisecond
			c.Evicted(fmt.Sprint("other", now%7), coherence.Stamp{Version: 1, Tick: 1, Incarnation: 101}, now)
		}
	}
	busy(10 * time.Second)
	c.OwnWrite("a", now) // at 10 s, its publish fails
	busy(60 * time.Second)
	// The pulse was published as of 5 s, and a was loaded elsewhere right after it.
	pulse(c, 11, 5*time.Second, now)
	v := take(c, at(11), coherence.Fill{Version: 1})
	require.Equal(t, coherence.Voided, v, "loaded elsewhere before the own write")
}

// Neither does a moment as of which a sidecar is fresh that lies as far back.
func TestUpdateFromBeforeWhatIsRemembered(t *testing.T) {
	c := elsewhere()
	now := time.Duration(0)
	seq := uint64(10)
	ev := func(until time.Duration) {
		for now < until {
			now += 160 * time.Millisecond
			seq++
			c.Apply(bus.Delivery{Position: at(seq), Digest: 100 * seq, Event: bus.Event{Keys: []bus.KeyVersion{{Key: "other"}}}}, now)
		}
	}
	ev(20 * time.Second)
	seq++
	c.Apply(bus.Delivery{Position: at(seq), Digest: 100 * seq, Event: bus.Event{Keys: []bus.KeyVersion{{Key: "a"}}}}, now)
	ev(75 * time.Second)
	l := c.UpdateLease(20 * time.Second) // fresh as of 20 s: the lease is that of 10 s
	_, v := c.Fill(coherence.Fill{Key: "a", Lease: l, Version: 1}, now)
	require.NotEqual(t, coherence.Stored, v, "an event without a version came after the lease's moment (lease seq %d)", l.Position.Seq)
}
