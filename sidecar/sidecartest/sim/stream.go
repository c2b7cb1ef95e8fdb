package sim

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

var (
	errAway     = errors.New("sim: no connection")
	errInjected = errors.New("sim: injected failure")
	errNoStream = errors.New("sim: the stream does not exist")
	errLate     = errors.New("sim: it would be published too late")
	errDead     = errors.New("sim: the process has ended")
)

var subjects = func() bus.Subjects {
	s, err := bus.NewSubjects("default")
	if err != nil {
		panic(err)
	}
	return s
}()

// epochStart is the wall clock at the beginning of a run.
var epochStart = time.Unix(1_700_000_000, 0)

// event is what the world knows of one message that is no pulse.
type event struct {
	id     string
	what   string
	writes []write

	garbled  bool
	update   int           // the number of the value that it brings; 0: none
	until    time.Duration // it is not published later; 0: always
	restored int           // it tells of so many restores of
	source   string        // this namespace

	stored  bool
	life    int // of the stream that stored it
	seq     uint64
	acked   bool
	ackedAt time.Duration
	lost    bool // the broker lost it
	told    bool // and one that had applied it has told the fleet
}

// again registers the event e anew, which the broker has lost.
func (w *world) again(e *event) *event {
	id := e.id
	former := *e
	e = w.newEvent(e.what, e.writes)
	e.id, e.garbled, e.update, e.restored, e.source, e.until = id, former.garbled, former.update, former.restored, former.source, former.until
	w.byID[id] = e
	if e.what == fork {
		w.check.acked(e)
	}
	return e
}

// fork is what events of followers are.
const fork = "fork"

// write says that what rests on key must rest on commit n or a newer one.
type write struct {
	key  string
	n    int
	mark mark
	// versioned: it is known by the version, which counts from so many restores of
	// the source.
	versioned bool
	life      int
}

// newEvent registers what is going to be published.
func (w *world) newEvent(what string, writes []write) *event {
	e := &event{id: fmt.Sprintf("e%d", len(w.events)), what: what, writes: writes}
	w.events = append(w.events, e)
	w.byID[e.id] = e
	return e
}

// stream is the broker: the true log of the domain.
type stream struct {
	w        *world
	exists   bool
	life     int // counts incarnations
	created  time.Time
	last     uint64
	messages []bus.Message
	ids      map[string]uint64
	wrote    map[position]string // ids of all that was not lost, trimmed or not
	skew     time.Duration       // of the leader's clock
	behind   uint64              // replicas lack so many of the newest messages
}

type position struct {
	life int
	seq  uint64
}

func newStream(w *world) *stream {
	s := &stream{w: w, wrote: map[position]string{}}
	s.create()
	return s
}

func (s *stream) create() {
	s.exists, s.created = true, s.clock()
	s.life++
	// As a stream's first seq is derived from its creation time, numbers are not
	// used again.
	s.last += uint64(s.life-1) * 1000
	s.messages, s.ids = nil, map[string]uint64{}
}

func (s *stream) clock() time.Time { return epochStart.Add(s.w.now + s.skew) }

func (s *stream) first() uint64 {
	if len(s.messages) == 0 {
		return s.last + 1
	}
	return s.messages[0].Seq
}

func (s *stream) at(seq uint64) (bus.Message, bool) {
	if i := seq - s.first(); seq >= s.first() && i < uint64(len(s.messages)) {
		return s.messages[i], true
	}
	return bus.Message{}, false
}

// append stores a message and sends it to everyone attached.
func (s *stream) append(subject, id string, data []byte) (uint64, error) {
	if !s.exists {
		return 0, errNoStream
	}
	if seq, ok := s.ids[id]; ok {
		return seq, nil
	}
	if e := s.w.byID[id]; e != nil && e.until > 0 && s.w.now > e.until {
		return 0, errLate
	}
	s.last++
	m := bus.Message{Seq: s.last, Time: s.clock(), Subject: subject, MsgID: id, Data: bytes.Clone(data)}
	s.messages = append(s.messages, m)
	s.ids[id], s.wrote[position{s.life, m.Seq}] = m.Seq, id
	s.note(m)
	for _, slot := range s.w.slots {
		if slot.process != nil {
			slot.process.link.deliver(m)
		}
	}
	return m.Seq, nil
}

