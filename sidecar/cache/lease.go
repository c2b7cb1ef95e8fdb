package cache

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/coherence"
)

// Lease is handed out with a miss and presented with the fill. Its text form is
// opaque to clients.
type Lease struct {
	coherence.Lease
	// Strong says that the reader asked for STRONG: its fill is published before
	// the reader may return what it loaded (C12).
	Strong bool
	// Right is that to fill the key, if the reader was given it; 0 if not.
	Right uint64
}

// ErrBadLease says that a text is not a lease.
var ErrBadLease = errors.New("cache: malformed lease")

const leaseFormat = "%x.%x.%x.%x.%x.%t.%x"

// String returns the text form.
func (l Lease) String() string {
	p := l.Position
	return fmt.Sprintf(leaseFormat, l.Incarnation, p.Epoch.Created, p.Epoch.Fork, p.Seq, l.Tick, l.Strong, l.Right)
}

// ParseLease is the inverse of Lease.String.
func ParseLease(s string) (l Lease, err error) {
	p := &l.Position
	_, err = fmt.Sscanf(s, leaseFormat, &l.Incarnation, &p.Epoch.Created, &p.Epoch.Fork, &p.Seq, &l.Tick, &l.Strong, &l.Right)
	if err != nil || l.String() != s {
		return Lease{}, fmt.Errorf("%w: %.100q", ErrBadLease, s)
	}
	return l, nil
}

// Token is what a read or a write rests on, for ATLEAST reads: a position, and
// for a read of a versioned key the version it saw (C13).
type Token struct {
	Position bus.Position
	Version  uint64 // 0: of no key
}

// ErrBadToken says that a text is not a token.
var ErrBadToken = errors.New("cache: malformed token")

// String returns the text form, opaque to clients.
func (t Token) String() string {
	if t.Version == 0 {
		return t.Position.String()
	}
	return t.Position.String() + "-" + strconv.FormatUint(t.Version, 16)
}

// ParseToken is the inverse of Token.String.
func ParseToken(s string) (t Token, err error) {
	e := &t.Position.Epoch
	n, _ := fmt.Sscanf(s, "%x-%x-%x-%x", &e.Created, &e.Fork, &t.Position.Seq, &t.Version)
	if n < 3 || t.String() != s {
		return Token{}, fmt.Errorf("%w: %.100q", ErrBadToken, s)
	}
	return t, nil
}
