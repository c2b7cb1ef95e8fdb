package nearside

import (
	"errors"
	"fmt"

	"github.com/nearside-cache/nearside/api/near"
)

// Errors that callers may act on. They come wrapped with what happened; compare with
// errors.Is. An answer of the sidecar that is an error is a *near.Error besides, see
// errors.As. A context that ends is told by the context's own error.
var (
	// ErrUnavailable says that the sidecar gave no answer: it is away, silent, or the
	// connection broke. Read from the source; GetOrLoad does.
	ErrUnavailable = errors.New("nearside: the sidecar gave no answer")
	// ErrClosed says that Close was called.
	ErrClosed = errors.New("nearside: the client is closed")
	// ErrBadKey says that a key has no bytes, or more than 65,535.
	ErrBadKey = errors.New("nearside: a key has 1 to 65535 bytes")

	// ErrNotPublished says that a write did not reach the stream: no other pod knows of
	// it, and values from before it are served until they expire. Repeat it.
	ErrNotPublished = errors.New("nearside: the write was not published")
	// ErrUncertain says that a write may or may not reach the stream. Repeating it is
	// harmless.
	ErrUncertain = errors.New("nearside: the write was not acknowledged, and may still appear")
	// ErrNotApplied says that a write is in the stream, and that the sidecar of this pod
	// has not applied it yet. Other pods do, and this one when it catches up.
	ErrNotApplied = errors.New("nearside: the write is published, but not applied here yet")

	// ErrAbsent says that the source has no value for the key.
	ErrAbsent = errors.New("nearside: the source has no value")
	// ErrUnproven comes with a value that was loaded for a read that asked for more than
	// can be proven now: for Strong, it may be a version that is not published yet; for
	// AtLeast, the source's version is below the token's.
	ErrUnproven = errors.New("nearside: the value was loaded, but is not proven to be as fresh as asked for")
)

// unavailable is ErrUnavailable because of something.
func unavailable(step string, err error) error {
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, step, err)
}

// writeError says of a write that failed what became of it. sent: its request may have
// reached the sidecar.
func writeError(op string, sent bool, err error) error {
	var answer *near.Error
	outcome := ErrNotPublished
	switch {
	case errors.As(err, &answer) && answer.Code == near.NotApplied:
		outcome = ErrNotApplied
	case errors.As(err, &answer) && answer.Code != near.NoAck && answer.Code != near.Failed && answer.Code != near.Ending:
	case errors.As(err, &answer), sent:
		outcome = ErrUncertain
	}
	return fmt.Errorf("%s: %w: %w", op, outcome, err)
}
