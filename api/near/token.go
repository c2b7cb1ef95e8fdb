package near

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrBadToken says that a text is no token.
var ErrBadToken = errors.New("near: malformed token")

// Token is a token taken apart, for an L0 to tell whether it covers one that a reader
// presents. Everybody else passes tokens on as they are.
type Token struct {
	Created int64  // which stream
	Fork    uint64 // which part of its history
	Seq     uint64
	Version uint64 // of the key that was read; 0: of none
}

// ParseToken takes a token apart: its parts in hexadecimal, "-" between them, the
// version only if it is not 0.
func ParseToken(s string) (Token, error) {
	parts := strings.Split(s, "-")
	if len(parts) != 3 && len(parts) != 4 {
		return Token{}, fmt.Errorf("%w: %.100q", ErrBadToken, s)
	}
	var v [4]uint64
	for i, p := range parts {
		var err error
		if v[i], err = strconv.ParseUint(p, 16, 64); err != nil {
			return Token{}, fmt.Errorf("%w: %.100q: %w", ErrBadToken, s, err)
		}
	}
	return Token{Created: int64(v[0]), Fork: v[1], Seq: v[2], Version: v[3]}, nil
}

// Covers reports whether everything up to t's position is known where applied was
// answered, as far as can be told without asking the sidecar: it knows more.
func (applied Token) Covers(t Token) bool {
	return applied.Created == t.Created && applied.Fork == t.Fork && applied.Seq >= t.Seq
}

// DefaultNamespace is the namespace of keys that name none.
const DefaultNamespace = "default"

// NamespaceOf returns the namespace of a key: what stands before its first ':', and
// DefaultNamespace where there is none or nothing before it. It is a view.
func NamespaceOf(key string) string {
	if ns, _, ok := strings.Cut(key, ":"); ok && ns != "" {
		return ns
	}
	return DefaultNamespace
}
