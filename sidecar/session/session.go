// Package session is a client's conversation with the sidecar, as a function
// from input bytes to output bytes: it never blocks, reads no socket and starts
// no goroutine but a watcher's. What drives it, a goroutine for each connection
// or an event loop, brings the bytes, writes the answers, and runs operations
// that must be waited for.
package session

import (
	"errors"
	"sync"
	"time"
	"unsafe"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/operation"
	"github.com/nearside-cache/nearside/sidecar/rights"
)

// flushMark is how many bytes of answers may pile up before they must be
// written, so that a deep pipeline of large values takes bounded memory.
const flushMark = 64 << 10

// Session is one client's state. Everything but Push, which is safe for
// concurrent use, is called by its driver, one call at a time.
type Session struct {
	env   *Env
	cache *cache.Cache
	dec   *resp.Decoder
	now   time.Duration // of the current Serve
	out   []byte        // answers so far, of the current Serve

	client *operation.Client
	peer   func() string // names who is at the other end; nil: nobody can
	proto  resp.Proto
	authed bool
	reply  replyMode
	ended  bool
	fault  bool // ended by input that is no protocol

	// more goes on with an answer that was larger than the flush mark; it
	// returns false when it has said everything.
	more  func(*Session) bool
	wait  *Wait
	multi multi
	done  uint64 // commands received whole
	ran   int    // executed and not yet counted in the metrics
	ahead int    // commands to come whose keys were prefetched
	held  int64  // bytes reserved

	header int // length of the header of the last value answered

	loading loading // of the keys of the command under way

	holder rights.Holder // of the rights to fill that its misses were given

	watch  *watch
	wake   func() // tells the driver that Push was called
	mu     sync.Mutex
	outbox []byte // pushes not yet taken, guarded by mu
}

// New begins a session. wake is called, from any goroutine, when there is
// something to push: the driver then calls Pushes soon.
func New(env *Env, wake func()) *Session {
	s := &Session{env: env, cache: env.Cache, dec: resp.NewDecoder(env.Limits), wake: wake, client: env.Clients.Add()}
	s.reset()
	return s
}

// Close ends the session and all it started. It may be called more than once.
func (s *Session) Close() {
	s.stopWatch()
	s.cache.Leave(&s.holder)
	s.letGo(s.held)
	s.env.Clients.Remove(s.client)
}

// hold reserves n bytes that the session keeps beyond the current Serve (I15),
// or fails the current command.
func (s *Session) hold(n int64) bool {
	if s.env.Reserve != nil && !s.env.Reserve(n) {
		s.fail("ERR the memory for buffers is exhausted by all clients together; try again, or raise --memory")
		return false
	}
	s.held += n
	return true
}

// letGo gives back n of the bytes held.
func (s *Session) letGo(n int64) {
	if s.env.Reserve != nil {
		s.env.Reserve(-n)
	}
	s.held -= n
}

func (s *Session) reset() {
	s.stopWatch()
	s.proto, s.reply, s.authed = resp.RESP2, replyOn, s.env.Password == ""
	s.forget()
	s.env.Clients.Change(s.client, func(c *operation.Client) { c.Name, c.LibName, c.LibVersion = "", "", "" })
}

// Next says what a session needs before it can go on.
type Next uint8

// What a session needs next.
const (
	Input Next = iota // more bytes than it was given
	Flush             // its answers written, then Serve again
	Run               // its answers written, Waiting run, then Finish
	End               // its answers written, then the connection closed
)

// Serve answers the commands that in begins with. It returns how many bytes of
// in it is done with, out with the answers appended, and what is needed next.
// The session keeps neither slice.
func (s *Session) Serve(in, out []byte) (n int, _ []byte, next Next) {
	s.out, s.now = out, s.env.Moment()
	next = s.serve(in, &n)
	s.count()
	out, s.out = s.out, nil
	return n, out, next
}

// count adds up what was executed: once for a batch, because all sessions share the
// counter.
func (s *Session) count() {
	if s.ran > 0 {
		s.env.Metrics.Commands.Add(float64(s.ran))
		s.ran = 0
	}
}

func (s *Session) serve(in []byte, n *int) Next {
	for {
		if s.more != nil {
			if s.more(s) {
				return Flush
			}
			s.more = nil
		}
		switch {
		case s.wait != nil:
			return Run
		case s.ended:
			return End
		case len(s.out) >= flushMark:
			return Flush
		}
		if cmd, ok := s.queued(); ok {
			s.execute(cmd)
			continue
		}
		s.lookAhead(in[*n:])
		cmd, used, err := s.dec.Next(in[*n:])
		*n += used
		if errors.Is(err, resp.ErrMore) {
			return Input
		}
		if s.done++; err != nil {
			s.refuse(err)
		} else {
			s.execute(cmd)
		}
	}
}

// WantMore is the size of a good next read in bytes, 0 when not known.
func (s *Session) WantMore() int { return s.dec.WantMore() }

// Begun reports whether a command has begun that is not whole, input that was
// not consumed aside.
func (s *Session) Begun() bool { return s.dec.Begun() }

// Received returns how many commands have come in whole, refused ones included.
func (s *Session) Received() uint64 { return s.done }

// Fault reports whether the session ended because what came was no protocol.
func (s *Session) Fault() bool { return s.fault }

// Pending is 0: what waits has its driver wait.
func (s *Session) Pending() int { return 0 }

// Refuse appends why the driver is about to end the connection.
func (s *Session) Refuse(out []byte, words string) []byte { return resp.AppendError(out, "ERR "+words) }

// Pushes appends what is to be sent without having been asked for.
func (s *Session) Pushes(out []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	out = append(out, s.outbox...)
	s.outbox = s.outbox[:0]
	return out
}

// refuse answers input that is no command the session can execute.
func (s *Session) refuse(err error) {
	s.env.Metrics.ProtocolErrors.Inc()
	before := len(s.out)
	s.fail("ERR " + err.Error())
	s.multi.failed = s.multi.open
	s.mute(before)
	var limit *resp.LimitError
	s.fault = !errors.As(err, &limit)
	s.ended = s.fault
}

// Answers. Each appends one reply.

func (s *Session) ok()              { s.out = append(s.out, "+OK\r\n"...) }
func (s *Session) fail(text string) { s.out = resp.AppendError(s.out, text) }
func (s *Session) integer(n int64)  { s.out = resp.AppendInt(s.out, n) }
func (s *Session) null()            { s.out = s.proto.AppendNull(s.out) }
func (s *Session) text(t string)    { s.out = resp.AppendBulkString(s.out, t) }
func (s *Session) simple(t string)  { s.out = resp.AppendSimple(s.out, t) }
func (s *Session) array(n int)      { s.out = resp.AppendArray(s.out, n) }
func (s *Session) dict(n int)       { s.out = s.proto.AppendMap(s.out, n) }
func (s *Session) bulk(b []byte)    { s.out = resp.AppendBulk(s.out, b) }
func (s *Session) truth(v bool) {
	if v {
		s.integer(1)
	} else {
		s.integer(0)
	}
}

// view is b as a string without a copy, good for as long as b is.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
