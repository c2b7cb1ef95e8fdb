package bus

import (
	"errors"
	"fmt"
	"strconv"
)

// Epoch identifies one incarnation of a stream. Seqs of different epochs are
// never compared.
type Epoch struct {
	Created int64  // when the stream was created: Unix time in ns, by its server
	Fork    uint64 // seq of the newest fork event applied; 0 = none
}

// Before reports whether e is an older incarnation than o.
func (e Epoch) Before(o Epoch) bool {
	if e.Created != o.Created {
		return e.Created < o.Created
	}
	return e.Fork < o.Fork
}

// Position is a place in a domain's history.
type Position struct {
	Epoch Epoch
	Seq   uint64
}

// Covers reports whether a sidecar that has applied everything up to p has
// applied, or covered by a flush, everything up to o. An older epoch is covered
// by any position in a newer one, since a new epoch begins with a flush.
func (p Position) Covers(o Position) bool {
	if p.Epoch != o.Epoch {
		return o.Epoch.Before(p.Epoch)
	}
	return p.Seq >= o.Seq
}

// Satisfies reports whether a sidecar at p may answer who holds token, by what the
// two say alone. It asks for more than Covers: creation times, which are those of a
// wall clock, order nothing (ADR 0009); and within one creation the seq counts
// whatever the fork part, because whoever gave out the token may not have known of
// a fork whose traces were gone from the stream. Where the fork did lose seqs of the
// token's time, it is satisfied once the stream has reached them again.
func (p Position) Satisfies(token Position) bool {
	return token.IsZero() || p.Epoch.Created == token.Epoch.Created && p.Covers(token) && p.Seq >= token.Seq
}

// IsZero reports whether p names no position at all.
func (p Position) IsZero() bool { return p == Position{} }

// ErrBadToken says that a text is not a token.
var ErrBadToken = errors.New("bus: malformed token")

// String returns the opaque text form of p that is given to users, a token.
func (p Position) String() string {
	b := make([]byte, 0, 48) // most fit
	b = strconv.AppendInt(b, p.Epoch.Created, 16)
	b = strconv.AppendUint(append(b, '-'), p.Epoch.Fork, 16)
	return string(strconv.AppendUint(append(b, '-'), p.Seq, 16))
}

// ParseToken is the inverse of Position.String.
func ParseToken(s string) (Position, error) {
	var p Position
	if n, err := fmt.Sscanf(s, "%x-%x-%x", &p.Epoch.Created, &p.Epoch.Fork, &p.Seq); n != 3 || err != nil || p.String() != s {
		return Position{}, fmt.Errorf("%w: %q", ErrBadToken, s)
	}
	return p, nil
}
