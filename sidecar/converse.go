package sidecar

import (
	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/sidecar/native"
	"github.com/nearside-cache/nearside/sidecar/session"
)

// conversation is a client's dialogue as a function from bytes to bytes, whatever
// the protocol. Its driver calls one method at a time.
type conversation interface {
	// Serve answers what in begins with; see [session.Session.Serve].
	Serve(in, out []byte) (n int, _ []byte, next session.Next)
	// Ahead appends to keys, as far as it has room, those that Serve will read first, as
	// views of in, which Serve is then given.
	Ahead(in []byte, keys []string) []string
	// Pushes appends what is to be sent unasked; it is called after a wake.
	Pushes(out []byte) []byte
	// WantMore is the size of a good next read in bytes, 0 when not known.
	WantMore() int
	// Begun reports whether a command has begun that is not whole, input that was
	// not consumed aside.
	Begun() bool
	// Received returns how many commands have come in whole.
	Received() uint64
	// Fault reports whether it ended because what came was no protocol.
	Fault() bool
	// Waiting is the operation that Serve stopped for with session.Run. It is run
	// where blocking is allowed, while nothing else is done with the conversation;
	// then comes Finish, which appends its answer.
	Waiting() *session.Wait
	Finish(out []byte) []byte
	// Pending is how many requests wait beside others, whose answers come with Pushes:
	// they are let end before the connection is when the sidecar drains.
	Pending() int
	// Refuse appends why its driver ends the connection.
	Refuse(out []byte, words string) []byte
	// Close ends what the conversation started. It may be called more than once.
	Close()
}

// converse begins the conversation that a connection's first byte asks for. wake
// is called, from any goroutine, when there is something to push; peer names who is
// at the other end.
func converse(first byte, env *session.Env, wake func(), peer func() string) conversation {
	if first == near.Magic {
		s := native.New(env, wake)
		s.Identify(peer)
		return s
	}
	s := session.New(env, wake)
	s.Identify(peer)
	return s
}
