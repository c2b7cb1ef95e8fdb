package bus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/bustest"
)

var (
	birth   = time.Unix(1_700_000_000, 0)
	errDown = errors.New("no answer")
)

const window = 10 * time.Second

// fakeLog is a log whose answers a test scripts.
type fakeLog struct {
	created     time.Time
	first, last uint64
	messages    map[uint64]bus.Message
	now         time.Time // stamps appended messages
	ids         map[string]uint64

	lag       uint64                   // Range and Since lack the newest messages
	maxRange  int                      // a Range answers at most so many; 0 = all
	hideForks bool                     // Last knows of no fork event
	stale     []bus.LogState           // answers of State before the true ones
	fail      map[string]int           // call name to how many calls fail
	onRange   func([]bus.Message)      // may change an answer
	before    func(call string, n int) // runs before each call, with its number
	calls     []string                 //
	appended  map[string][]bus.Message // by subject
	gone      bool                     // the stream does not exist
}

func newFakeLog() *fakeLog {
	return &fakeLog{
		created: birth, first: 1, now: birth.Add(time.Hour),
		messages: map[uint64]bus.Message{}, ids: map[string]uint64{},
		fail: map[string]int{}, appended: map[string][]bus.Message{},
	}
}

func (l *fakeLog) call(name string) error {
	l.calls = append(l.calls, name)
	if l.before != nil {
		l.before(name, len(l.calls))
	}
	if l.fail[name] > 0 {
		l.fail[name]--
		return errDown
	}
	return nil
}

func (l *fakeLog) State(context.Context) (bus.LogState, error) {
	if err := l.call("State"); err != nil {
		return bus.LogState{}, err
	}
	if l.gone {
		return bus.LogState{}, bus.ErrNotFound
	}
	if len(l.stale) > 0 {
		s := l.stale[0]
		l.stale = l.stale[1:]
		return s, nil
	}
	return l.state(), nil
}

func (l *fakeLog) state() bus.LogState {
	return bus.LogState{Created: l.created, First: l.first, Last: l.last}
}

func (l *fakeLog) At(_ context.Context, seq uint64) (bus.Message, error) {
	if err := l.call("At"); err != nil {
		return bus.Message{}, err
	}
	m, ok := l.messages[seq]
	if !ok {
		return m, fmt.Errorf("seq %d: %w", seq, bus.ErrNotFound)
	}
	return m, nil
}

func (l *fakeLog) Range(_ context.Context, from uint64, n int) ([]bus.Message, error) {
	if err := l.call("Range"); err != nil {
		return nil, err
	}
	if l.maxRange > 0 {
		n = min(n, l.maxRange)
	}
	return l.replica(n, func(m bus.Message) bool { return m.Seq >= from }), nil
}

func (l *fakeLog) Since(_ context.Context, t time.Time, n int) ([]bus.Message, error) {
	if err := l.call("Since"); err != nil {
		return nil, err
	}
	return l.replica(n, func(m bus.Message) bool { return !m.Time.Before(t) }), nil
}

func (l *fakeLog) replica(n int, want func(bus.Message) bool) (answer []bus.Message) {
	for seq := l.first; seq+l.lag <= l.last && len(answer) < n; seq++ {
		if m, ok := l.messages[seq]; ok && want(m) {
			answer = append(answer, m)
		}
	}
	if l.onRange != nil {
		l.onRange(answer)
	}
	return answer
}

func (l *fakeLog) Last(_ context.Context, subject string) (bus.Message, error) {
	name := map[string]string{subjects.Pulse(): "LastPulse", subjects.Fork(): "LastFork"}[subject]
	if err := l.call(name); err != nil {
		return bus.Message{}, err
	}
	var last bus.Message
	for seq, m := range l.messages {
		if m.Subject == subject && seq > last.Seq && (!l.hideForks || subject != subjects.Fork()) {
			last = m
		}
	}
	if last.Seq == 0 {
		return last, bus.ErrNotFound
	}
	return last, nil
}

