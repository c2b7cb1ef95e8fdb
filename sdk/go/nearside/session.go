package nearside

import (
	"context"
	"strings"
	"sync/atomic"

	"github.com/nearside-cache/nearside/api/near"
)

// Token is the position of a write, or of what a read rests on. Reads that present it are
// at least as new, in any pod. It is opaque text; pass it on as it is.
type Token string

// position is a token taken apart, for L0. A token that cannot be taken apart is for the
// sidecar to judge.
type position struct {
	near.Token
	known bool
}

func positionOf(t Token) position {
	p, err := near.ParseToken(string(t))
	return position{p, err == nil}
}

// session is where a context's writes leave their token.
type session struct{ now atomic.Pointer[sessionToken] }

// sessionToken is a session's token at a moment. Immutable.
type sessionToken struct {
	Token
	position
}

type sessionKey struct{}

// ContextWithSession returns a context in which reads see writes: Invalidate, Update and
// Barrier leave their token in it, and reads through it that do not say how fresh they
// must be are AtLeast that. One session is for one user's request, or one after the
// other; TokenFrom and WithToken take it to another process.
func ContextWithSession(ctx context.Context) context.Context {
	return context.WithValue(ctx, sessionKey{}, &session{})
}

// ContextWithToken is ContextWithSession with a token to begin with, such as one that
// another process sent along.
func ContextWithToken(ctx context.Context, t Token) context.Context {
	s := &session{}
	s.advance(t)
	return context.WithValue(ctx, sessionKey{}, s)
}

// TokenFrom returns the token of the context's session; empty: there is none.
func TokenFrom(ctx context.Context) Token {
	t, _ := sessionOf(ctx).get()
	return t
}

func sessionOf(ctx context.Context) *session {
	s, _ := ctx.Value(sessionKey{}).(*session)
	return s
}

// get returns the token, and what it says. Of no session it is empty.
func (s *session) get() (Token, position) {
	if s == nil {
		return "", position{}
	}
	if at := s.now.Load(); at != nil {
		return at.Token, at.position
	}
	return "", position{}
}

// advance puts a later token in. Its version, if it has one, is of one key and the
// session is for all: it is left out. Of tokens of two streams the one that came last is
// taken: a stream that took another's place has flushed everything.
func (s *session) advance(t Token) {
	if s == nil || t == "" {
		return
	}
	p := positionOf(t)
	if p.known && p.Version != 0 {
		t = t[:strings.LastIndexByte(string(t), '-')]
		p.Version = 0
	}
	next := &sessionToken{t, p}
	for {
		old := s.now.Load()
		if old != nil && p.known && old.known && p.Created == old.Created && (p.Fork < old.Fork || p.Fork == old.Fork && p.Seq < old.Seq) {
			return
		}
		if s.now.CompareAndSwap(old, next) {
			return
		}
	}
}
