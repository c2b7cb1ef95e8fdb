// Package membus is the bus contract in memory, with the faults of a real
// broker at the push of a button. Tests of what stands on a bus use it, and
// demonstrations that need no server.
//
// Everything works under testing/synctest: it waits on channels and timers
// only, and no lock is held while it waits.
package membus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// Errors of calls that had no answer.
var (
	errAway     = errors.New("membus: disconnected from the stream")
	errNoStream = errors.New("membus: the stream does not exist")
	errInjected = errors.New("membus: injected failure")
)

// Stream is the ordered log of one domain and the broker that keeps it. Its
// methods other than Attach and Publish are faults and repairs; all are safe for
// concurrent use.
type Stream struct {
	subjects bus.Subjects

	mu       sync.Mutex
	exists   bool
	store    store
	saved    store
	lag      uint64
	attached map[*Bus]struct{}

	responder Responder               // of requests, nil when nobody listens
	buckets   map[string]*bucketStore // by name
}

// store is what a disk would hold.
type store struct {
	created  time.Time
	last     uint64
	fork     uint64 // fork part of the epoch
	messages []bus.Message
	ids      map[string]uint64
}

func newStore(origin uint64) store {
	return store{created: time.Now(), last: origin - 1, ids: map[string]uint64{}}
}

func (s store) clone() store {
	s.messages, s.ids = slices.Clone(s.messages), maps.Clone(s.ids)
	return s
}

// position completes a seq with the epoch.
func (s store) position(seq uint64) bus.Position {
	return bus.Position{Epoch: bus.Epoch{Created: s.created.UnixNano(), Fork: s.fork}, Seq: seq}
}

func (s store) first() uint64 {
	if len(s.messages) == 0 {
		return s.last + 1
	}
	return s.messages[0].Seq
}

// from returns the index of the first message at or above seq.
func (s store) from(seq uint64) int {
	i, _ := slices.BinarySearchFunc(s.messages, seq, func(m bus.Message, seq uint64) int {
		if m.Seq < seq {
			return -1
		}
		return 1
	})
	return i
}

// NewStream returns a domain with an empty stream whose numbering begins at 1.
// An invalid domain gives bus.ErrBadDomain.
func NewStream(domain string) (*Stream, error) {
	subjects, err := bus.NewSubjects(domain)
	if err != nil {
		return nil, err
	}
	return &Stream{subjects: subjects, exists: true, store: newStore(1), attached: map[*Bus]struct{}{}}, nil
}

// Subjects names the domain's subjects.
func (s *Stream) Subjects() bus.Subjects { return s.subjects }

// Publish stores a message as a foreign writer does. data is copied.
func (s *Stream) Publish(subject, msgID string, data []byte) (uint64, error) {
	p, err := s.append(subject, msgID, data)
	return p.Seq, err
}

// append stores one message and republishes it to everyone attached.
func (s *Stream) append(subject, msgID string, data []byte) (bus.Position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.exists {
		return bus.Position{}, errNoStream
	}
	st := &s.store
	seq, stored := st.ids[msgID]
	if !stored || msgID == "" {
		st.last++
		seq = st.last
		m := bus.Message{Seq: seq, Time: time.Now(), Subject: subject, MsgID: msgID, Data: bytes.Clone(data)}
		st.messages = append(st.messages, m)
		st.ids[msgID] = seq
		st.fork = max(st.fork, bus.ForkOf(s.subjects, m))
		for b := range s.attached {
			b.feed.deliver(m)
		}
	}
	return st.position(seq), nil
}

// position completes a seq with the present epoch.
func (s *Stream) position(seq uint64) bus.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.position(seq)
}

// Trim removes every message at or below upTo, as retention does.
func (s *Stream) Trim(upTo uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store.messages = slices.Clone(s.store.messages[s.store.from(upTo+1):])
}

// Purge removes all messages; numbering goes on.
func (s *Stream) Purge() { s.Trim(s.Last()) }

// Remove deletes one message, which leaves a hole. A correctly set stream
// forbids it (B7).
func (s *Stream) Remove(seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store.messages = slices.DeleteFunc(slices.Clone(s.store.messages), func(m bus.Message) bool { return m.Seq == seq })
}

