package bus_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
)

func TestStartTellsNothingUntilAllOfItSucceeds(t *testing.T) {
	log := newFakeLog()
	log.events(t, 5)
	r := newRig(t, log)
	for _, call := range []string{"Append", "State", "LastPulse", "LastFork", "At", "Since", "Range"} {
		log.fail[call] = 1
		require.ErrorIs(t, r.Recover(t.Context()), errDown, call)
		require.Empty(t, r.rec.Calls())
		require.Equal(t, bus.PendingNow, r.Pending())
	}
	r.Receive(log.messages[5])
	r.recover()
	resume := r.rec.Resumes()[0]
	pulses := log.appended[subjects.Pulse()]
	require.Equal(t, pulses[len(pulses)-1].Seq, resume.Position.Seq)
	require.Equal(t, pulses[len(pulses)-1].Time, resume.Time)
	require.Len(t, resume.History, int(resume.Position.Seq))
	require.Zero(t, resume.HistoryFrom)
}

func TestStartWaitsForALaggingReplica(t *testing.T) {
	log := newFakeLog()
	r := newRig(t, log)
	log.lag = 1
	require.ErrorIs(t, r.Recover(t.Context()), bus.ErrBehind)
	log.lag = 0
	r.recover()
	require.Len(t, r.rec.Resumes(), 1)
}

func TestStartRefusesAStreamThatChangedMeanwhile(t *testing.T) {
	for _, call := range []string{"LastPulse", "Append", "LastFork", "At"} {
		log := newFakeLog()
		r := newRig(t, log)
		log.before = func(name string, _ int) {
			if name == call {
				log.before = nil
				log.cut(0)
				log.created = birth.Add(time.Minute)
				log.events(t, 3)
			}
		}
		require.ErrorIs(t, r.Recover(t.Context()), bus.ErrBehind, call)
		require.Empty(t, r.rec.Calls())
		r.recover()
		require.Equal(t, log.created.UnixNano(), r.Position().Epoch.Created)
	}
}

func TestStartWithAForkAboveItsPulse(t *testing.T) {
	log := newFakeLog()
	r := newRig(t, log)
	log.before = func(name string, _ int) {
		if name == "LastFork" {
			log.before = nil
			log.store(subjects.Fork(), "fork", []byte("{}"))
		}
	}
	require.ErrorIs(t, r.Recover(t.Context()), bus.ErrBehind)
	r.recover()
	require.Equal(t, uint64(2), r.Position().Epoch.Fork)
}

func TestForkOutlivesItsEvent(t *testing.T) {
	log := newFakeLog()
	log.store(subjects.Fork(), "fork", []byte("{}"))
	a := newRig(t, log)
	a.recover()
	log.trim(2)
	b := newRig(t, log)
	b.recover()
	require.NotZero(t, a.Position().Epoch.Fork)
	require.Zero(t, b.Position().Epoch.Fork, "a's first pulse did not know of it yet")
	a.log.events(t, 1)
	a.log.trim(4)
	a.Disturbed()
	a.recover() // a doubt; its new start pulse carries the fork
	c := newRig(t, log)
	c.recover()
	require.Equal(t, a.Position().Epoch, c.Position().Epoch)
}

func TestForkIsKnownByPulsesOlderThanTheHistory(t *testing.T) {
	log := newFakeLog()
	body, err := bus.Encode(bus.Event{Op: bus.OpPulse, Pulse: bus.Pulse{Process: "p", Fork: 77}})
	require.NoError(t, err)
	log.store(subjects.Pulse(), "pulse", body)
	log.events(t, 1)
	log.now = log.now.Add(10 * window)
	log.fail["LastFork"] = 1 // what the first try published knows of it as well
	r := newRig(t, log)
	require.ErrorIs(t, r.Recover(t.Context()), errDown)
	r.recover()
	require.Equal(t, uint64(77), r.Position().Epoch.Fork)
	for _, m := range log.appended[subjects.Pulse()] {
		require.Equal(t, uint64(77), bus.ForkOf(subjects, m))
	}
	require.Len(t, r.rec.Resumes()[0].History, 2, "the two start pulses")
}

func TestForkOfAFormerStreamIsForgotten(t *testing.T) {
	r := startedRig(t, 2)
	r.Receive(r.log.store(subjects.Fork(), "fork", []byte("{}")))
	require.NotZero(t, r.Position().Epoch.Fork)
	fresh := newFakeLog()
	fresh.created = birth.Add(time.Minute)
	*r.log = *fresh
	r.log.events(t, 9)
	r.Disturbed()
	r.recover()
	r.requireDoubts(bus.ReasonRecreated)
	require.Equal(t, bus.Epoch{Created: fresh.created.UnixNano()}, r.Position().Epoch)
}

