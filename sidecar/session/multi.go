package session

import (
	"fmt"

	"github.com/nearside-cache/nearside/api"
	"github.com/nearside-cache/nearside/api/resp"
)

var multiCommands = []command{
	{"MULTI", 1, "fast no_multi", 0, 0, 0, "Begins to collect commands; see EXEC", (*Session).begin},
	{"EXEC", 1, "fast", 0, 0, 0, "Executes what was collected, in order but not as one step", (*Session).exec},
	{"DISCARD", 1, "fast", 0, 0, 0, "Forgets what was collected", (*Session).discard},
}

// multi is the state of MULTI. Clients wrap their pipelines in it by default, so
// it is a queue: the commands run in order when EXEC comes. They are no
// transaction, because those of other clients may run in between; WATCH is
// refused for that reason.
type multi struct {
	open   bool  // between MULTI and EXEC
	failed bool  // a command could not be queued: EXEC runs nothing
	held   int64 // bytes reserved for what is queued
	queue  []resp.Command
}

// What a queued command and each of its arguments take beyond their bytes.
const (
	queuedCommand  = 64
	queuedArgument = 48
)

// forget drops what is queued and ends MULTI.
func (s *Session) forget() {
	s.letGo(s.multi.held)
	s.multi = multi{}
}

// collects reports whether c is put into the queue instead of being run.
func (m *multi) collects(c *command) bool {
	return m.open && c.name != "EXEC" && c.name != "DISCARD" && c.name != "MULTI" && c.name != "RESET" && c.name != "QUIT"
}

func (s *Session) begin(resp.Command) {
	if s.multi.open {
		s.fail("ERR MULTI calls can not be nested")
		return
	}
	s.multi = multi{open: true}
	s.ok()
}

func (s *Session) discard(resp.Command) {
	if !s.multi.open {
		s.fail("ERR DISCARD without MULTI")
		return
	}
	s.forget()
	s.ok()
}

// collect copies a command into the queue.
func (s *Session) collect(args resp.Command) {
	size := int64(queuedCommand + queuedArgument*len(args))
	for _, a := range args {
		size += int64(len(a))
	}
	if total := s.multi.held + size; total > api.DefaultMaxFrame {
		s.fail(fmt.Sprintf("ERR the commands since MULTI take %d bytes: want at most %d", total, api.DefaultMaxFrame))
		return
	}
	if !s.hold(size) {
		return
	}
	s.multi.held += size
	s.multi.queue = append(s.multi.queue, own(args))
	s.simple("QUEUED")
}

// exec answers with an array whose elements are the answers of the queued
// commands; they are run by serve, since each may have to be waited for.
func (s *Session) exec(resp.Command) {
	m := &s.multi
	switch {
	case !m.open:
		s.fail("ERR EXEC without MULTI")
	case m.failed:
		s.forget()
		s.fail("EXECABORT Transaction discarded because of previous errors.")
	default:
		s.array(len(m.queue))
		m.open = false
	}
}

// queued takes the next command of an EXEC under way.
func (s *Session) queued() (resp.Command, bool) {
	m := &s.multi
	if m.open || len(m.queue) == 0 {
		if !m.open && m.held > 0 {
			s.forget() // the last one has run
		}
		return nil, false
	}
	next := m.queue[0]
	m.queue = m.queue[1:]
	return next, true
}
