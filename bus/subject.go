package bus

import (
	"errors"
	"fmt"
	"strings"
)

// DefaultDomain is the domain of sidecars that name none.
const DefaultDomain = "default"

// Limits of the names that become parts of a stream's name or subjects.
const (
	MaxDomain    = 32  // bytes of a domain
	MaxNamespace = 256 // bytes of a namespace
)

// Errors of names and subjects.
var (
	// ErrBadDomain says that a text cannot be the name of a domain.
	ErrBadDomain = errors.New("bus: bad domain")
	// ErrBadNamespace says that a text cannot be a namespace.
	ErrBadNamespace = errors.New("bus: bad namespace")
	// ErrBadSubject says that a subject is none of the domain's.
	ErrBadSubject = errors.New("bus: not a subject of the domain")
)

// Kind is what a subject says of its messages.
type Kind uint8

// Kinds of subjects. A message must carry an op of its subject's kind.
const (
	KindEvent Kind = iota // invalidate, refresh, update or flush of one namespace
	KindPulse             // pulse
	KindFlush             // flush of the whole domain
	KindFork              // fork
)

// Subjects names the stream of a domain and its subjects. The zero value is of
// no use; see NewSubjects.
type Subjects struct {
	domain string
	prefix string // of all subjects of the stream
}

// What follows the prefix.
const (
	tokenEvent = "ev."
	tokenPulse = "pulse"
	tokenFlush = "flush"
	tokenFork  = "fork"
)

// NewSubjects returns the subjects of a domain, whose name is 1 to MaxDomain
// characters of a-z, 0-9, _ and -.
func NewSubjects(domain string) (Subjects, error) {
	if domain == "" || len(domain) > MaxDomain {
		return Subjects{}, fmt.Errorf("%w: %.40q has %d characters, want 1 to %d", ErrBadDomain, domain, len(domain), MaxDomain)
	}
	for i := range len(domain) {
		if c := domain[i]; !isPlain(c) || c >= 'A' && c <= 'Z' {
			return Subjects{}, fmt.Errorf("%w: %q may hold a-z, 0-9, _ and - only", ErrBadDomain, domain)
		}
	}
	return Subjects{domain: domain, prefix: "nearside." + domain + "."}, nil
}

// Domain returns the name of the domain.
func (s Subjects) Domain() string { return s.domain }

// Stream returns the name of the domain's stream.
func (s Subjects) Stream() string { return "NEARSIDE_" + strings.ToUpper(s.domain) }

// All returns the wildcard that covers everything the stream holds.
func (s Subjects) All() string { return s.prefix + ">" }

// Live returns the wildcard of the republished copies (B1). It does not overlap
// All.
func (s Subjects) Live() string { return "nearside-live." + s.domain + ".>" }

// Ask returns the subject on which a process answers the others of its domain,
// by core request and reply: what its clock shows (B5), and barriers (B6). It is
// not of the stream.
func (s Subjects) Ask(process string) string {
	return "nearside-ask." + s.domain + "." + escape(process)
}

// Pulse returns the subject of pulses.
func (s Subjects) Pulse() string { return s.prefix + tokenPulse }

// Flush returns the subject of flushes of the whole domain.
func (s Subjects) Flush() string { return s.prefix + tokenFlush }

// Fork returns the subject of fork events.
func (s Subjects) Fork() string { return s.prefix + tokenFork }

// Event returns the subject of the events of one namespace, which is escaped
// into one token: bytes outside A-Z, a-z, 0-9, _ and - become %XX.
func (s Subjects) Event(namespace string) (string, error) {
	if namespace == "" || len(namespace) > MaxNamespace {
		return "", fmt.Errorf("%w: %.40q has %d bytes, want 1 to %d", ErrBadNamespace, namespace, len(namespace), MaxNamespace)
	}
	return s.prefix + tokenEvent + escape(namespace), nil
}

// For returns the subject that an event of op belongs on. An empty namespace
// stands for the whole domain, which only a flush may name.
func (s Subjects) For(namespace string, op Op) (string, error) {
	switch {
	case op == OpPulse:
		return s.Pulse(), nil
	case op == OpFork:
		return s.Fork(), nil
	case op == OpFlush && namespace == "":
		return s.Flush(), nil
	default:
		return s.Event(namespace)
	}
}

// Parse tells what a stored message's subject means. namespace is empty for all
// kinds but KindEvent. A subject that is not of this domain, or whose namespace
// is not spelled as Event spells it, gives ErrBadSubject.
func (s Subjects) Parse(subject string) (kind Kind, namespace string, err error) {
	rest, ok := strings.CutPrefix(subject, s.prefix)
	if !ok {
		return KindEvent, "", fmt.Errorf("%w %s: %.80q", ErrBadSubject, s.domain, subject)
	}
	switch rest {
	case tokenPulse:
		return KindPulse, "", nil
	case tokenFlush:
		return KindFlush, "", nil
	case tokenFork:
		return KindFork, "", nil
	}
	token, ok := strings.CutPrefix(rest, tokenEvent)
	if !ok {
		return KindEvent, "", fmt.Errorf("%w %s: %.80q", ErrBadSubject, s.domain, subject)
	}
	namespace, ok = unescape(token)
	if !ok || len(namespace) > MaxNamespace {
		return KindEvent, "", fmt.Errorf("%w %s: namespace token %.80q is not spelled as Event spells it", ErrBadSubject, s.domain, token)
	}
	return KindEvent, namespace, nil
}

// isPlain reports whether c stands for itself in a token.
func isPlain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

const hexDigits = "0123456789ABCDEF"

func escape(s string) string {
	plain := true
	for i := range len(s) {
		plain = plain && isPlain(s[i])
	}
	if plain {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; isPlain(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&15]})
		}
	}
	return b.String()
}

// unescape is the inverse of escape and accepts nothing else, so that one
// namespace has one subject.
func unescape(token string) (string, bool) {
	if escape(token) == token { // nothing in it needs escaping, the common case
		return token, token != ""
	}
	var b strings.Builder
	for i := 0; i < len(token); i++ {
		c := token[i]
		if c == '%' {
			if i+2 >= len(token) {
				return "", false
			}
			hi, lo := strings.IndexByte(hexDigits, token[i+1]), strings.IndexByte(hexDigits, token[i+2])
			if hi < 0 || lo < 0 {
				return "", false
			}
			c = byte(hi<<4 | lo)
			i += 2
		}
		b.WriteByte(c)
	}
	s := b.String()
	return s, s != "" && escape(s) == token
}
