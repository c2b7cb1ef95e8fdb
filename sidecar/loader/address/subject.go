package address

import (
	"fmt"
	"strings"

	"github.com/nearside-cache/nearside/bus"
)

// Subject is where a NATS loader asks. The zero value is of no use; see
// ParseSubject.
type Subject struct {
	text   string
	tokens []template
	cover  coverage
}

// maxSubject is how long an expanded subject may be: with the reply's subject
// and the sizes it must fit into the 4 KiB that a server takes for a line.
const maxSubject = 3000

// ParseSubject reads a template such as cache.load.{namespace}.{rest}. Its first
// token has no place and is none of those that NATS and nearside use themselves.
// Errors are of ErrBadTemplate.
func ParseSubject(text string) (Subject, error) {
	s := Subject{text: text}
	for token := range strings.SplitSeq(text, ".") {
		t, err := parse(token)
		if err != nil {
			return Subject{}, err
		}
		if token == "" {
			return Subject{}, fmt.Errorf("%w: it has an empty token", ErrBadTemplate)
		}
		for _, p := range t {
			if i := strings.IndexFunc(p.literal, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '*' || c == '>' }); i >= 0 {
				return Subject{}, fmt.Errorf("%w: a subject to ask on has no wildcards, spaces or other than ASCII characters", ErrBadTemplate)
			}
		}
		s.tokens = append(s.tokens, t)
	}
	first, _, _ := strings.Cut(text, ".")
	if !s.tokens[0].fixed() || strings.HasPrefix(first, "$") || strings.HasPrefix(first, "_") || strings.HasPrefix(first, "nearside") {
		return Subject{}, fmt.Errorf("%w: its first token must be a name of yours: no place, and not one that begins with $, _ or nearside", ErrBadTemplate)
	}
	var err error
	s.cover, err = cover(s.tokens...)
	return s, err
}

// Expand returns the subject on which the key's value is asked for. What the key
// brings in stays in its token: no dot, wildcard or space is in it. ErrBadKey
// says that a token would be empty, or the subject too long.
func (s Subject) Expand(text string) (string, error) {
	k := split(text)
	if err := s.cover.admit(k); err != nil {
		return "", err
	}
	var subject strings.Builder
	for i, t := range s.tokens {
		token, err := t.expand(k, bus.SubjectToken)
		if err != nil {
			return "", err
		}
		if token == "" {
			return "", fmt.Errorf("%w: a token of the subject would be empty", ErrBadKey)
		}
		if i > 0 {
			subject.WriteByte('.')
		}
		subject.WriteString(token)
	}
	if subject.Len() > maxSubject {
		return "", fmt.Errorf("%w: the subject would have %d bytes, at most %d: the key is in the body too", ErrBadKey, subject.Len(), maxSubject)
	}
	return subject.String(), nil
}

// NamesNamespace reports whether keys of several namespaces have subjects of
// their own.
func (s Subject) NamesNamespace() bool { return s.cover.named }

// String names the place for people.
func (s Subject) String() string { return "nats " + s.text }
