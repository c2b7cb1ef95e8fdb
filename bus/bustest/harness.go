// Package bustest is the conformance suite that every implementation of bus.Bus
// passes. It proves the one promise that the contract makes: every event once
// and in order, or a doubt in its place, never silence.
package bustest

import (
	"context"
	"testing"

	"github.com/nearside-cache/nearside/bus"
)

// Harness is one domain with one fresh stream on the implementation under
// test, and the faults that befall it. Methods fail t when they cannot do what
// they are for; none may be left out. They are called from the test's goroutine.
type Harness interface {
	// Subjects names the domain's subjects.
	Subjects() bus.Subjects
	// Attach returns a new attachment with a connection of its own. The harness
	// closes it at the end of the test.
	Attach(t testing.TB) Attachment
	// PublishRaw stores a message as a foreign writer does (nats pub), over a
	// connection that no fault of an Attachment touches, and returns its seq. It
	// tries until ctx ends.
	PublishRaw(ctx context.Context, subject, msgID string, data []byte) (uint64, error)

	// Trim makes retention remove every message at or below upTo.
	Trim(t testing.TB, upTo uint64)
	// Purge removes all messages; numbering goes on.
	Purge(t testing.TB)
	// DeleteStream removes the stream.
	DeleteStream(t testing.TB)
	// Recreate creates the stream anew after DeleteStream. Where it can, it
	// reuses the seqs of the former one: the harder case.
	Recreate(t testing.TB)
	// Snapshot keeps a copy of the store as it is now.
	Snapshot(t testing.TB)
	// Rollback puts the copy of the last Snapshot in place of the store, as
	// power loss or a restored disk does. Creation time and numbering are those
	// of the copy; what was stored since is lost. Connections may break.
	Rollback(t testing.TB)
	// Restart kills the server and starts it again on what it had stored.
	// Connections break and come back by themselves.
	Restart(t testing.TB)
}

// Attachment is one sidecar's bus with the faults of its own connection.
type Attachment interface {
	bus.Bus
	// DropNext loses the next n live messages on their way to the follower.
	DropNext(n int)
	// DuplicateNext delivers each of the next n live messages twice.
	DuplicateNext(n int)
	// Disconnect cuts the connection, for live messages, reads and publishes,
	// and returns when it is cut. Reconnect restores it; the attachment may take
	// a moment to notice.
	Disconnect(t testing.TB)
	Reconnect(t testing.TB)
	// LiveBuffer is how many live messages at most wait while the handler
	// blocks. More than that overflows.
	LiveBuffer() int
}