func (l *fakeLog) Append(_ context.Context, subject, id string, data []byte) (uint64, error) {
	if err := l.call("Append"); err != nil {
		return 0, err
	}
	if l.gone {
		return 0, errDown
	}
	if seq, ok := l.ids[id]; ok {
		return seq, nil
	}
	m := l.store(subject, id, data)
	l.appended[subject] = append(l.appended[subject], m)
	return m.Seq, nil
}

func (l *fakeLog) store(subject, id string, data []byte) bus.Message {
	l.last++
	l.now = l.now.Add(time.Millisecond)
	m := bus.Message{Seq: l.last, Time: l.now, Subject: subject, MsgID: id, Data: data}
	l.messages[m.Seq] = m
	l.ids[id] = m.Seq
	return m
}

// event stores an event that names key and returns its message.
func (l *fakeLog) event(t testing.TB, key string) bus.Message {
	t.Helper()
	data, err := bus.Encode(bus.Event{Keys: []bus.KeyVersion{{Key: key}}})
	require.NoError(t, err)
	subject, err := subjects.Event("product")
	require.NoError(t, err)
	return l.store(subject, fmt.Sprintf("id-%s-%d", key, l.now.UnixNano()), data)
}

// events stores n events, keyed by their seq.
func (l *fakeLog) events(t testing.TB, n int) (stored []bus.Message) {
	t.Helper()
	for range n {
		stored = append(stored, l.event(t, fmt.Sprint(l.last+1)))
	}
	return stored
}

// cut removes everything above seq, as a rollback does.
func (l *fakeLog) cut(seq uint64) {
	for ; l.last > seq; l.last-- {
		delete(l.ids, l.messages[l.last].MsgID)
		delete(l.messages, l.last)
	}
}

// trim removes everything below seq, as retention does.
func (l *fakeLog) trim(seq uint64) {
	for ; l.first < seq; l.first++ {
		delete(l.messages, l.first)
	}
}

var subjects = func() bus.Subjects {
	s, err := bus.NewSubjects("default")
	if err != nil {
		panic(err)
	}
	return s
}()

// rig is a Follower on a fakeLog.
type rig struct {
	*bus.Follower
	log *fakeLog
	rec *bustest.Recorder
	t   *testing.T
}

func newRig(t *testing.T, log *fakeLog, change ...func(*bus.FollowerConfig)) rig {
	t.Helper()
	rec := bustest.NewRecorder()
	c := bus.FollowerConfig{
		Subjects: subjects, Log: log, Handler: rec,
		Follow: bus.FollowConfig{Window: window}, Process: "me",
	}
	for _, f := range change {
		f(&c)
	}
	f, err := bus.NewFollower(c)
	require.NoError(t, err)
	return rig{Follower: f, log: log, rec: rec, t: t}
}

// startedRig has applied the given number of events.
func startedRig(t *testing.T, events int, change ...func(*bus.FollowerConfig)) rig {
	t.Helper()
	r := newRig(t, newFakeLog(), change...)
	r.recover()
	for _, m := range r.log.events(t, events) {
		r.Receive(m)
	}
	r.log.calls = nil
	require.Equal(t, bus.PendingNothing, r.Pending())
	return r
}

func (r rig) recover() {
	r.t.Helper()
	require.NoError(r.t, r.Recover(r.t.Context()))
}

// applied returns the seqs given to the handler.
func (r rig) applied() (seqs []uint64) {
	for _, c := range r.rec.Calls() {
		if c.Applied != nil {
			seqs = append(seqs, c.Applied.Position.Seq)
		}
	}
	return seqs
}

// requireApplied wants exactly the seqs from first to last, once and in order.
func (r rig) requireApplied(first, last uint64) {
	r.t.Helper()
	var want []uint64
	for seq := first; seq <= last; seq++ {
		want = append(want, seq)
	}
	require.Equal(r.t, want, r.applied())
	bustest.Check(r.t, r.rec, nil)
}

// requireDoubts wants exactly these doubts, each followed by a Resume.
func (r rig) requireDoubts(reasons ...bus.Reason) {
	r.t.Helper()
	require.True(r.t, slices.Equal(reasons, r.rec.Doubts()), "doubts %v, want %v", r.rec.Doubts(), reasons)
	require.Len(r.t, r.rec.Resumes(), len(reasons)+1)
	bustest.Check(r.t, r.rec, nil)
}
