// Package native is a client's conversation with the sidecar in the native protocol
// (api/near), as a function from input bytes to output bytes; see package session for
// its driver. What must wait runs in goroutines of the session, so that a waiting
// request does not hold up the next; its answer comes through Pushes.
//
// INVARIANT: everything that is written comes from the goroutine of Serve and Pushes,
// answers to requests that waited included: they read, or report, only when they are
// appended. So answers stand in the output in the order in which they were read (O1),
// and a push that was queued after an answer was read stands behind it (O2).
package native

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"github.com/nearside-cache/nearside/api"
	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/sidecar/audit"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/operation"
	"github.com/nearside-cache/nearside/sidecar/rights"
	"github.com/nearside-cache/nearside/sidecar/session"
)

// flushMark is how many bytes of answers may pile up in one Serve or Pushes, besides what
// was there before, until they must be written.
const flushMark = 64 << 10

// Session is one client's state. Its methods are called by its driver, one call at a
// time, but for Changed and Fresh.
type Session struct {
	env    *operation.Env
	cache  *cache.Cache
	client *operation.Client
	peer   func() string // names who is at the other end; nil: nobody can
	wake   func()        // tells the driver that Pushes has something

	now time.Duration // of the current Serve or Pushes
	out []byte        // of the same, so far
	get near.Get      // the current one: what points to it must not be kept

	open     bool // a Hello was accepted
	ended    bool
	fault    bool // ended by input that is no protocol
	want     int
	begun    bool
	skipping near.Header // of a frame that is too long
	skip     int         // bytes of it to come
	received uint64
	ahead    int // requests to come whose keys were prefetched

	holder  rights.Holder // of the rights to fill that its misses were given
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup // requests that wait, and the watch

	watching context.CancelFunc // ends the watch; nil without one
	watched  chan struct{}      // closed when it has ended
	tracking bool

	mu       sync.Mutex // guards what follows
	waiting  int        // requests under way that wait
	finished []*waiting // of these, those to be answered
	woken    bool       // the driver was told, and has not come yet
	tracked  tracked
	stale    queue // pushes of Invalidated
	events   queue // pushes of Event
	fresh    freshness
}

// New begins a session. wake is called, from any goroutine and from within Serve and
// Pushes, when there is something for Pushes: it must neither block nor call anything of
// the sidecar.
func New(env *session.Env, wake func()) *Session {
	s := &Session{
		env: env, cache: env.Cache, client: env.Clients.Add(), wake: wake,
		tracked: tracked{reserve: env.Reserve}, stale: queue{reserve: env.Reserve}, events: queue{reserve: env.Reserve},
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// Close ends the session and all it started. It may be called more than once.
func (s *Session) Close() {
	s.stop()
	s.running.Wait()
	s.untrack()
	s.cache.Leave(&s.holder)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.finished {
		s.release(w.held)
	}
	s.finished = nil
	s.stale.take(nil)
	s.events.take(nil)
	s.env.Clients.Remove(s.client)
}

// Identify tells the session how to learn who is at the other end. It is called before
// the first Serve; peer is called by the goroutine of Serve, when somebody must be
// named in the audit.
func (s *Session) Identify(peer func() string) { s.peer = peer }

// who is the client, for the audit.
func (s *Session) who() audit.Who {
	w := audit.Who{Peer: "not known", Client: s.client.Name, ID: s.client.ID}
	if s.peer != nil {
		w.Peer = s.peer()
	}
	return w
}

// Serve answers the requests that in begins with, as session.Session does. It never
// returns Run.
func (s *Session) Serve(in, out []byte) (n int, _ []byte, next session.Next) {
	s.out, s.now = out, s.env.Moment()
	next = s.serve(in, &n)
	out, s.out = s.out, nil
	return n, out, next
}

func (s *Session) serve(in []byte, n *int) session.Next {
	for start := len(s.out); ; {
		switch {
		case s.ended:
			return session.End
		case len(s.out)-start >= flushMark:
			return session.Flush
		case s.skip > 0 && !s.pass(in, n):
			return session.Input
		}
		s.lookAhead(in[*n:])
		h, body, err := near.Next(in[*n:])
		switch {
		case errors.Is(err, near.ErrFraming):
			s.lost(err)
		case h.Length > s.maxFrame():
			s.skipping, s.skip = h, h.Size()
		case err != nil: // ErrShort
			s.want, s.begun = 0, len(in) > *n
			if h.Kind != 0 {
				s.want = h.Size() - (len(in) - *n)
			}
			return session.Input
		default:
			*n += h.Size()
			s.received++
			s.handle(h, body)
		}
	}
}

// pass skips what has come of a frame that is too long, and reports whether that was
// all of it.
func (s *Session) pass(in []byte, n *int) bool {
	passed := min(s.skip, len(in)-*n)
	*n += passed
	if s.skip -= passed; s.skip > 0 {
		s.want, s.begun = 0, true
		return false
	}
	s.received++
	s.env.Metrics.ProtocolErrors.Inc()
	s.fail(s.skipping.ID, near.TooLarge, "the body of the %s has %d bytes: want at most %d", s.skipping.Kind, s.skipping.Length, s.maxFrame())
	return true
}

func (s *Session) maxFrame() uint32 {
	return uint32(min(cmp.Or(s.env.Limits.MaxFrame, api.DefaultMaxFrame), near.MaxFrame))
}

// lost ends the connection, because where the next frame begins cannot be known.
func (s *Session) lost(err error) {
	s.env.Metrics.ProtocolErrors.Inc()
	s.received++
	s.goodbye(near.Framing, err.Error())
	s.ended, s.fault = true, true
}

func (s *Session) goodbye(code near.Code, words string) {
	s.out = near.Append(s.out, near.KindGoodbye, 0, &near.Goodbye{Error: near.Error{Code: code, Message: words}})
}

// Refuse appends why the driver is about to end the connection.
func (s *Session) Refuse(out []byte, words string) []byte {
	s.out = out
	s.goodbye(near.Ending, words)
	out, s.out = s.out, nil
	return out
}

// WantMore is the size of a good next read in bytes, 0 when not known.
func (s *Session) WantMore() int { return s.want }

// Begun reports whether a frame has begun that is not whole.
func (s *Session) Begun() bool { return s.begun || s.skip > 0 }

// Received returns how many requests have come in whole, refused ones included.
func (s *Session) Received() uint64 { return s.received }

// Fault reports whether the session ended because what came was no frame.
func (s *Session) Fault() bool { return s.fault }

// Waiting returns nil: the driver waits for nothing.
func (s *Session) Waiting() *session.Wait { return nil }

// Finish returns out as it is.
func (s *Session) Finish(out []byte) []byte { return out }

// fail answers a request with an error.
func (s *Session) fail(id uint32, code near.Code, format string, args ...any) {
	s.answer(near.KindError, id, &near.Error{Code: code, Message: fmt.Sprintf(format, args...)})
}

func (s *Session) answer(kind near.Kind, id uint32, m near.Message) {
	s.out = near.Append(s.out, kind, id, m)
}

// reserve takes n bytes of the memory that all connections share.
func (s *Session) reserve(n int64) bool { return s.env.Reserve == nil || s.env.Reserve(n) }

func (s *Session) release(n int64) {
	if s.env.Reserve != nil {
		s.env.Reserve(-n)
	}
}

// view is b as a string without a copy, good for as long as b is.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
