package native

import (
	"context"
	"time"

	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/operation"
)

// maxAnswer is how many bytes the answer to a Gets has, but for one value more.
const maxAnswer = 1 << 20

// modeOf returns what a read asks for, and what of it makes no sense.
func modeOf(r *near.Read) (m cache.Mode, fault string) {
	switch r.Mode {
	case near.Class:
	case near.Any:
		m.Kind = cache.Any
	case near.MaxStale:
		m.Kind, m.MaxStale = cache.MaxStale, r.MaxStale
	case near.AtLeast:
		var err error
		if m.AtLeast, err = cache.ParseToken(r.Token); err != nil {
			return m, err.Error() + ": want one that a read or a write answered"
		}
		m.Kind = cache.AtLeast
	case near.Strong:
		m.Kind = cache.Strong
	default:
		return m, "the mode is none that this sidecar knows: want 0 to 4"
	}
	return m, ""
}

// longest is more than anybody waits, or any value lives.
const longest = time.Duration(1) << 61

// handleGet answers a Get. A hit takes the way without an allocation.
func (s *Session) handleGet(id uint32, body []byte) {
	s.get = near.Get{}
	if err := near.ParseGet(body, &s.get); err != nil {
		s.malformed(id, err)
		return
	}
	key := view(s.get.Key)
	m, fault := modeOf(&s.get.Read)
	if fault == "" {
		fault = operation.CheckKey(key)
	}
	if s.refused(id, fault) {
		return
	}
	r := s.env.NewRead(key, m, min(s.get.Wait, longest), s.now, &s.holder)
	flags := s.get.Flags
	if !s.answerGet(id, &r, flags) {
		return
	}
	parked := r
	s.await(id, len(key), &waiting{
		run:    func(ctx context.Context) { s.env.Await(ctx, &parked) },
		answer: func() bool { return s.answerGet(id, &parked, flags) },
	})
}

// answerGet appends the answer, or reports that r must wait.
func (s *Session) answerGet(id uint32, r *operation.Read, flags near.ReadFlags) (waits bool) {
	start := len(s.out)
	s.out = near.BeginValue(s.out, id)
	v, waits := s.read(r, flags)
	if waits {
		s.out = s.out[:start]
		return true
	}
	s.out = near.EndValue(s.out, start, &v)
	return false
}

// read appends the value that r finds, if there is one, and returns the rest of the
// answer.
//
// INVARIANT (O2): a key is tracked before it is read: what changes it since is told.
func (s *Session) read(r *operation.Read, flags near.ReadFlags) (v near.Value, waits bool) {
	known, added := false, false
	if s.tracking && flags&near.ForL0 != 0 {
		known, added = s.trackKey(r.Key)
	}
	out, a, waits := s.env.Try(r, s.now, s.out)
	keep := known && !waits && a.Keep.Allowed
	if added && !keep {
		s.forgetKey(r.Key)
	}
	if waits {
		return near.Value{}, true
	}
	s.out = out
	v = near.Value{Status: statuses[a.Status], Version: a.Version, AsOf: max(0, a.AsOf)}
	if keep {
		v.Flags, v.Until, v.Bound = near.Cacheable, a.Keep.Until, a.Keep.Bound
		if a.Keep.Linked {
			v.Flags |= near.Links
		}
	}
	if flags&near.WithToken != 0 {
		v.Token = a.Token.String()
	}
	if a.Status == cache.Miss {
		v.Lease = a.Lease.String()
		if a.Lease.Right != 0 {
			v.Flags |= near.Right
		}
	}
	return v, false
}

var statuses = map[cache.Outcome]near.Status{
	cache.Hit: near.Hit, cache.Stale: near.Stale, cache.Negative: near.Negative, cache.Regular: near.Regular,
	cache.Miss: near.Miss, cache.Behind: near.Behind, cache.Bypassed: near.Bypass,
}

// gets answers a Gets, when none of its keys must wait any more. It takes no rights and
// waits for nobody who has one: two that named the same keys would wait for each other.
func (s *Session) gets(id uint32, m *near.Gets) {
	mode, fault := modeOf(&m.Read)
	size := 0
	for _, key := range m.Keys {
		if fault == "" {
			fault = operation.CheckKey(view(key))
		}
		size += len(key)
	}
	if s.refused(id, fault) {
		return
	}
	reads := make([]operation.Read, len(m.Keys))
	for i, key := range m.Keys {
		reads[i] = s.env.NewRead(view(key), mode, min(m.Wait, longest), s.now, nil)
	}
	g := &getsUnderWay{session: s, id: id, reads: reads, flags: m.Flags}
	if !g.answer() {
		return
	}
	for i := range reads { // what they view ends with the frame
		reads[i].Key = string(m.Keys[i])
	}
	size += len(reads)*readBytes + (operation.AwaitCost(len(reads))-1)*waitingBytes
	s.await(id, size, &waiting{run: g.run, answer: g.answer})
}

// readBytes is what one key of a Gets takes besides the key.
const readBytes = 160

// getsUnderWay is a Gets. Its keys are read anew after each wait: no value is kept for
// as long as another one takes.
type getsUnderWay struct {
	session *Session
	id      uint32
	reads   []operation.Read
	flags   near.ReadFlags
	waiting []*operation.Read
}

// answer appends the answer, or reports that some of the keys must wait.
func (g *getsUnderWay) answer() (waits bool) {
	s := g.session
	start := len(s.out)
	g.waiting = nil
	s.out = near.BeginValues(s.out, g.id, len(g.reads))
	for i := range g.reads {
		if i%cache.PrefetchKeys == 0 {
			s.prefetch(g.reads[i:])
		}
		item := len(s.out)
		s.out = near.BeginItem(s.out)
		v := near.Value{Status: near.Unread}
		if item-start < maxAnswer {
			var waits bool
			if v, waits = s.read(&g.reads[i], g.flags); waits {
				g.waiting = append(g.waiting, &g.reads[i])
			}
		}
		s.out = near.EndItem(s.out, item, &v)
	}
	if len(g.waiting) > 0 {
		s.out = s.out[:start]
		return true
	}
	s.out = near.EndValues(s.out, start)
	return false
}

func (g *getsUnderWay) run(ctx context.Context) { g.session.env.AwaitAll(ctx, g.waiting) }
