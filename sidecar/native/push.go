package native

import (
	"time"

	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
)

// maxQueue bounds the bytes of each kind of pushes that wait for a client that does not
// read.
const maxQueue = 1 << 20

// queue holds frames to be pushed.
type queue struct {
	reserve func(int64) bool // nil: no bound
	bytes   []byte
	held    int64
}

// add appends a push, and reports whether there was room.
func (q *queue) add(kind near.Kind, m near.Message) bool {
	before := len(q.bytes)
	q.bytes = near.Append(q.bytes, kind, 0, m)
	n := int64(len(q.bytes) - before)
	if len(q.bytes) > maxQueue || q.reserve != nil && !q.reserve(n) {
		q.bytes = q.bytes[:before]
		return false
	}
	q.held += n
	return true
}

// take appends all of it to out, and leaves the queue empty.
func (q *queue) take(out []byte) []byte {
	if len(q.bytes) == 0 {
		return out
	}
	out = append(out, q.bytes...)
	q.bytes = nil
	if q.reserve != nil {
		q.reserve(-q.held)
	}
	q.held = 0
	return out
}

// freshness is the Fresh to be pushed: only the newest counts.
type freshness struct {
	due     bool
	asOf    time.Duration
	applied bus.Position
}

// deliver appends all pushes. A Fresh stands behind the Invalidateds that were queued
// before it (O3).
func (s *Session) deliver() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = s.stale.take(s.out)
	s.out = s.events.take(s.out)
	if s.fresh.due {
		s.fresh.due = false
		s.out = near.Append(s.out, near.KindFresh, 0, &near.Fresh{AsOf: s.fresh.asOf, Applied: s.fresh.applied.String()})
	}
}

// deliverStale appends what was told to be out of date, and nothing else.
func (s *Session) deliverStale() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = s.stale.take(s.out)
}

// track begins or ends tracking.
func (s *Session) track(id uint32, m *near.Track) {
	switch {
	case !m.On:
		s.untrack()
	case !s.tracking:
		if err := s.cache.Observe(s); err != nil {
			s.fail(id, near.Busy, "%v connections track already: use one connection of a process for its L0", err)
			return
		}
		s.tracking = true
	}
	f := near.Fresh{AsOf: s.cache.Fresh(), Applied: s.cache.Applied().String()}
	s.deliverStale() // what f covers was queued before (O3): tracking may have begun long ago
	s.answer(near.KindTrack.Answer(), id, &f)
}

// untrack ends tracking, if it has begun.
func (s *Session) untrack() {
	if !s.tracking {
		return
	}
	s.cache.Unobserve(s)
	s.tracking = false
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tracked.clear()
	s.stale.take(nil)
	s.fresh.due = false
}

// trackKey tracks a key that is about to be read.
func (s *Session) trackKey(key string) (known, added bool) {
	s.mu.Lock()
	known, added, gone := s.tracked.add(key)
	wake := false
	if gone != "" {
		s.tell(near.Keys, near.Untracked, []byte(gone))
		wake = s.rouse()
	}
	s.mu.Unlock()
	if wake {
		s.wake()
	}
	return known, added
}

// forgetKey ends the tracking of a key of which the client was given nothing to keep.
func (s *Session) forgetKey(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tracked.drop(key)
}

// Changed implements cache.Observer.
func (s *Session) Changed(c cache.Change) {
	s.mu.Lock()
	wake := s.changed(c) && s.rouse()
	s.mu.Unlock()
	if wake {
		s.wake()
	}
}

// changed queues what c makes wrong of what is tracked, and reports whether there was
// something.
func (s *Session) changed(c cache.Change) (told bool) {
	if len(s.tracked.keys) == 0 {
		return false
	}
	reason := reasons[c.Cause]
	if c.All {
		s.tracked.clear()
		s.tell(near.Everything, reason)
		return true
	}
	if names := s.tracked.those(c.Keys); len(names) > 0 {
		s.tell(near.Keys, reason, names...)
		told = true
	}
	if c.Key != "" && s.tracked.drop(c.Key) {
		s.tell(near.Keys, reason, []byte(c.Key))
		told = true
	}
	if c.Prefix != "" {
		s.tell(near.Prefix, reason, []byte(c.Prefix))
		told = true
	}
	if c.Namespace != "" {
		s.tell(near.Namespace, reason, []byte(c.Namespace))
		told = true
	}
	if c.Linked {
		s.tell(near.Linked, reason)
		told = true
	}
	return told
}

var reasons = map[cache.Cause]near.Reason{
	cache.ByEvent: near.ByEvent, cache.ByWrite: near.ByWrite, cache.Replaced: near.Replaced,
	cache.ByDoubt: near.ByDoubt, cache.ByPolicy: near.ByPolicy,
}

// tell queues an Invalidated, under mu. When there is no room any more, everything is
// invalidated in the place of all that is queued.
func (s *Session) tell(scope near.Scope, reason near.Reason, names ...[]byte) {
	if s.stale.add(near.KindInvalidated, &near.Invalidated{Scope: scope, Reason: reason, Names: names}) {
		return
	}
	s.tracked.clear()
	s.stale.take(nil)
	m := near.Invalidated{Scope: near.Everything, Reason: near.Overflow}
	if scope == near.Everything {
		m.Reason = reason
	}
	s.stale.bytes = near.Append(s.stale.bytes, near.KindInvalidated, 0, &m) // too little to be accounted for
}

// Fresh implements cache.Observer.
func (s *Session) Fresh(asOf time.Duration, applied bus.Position) {
	s.mu.Lock()
	s.fresh = freshness{due: true, asOf: asOf, applied: applied}
	wake := s.rouse()
	s.mu.Unlock()
	if wake {
		s.wake()
	}
}
