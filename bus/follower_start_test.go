package bus_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
)

func nothingKnown(*bus.FollowerConfig) {}

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
	old := func(c *fakeLog) { c.now = c.created.Add(time.Hour) }
	cases := []struct {
		name    string
		log     func(*fakeLog)
		config  func(*bus.FollowerConfig)
		blind   time.Duration
		history int
	}{
		{"an old stream, nothing trimmed", old, nothingKnown, 0, 1},
		{"a young stream", func(l *fakeLog) { l.now = l.created.Add(5*time.Second - time.Millisecond) },
			nothingKnown, 15 * time.Second, 1},
		{"a young stream that an earlier life followed", func(l *fakeLog) { l.now = l.created },
			earlier(birth, 0), 0, 1},
		{"a young stream that an earlier life followed while blind", func(l *fakeLog) { l.now = l.created },
			earlier(birth, 3*time.Second), 3 * time.Second, 1},
		{"an earlier life followed another stream", func(l *fakeLog) { l.now = l.created },
			earlier(birth.Add(-time.Second), 0), 20 * time.Second, 1},
		{"an earlier life followed this one, trimmed since", func(l *fakeLog) {
			old(l)
			l.events(t, 3)
			l.trim(4)
		}, earlier(birth, 0), 20 * time.Second, 1},
		{"trimmed, an older message is there", func(l *fakeLog) {
			old(l)
			l.events(t, 3)
			l.trim(2)
			l.now = l.now.Add(time.Minute)
			l.events(t, 2)
		}, nothingKnown, 0, 3},
		{"trimmed within the span", func(l *fakeLog) {
			old(l)
			l.events(t, 3)
			l.trim(3)
			l.now = l.now.Add(5*time.Second - time.Millisecond)
		}, nothingKnown, 15 * time.Second, 2},
		{"purged", func(l *fakeLog) {
			old(l)
			l.events(t, 3)
			l.trim(4)
		}, nothingKnown, 20 * time.Second, 1},
		{"a hole in the history", func(l *fakeLog) {
			old(l)
			l.events(t, 5)
			delete(l.messages, 3)
		}, nothingKnown, 20 * time.Second, 1},
		{"more bytes than may be read", func(l *fakeLog) {
			old(l)
			for range 40 {
				l.store(subjects.Flush(), "", make([]byte, bus.MaxEvent))
			}
		}, nothingKnown, 20*time.Second - 31*time.Millisecond, 32},
		{"more than may be read", func(l *fakeLog) {
			old(l)
			l.events(t, 9)
		}, func(c *bus.FollowerConfig) { c.HistoryLimit = 4 }, 20*time.Second - 3*time.Millisecond, 4},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			log := newFakeLog()
			c.log(log)
			r := newRig(t, log, c.config)
			r.recover()
			resume := r.rec.Resumes()[0]
			require.Equal(t, c.blind, resume.Blind)
			require.Len(t, resume.History, c.history)
			require.Equal(t, resume.Position.Seq-uint64(c.history), resume.HistoryFrom)
		})
	}
}

// earlier is a later life whose earlier one followed the stream created then.
func earlier(created time.Time, blind time.Duration) func(*bus.FollowerConfig) {
	return func(c *bus.FollowerConfig) {
		c.Follow.Earlier = func() bus.Earlier { return bus.Earlier{Created: created.UnixNano(), Blind: blind} }
	}
}

// What was trimmed since is missed at every start, not only at the first.
func TestWhatIsKnownWasTrimmed(t *testing.T) {
	log := newFakeLog()
	log.now = birth
	r := newRig(t, log, earlier(birth, 0))
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
		c.Follow.Earlier = func() bus.Earlier { return bus.Earlier{Created: log.created.UnixNano(), Seq: 4} }
	})
	r.recover()
	resume := r.rec.Resumes()[0]
	require.Equal(t, uint64(4), resume.HistoryFrom)
	require.Zero(t, resume.Blind)
}

// A stream made anew may look old, by a clock that jumped since.
func TestAnotherStreamIsBlindWhateverItsAge(t *testing.T) {
	log := newFakeLog()
	log.now = log.created.Add(time.Hour)
	r := newRig(t, log, earlier(birth.Add(-time.Second), 0))
	r.recover()
	require.Equal(t, 2*window, r.rec.Resumes()[0].Blind)
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