// Last returns the seq of the newest message ever stored.
func (s *Stream) Last() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.last
}

// Delete removes the stream.
func (s *Stream) Delete() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exists = false
}

// Recreate creates the stream anew, with numbering from origin on.
func (s *Stream) Recreate(origin uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exists, s.store = true, newStore(origin)
}

// Snapshot keeps a copy of the store as it is now.
func (s *Stream) Snapshot() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saved = s.store.clone()
}

// Rollback puts the last Snapshot in place of the store, which power loss or a
// restored disk can do. Nobody is told.
func (s *Stream) Rollback() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store, s.exists = s.saved.clone(), true
}

// Lag makes range and time reads come from a replica that lacks the newest n
// messages; 0 ends it.
func (s *Stream) Lag(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag = n
}

// Restart kills the broker and starts it again: all connections break and come
// back.
func (s *Stream) Restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for b := range s.attached {
		b.feed.disturb()
	}
}

// state answers as the leader.
func (s *Stream) state() (bus.LogState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.exists {
		return bus.LogState{}, bus.ErrNotFound
	}
	return bus.LogState{Created: s.store.created, First: s.store.first(), Last: s.store.last}, nil
}

// at answers as the leader.
func (s *Stream) at(seq uint64) (bus.Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.exists {
		return bus.Message{}, errNoStream
	}
	if i := s.store.from(seq); i < len(s.store.messages) && s.store.messages[i].Seq == seq {
		return s.store.messages[i], nil
	}
	return bus.Message{}, fmt.Errorf("seq %d: %w", seq, bus.ErrNotFound)
}

// read answers as a replica, with messages from the index that start names.
func (s *Stream) read(n int, start func(store) int) ([]bus.Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.exists {
		return nil, errNoStream
	}
	view := s.store
	if s.lag > 0 {
		view.messages = view.messages[:view.from(view.last-min(s.lag, view.last)+1)]
	}
	messages := view.messages[start(view):]
	return slices.Clone(messages[:min(n, len(messages))]), nil
}

// newest answers as the leader.
func (s *Stream) newest(subject string) (bus.Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.exists {
		return bus.Message{}, errNoStream
	}
	for _, m := range slices.Backward(s.store.messages) {
		if m.Subject == subject {
			return m, nil
		}
	}
	return bus.Message{}, bus.ErrNotFound
}

// log is the stream as one attachment reaches it.
type log struct{ b *Bus }

func reach[T any](ctx context.Context, b *Bus, call func() (T, error)) (T, error) {
	err := ctx.Err()
	if err == nil {
		err = b.feed.reachable()
	}
	if err != nil {
		var none T
		return none, err
	}
	return call()
}

func (l log) State(ctx context.Context) (bus.LogState, error) {
	return reach(ctx, l.b, l.b.stream.state)
}

func (l log) At(ctx context.Context, seq uint64) (bus.Message, error) {
	return reach(ctx, l.b, func() (bus.Message, error) { return l.b.stream.at(seq) })
}

func (l log) Range(ctx context.Context, from uint64, n int) ([]bus.Message, error) {
	return reach(ctx, l.b, func() ([]bus.Message, error) {
		return l.b.stream.read(n, func(s store) int { return s.from(from) })
	})
}

func (l log) Since(ctx context.Context, t time.Time, n int) ([]bus.Message, error) {
	return reach(ctx, l.b, func() ([]bus.Message, error) {
		return l.b.stream.read(n, func(s store) int {
			i := slices.IndexFunc(s.messages, func(m bus.Message) bool { return !m.Time.Before(t) })
			if i < 0 {
				return len(s.messages)
			}
			return i
		})
	})
}

func (l log) Last(ctx context.Context, subject string) (bus.Message, error) {
	return reach(ctx, l.b, func() (bus.Message, error) { return l.b.stream.newest(subject) })
}

func (l log) Append(ctx context.Context, subject, msgID string, data []byte) (uint64, error) {
	p, err := l.b.append(ctx, subject, msgID, data)
	return p.Seq, err
}