func TestBlind(t *testing.T) {
	const all = 2 * window
	old := func(c *fakeLog) { c.now = c.created.Add(time.Hour) }
	epoch := bus.Epoch{Created: birth.UnixNano()}
	cases := []struct {
		name    string
		log     func(*fakeLog)
		earlier bus.Earlier
		limit   uint64
		blind   time.Duration
		history int
	}{
		{"nothing known of an old stream", old, bus.Earlier{}, 0, all, 1},
		{"all of this stream was followed", old, bus.Earlier{Epoch: epoch}, 0, 0, 1},
		{"followed while blind", old, bus.Earlier{Epoch: epoch, Blind: time.Second}, 0, time.Second, 1},
		{"followed while blind for long", old, bus.Earlier{Epoch: epoch, Blind: time.Hour}, 0, all, 1},
		{"followed up to the present", func(l *fakeLog) { l.events(t, 5) }, bus.Earlier{Epoch: epoch, Seq: 5}, 0, 0, 6},
		{"another stream was followed", old, bus.Earlier{Epoch: bus.Epoch{Created: epoch.Created - 1}}, 0, all, 1},
		{"another history was followed", old, bus.Earlier{Epoch: bus.Epoch{Created: epoch.Created, Fork: 1}}, 0, all, 1},
		{"what is known begins where a message is left", func(l *fakeLog) {
			old(l)
			l.events(t, 3)
			l.trim(2)
		}, bus.Earlier{Epoch: epoch, Seq: 1}, 0, 0, 3},
		{"the next was trimmed", func(l *fakeLog) {
			old(l)
			l.events(t, 3)
			l.trim(3)
		}, bus.Earlier{Epoch: epoch, Seq: 1}, 0, all, 2},
		{"purged", func(l *fakeLog) {
			old(l)
			l.events(t, 3)
			l.trim(4)
		}, bus.Earlier{Epoch: epoch, Seq: 1}, 0, all, 1},
		{"a hole in the history", func(l *fakeLog) {
			old(l)
			l.events(t, 5)
			delete(l.messages, 3)
		}, bus.Earlier{Epoch: epoch, Seq: 1}, 0, all, 1},
		{"more bytes than may be read", func(l *fakeLog) {
			old(l)
			for range 40 {
				l.store(subjects.Flush(), "", make([]byte, bus.MaxEvent))
			}
		}, bus.Earlier{Epoch: epoch}, 0, all, 32},
		{"more than may be read", func(l *fakeLog) {
			old(l)
			l.events(t, 9)
		}, bus.Earlier{Epoch: epoch}, 4, all, 4},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			log := newFakeLog()
			c.log(log)
			r := newRig(t, log, func(f *bus.FollowerConfig) {
				f.HistoryLimit = c.limit
				f.Follow.Earlier = func() bus.Earlier { return c.earlier }
			})
			r.recover()
			resume := r.rec.Resumes()[0]
			require.Equal(t, c.blind, resume.Blind)
			require.Len(t, resume.History, c.history)
			require.Equal(t, resume.Position.Seq-uint64(c.history), resume.HistoryFrom)
		})
	}
}

// What was trimmed since is missed at every start, not only at the first.
func TestWhatIsKnownWasTrimmed(t *testing.T) {
	log := newFakeLog()
	log.now = birth
	r := newRig(t, log, func(c *bus.FollowerConfig) {
		c.Follow.Earlier = func() bus.Earlier { return bus.Earlier{Epoch: bus.Epoch{Created: birth.UnixNano()}} }
	})
	r.recover()
	require.Zero(t, r.rec.Resumes()[0].Blind)
	log.event(t, "missed")
	log.event(t, "missed")
	log.trim(3)
	r.Disturbed()
	r.recover()
	require.Equal(t, 2*window, r.rec.Resumes()[1].Blind)
}

// Two windows are those of the sidecar's own clock: that of the stream may have
// jumped since (ADR 0008).
func TestHistoryReachesBackToWhatIsKnown(t *testing.T) {
	log := newFakeLog()
	log.events(t, 9)
	log.now = log.now.Add(time.Hour)
	r := newRig(t, log, func(c *bus.FollowerConfig) {
		c.Follow.Earlier = func() bus.Earlier { return bus.Earlier{Epoch: bus.Epoch{Created: log.created.UnixNano()}, Seq: 4} }
	})
	r.recover()
	resume := r.rec.Resumes()[0]
	require.Equal(t, uint64(4), resume.HistoryFrom)
	require.Zero(t, resume.Blind)
}

func TestHistoryIsOfTwoWindows(t *testing.T) {
	log := newFakeLog()
	log.event(t, "old")
	log.now = log.now.Add(2 * window)
	log.events(t, 3)
	r := newRig(t, log)
	r.recover()
	resume := r.rec.Resumes()[0]
	require.EqualValues(t, 1, resume.HistoryFrom)
	for i, d := range resume.History[:3] {
		require.Equal(t, fmt.Sprint(i+2), d.Event.Keys[0].Key)
		require.Equal(t, resume.Position.Epoch, d.Position.Epoch)
	}
}