// note records what m stands for.
func (s *stream) note(m bus.Message) {
	if m.Subject == subjects.Fork() && s.w.byID[m.MsgID] == nil {
		e := s.w.newEvent(fork, s.w.lostWrites())
		e.id = m.MsgID
		s.w.byID[m.MsgID] = e
		s.w.check.acked(e)
		s.w.check.counts.Forks++
	}
	if e := s.w.byID[m.MsgID]; e != nil {
		if e.lost { // it comes again, and who had it before has to apply it again
			e = s.w.again(e)
		}
		e.stored, e.life, e.seq = true, s.life, m.Seq
		s.w.origin.told(e.writes)
		s.w.trace("stream: seq %d is %s", m.Seq, e.what)
	}
}

// lostWrites is what a fork event makes good for.
func (w *world) lostWrites() (writes []write) {
	for _, e := range w.events {
		if e.lost {
			writes = append(writes, byFlush(e.writes)...)
		}
	}
	return writes
}

// byFlush is what writes are to one who has flushed all for them: no version
// matters.
func byFlush(writes []write) []write {
	writes = slices.Clone(writes)
	for i := range writes {
		writes[i].versioned, writes[i].life = false, 0
	}
	return writes
}

// trim removes the oldest n messages. Who trusts what was lost is told by the log
// (B3) or a pulse that names it (B3a): not if what took its place goes before any
// of them. Retention leaves an hour for that, and purges are denied (B7).
func (s *stream) trim(n int) {
	s.messages = slices.Clone(s.messages[min(n, len(s.messages)):])
	for _, slot := range s.w.slots {
		if p := slot.process; p != nil && p.watch.owes && p.watch.life == s.life && p.watch.from < s.first() {
			p.watch.untold = true
		}
	}
}

// rollBack loses the newest n messages, and their numbers are used again.
func (s *stream) rollBack(n int) {
	n = min(n, len(s.messages))
	keep := len(s.messages) - n
	forked := false
	for _, m := range s.messages[keep:] {
		delete(s.ids, m.MsgID)
		delete(s.wrote, position{s.life, m.Seq})
		if e := s.w.byID[m.MsgID]; e != nil {
			e.lost, e.stored = true, false
			s.w.origin.lost(e)
			forked = forked || e.what == fork
		}
	}
	if forked { // what it told is lost as well
		for _, e := range s.w.events {
			e.told = false
		}
	}
	s.messages = slices.Clone(s.messages[:keep])
	s.last -= uint64(n)
	for _, slot := range s.w.slots {
		if p := slot.process; p != nil && p.watch.life == s.life && p.watch.applied > s.last {
			p.watch.trusts(s.last + 1)
		}
	}
}

func (s *stream) state() (bus.LogState, error) {
	if !s.exists {
		return bus.LogState{}, bus.ErrNotFound
	}
	return bus.LogState{Created: s.created, First: s.first(), Last: s.last}, nil
}

func (s *stream) read(n int, want func(bus.Message) bool) ([]bus.Message, error) {
	if !s.exists {
		return nil, errNoStream
	}
	view := s.messages[:len(s.messages)-int(min(s.behind, uint64(len(s.messages))))]
	i := slices.IndexFunc(view, want)
	if i < 0 {
		return nil, nil
	}
	return slices.Clone(view[i:min(i+n, len(view))]), nil
}

func (s *stream) newest(subject string) (bus.Message, error) {
	if !s.exists {
		return bus.Message{}, errNoStream
	}
	for _, m := range slices.Backward(s.messages) {
		if m.Subject == subject {
			return m, nil
		}
	}
	return bus.Message{}, bus.ErrNotFound
}
