package bus

import (
	"context"
	"errors"
)

// ErrNoResponders says that nobody listens on the subject of a request. It is
// known at once, without waiting for a deadline.
var ErrNoResponders = errors.New("bus: nobody answers on this subject")

// Requester asks one question and returns the first answer, past the stream:
// nothing of it is stored or ordered. It is safe for concurrent use.
type Requester interface {
	// Request sends body on subject and returns the first reply. It blocks until
	// there is one, ctx ends or the connection breaks. Nobody listening gives
	// ErrNoResponders. header and body are not kept; values in header are text
	// without line breaks, and the case of their names counts.
	Request(ctx context.Context, subject string, header map[string][]string, body []byte) (Reply, error)
}

// Reply is the answer to a request. It belongs to the caller.
type Reply struct {
	Header map[string][]string // names as the responder spelled them
	Body   []byte
}

// SubjectToken escapes any text into one token of a subject, which no dot,
// wildcard or space in it can leave: bytes outside A-Z, a-z, 0-9, _ and - become
// %XX. Different texts give different tokens. An empty text gives an empty token,
// which no subject may hold.
func SubjectToken(text string) string { return escape(text) }
