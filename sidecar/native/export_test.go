package native

import (
	"context"

	"github.com/nearside-cache/nearside/api/near"
)

// Await has a request wait for run, whose answer is a Pong. first, which may be nil, is
// called when its turn to be answered has come.
func (s *Session) Await(id uint32, run, first func()) {
	s.await(id, 0, &waiting{
		run: func(context.Context) { run() },
		answer: func() bool {
			if first != nil {
				first()
			}
			s.answer(near.KindPing.Answer(), id, &near.Pong{})
			return false
		},
	})
}

// Settle returns when nothing runs for the session any more: what has waited is to be
// answered.
func (s *Session) Settle() { s.running.Wait() }

// PushEvent queues an event as a subscription does.
func (s *Session) PushEvent(e near.Event) bool { return s.pushEvent(e) }

// TrackedRoom is nil while there is no room for tracked keys.
func (s *Session) TrackedRoom() any {
	if s.tracked.keys == nil {
		return nil
	}
	return s.tracked.keys
}
