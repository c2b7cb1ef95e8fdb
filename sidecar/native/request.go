package native

import (
	"crypto/subtle"

	"github.com/nearside-cache/nearside/api"
	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/sidecar/clock"
	"github.com/nearside-cache/nearside/sidecar/operation"
)

// handle answers one request, or has it wait.
func (s *Session) handle(h near.Header, body []byte) {
	s.env.Metrics.Commands.Inc()
	switch {
	case !s.open && h.Kind != near.KindHello:
		s.fail(h.ID, near.NoHello, "%s came first: begin with a HELLO", h.Kind)
	case h.Kind == near.KindGet:
		s.handleGet(h.ID, body)
	default:
		serve, known := handlers[h.Kind]
		if !known {
			s.env.Metrics.UnknownCommands.Inc()
			s.fail(h.ID, near.Unknown, "this sidecar does not know %s: do without, or install a newer one", h.Kind)
			return
		}
		serve(s, h.ID, body)
	}
}

// handlers are those of all requests but Get. They may keep nothing of the body.
var handlers map[near.Kind]func(s *Session, id uint32, body []byte)

func init() { // some of them lead back to it
	handlers = map[near.Kind]func(*Session, uint32, []byte){
		near.KindHello:       parsed((*Session).hello),
		near.KindPing:        parsed((*Session).ping),
		near.KindGets:        parsed((*Session).gets),
		near.KindFill:        parsed((*Session).fill),
		near.KindRelease:     parsed((*Session).releaseRight),
		near.KindInvalidate:  parsed((*Session).invalidate),
		near.KindUpdate:      parsed((*Session).update),
		near.KindBarrier:     parsed((*Session).barrier),
		near.KindExplain:     parsed((*Session).explain),
		near.KindStatus:      parsed((*Session).status),
		near.KindPolicy:      parsed((*Session).policy),
		near.KindToggle:      parsed((*Session).toggle),
		near.KindUntoggle:    parsed((*Session).untoggle),
		near.KindSettings:    parsed((*Session).settings),
		near.KindSubscribe:   parsed((*Session).subscribe),
		near.KindUnsubscribe: parsed((*Session).unsubscribe),
		near.KindTrack:       parsed((*Session).track),
	}
}

// parsed is a handler for requests of type T, whose bytes are views.
func parsed[T any, P interface {
	*T
	near.Message
}](serve func(s *Session, id uint32, m *T)) func(*Session, uint32, []byte) {
	return func(s *Session, id uint32, body []byte) {
		m := new(T)
		if err := near.Parse(body, P(m)); err != nil {
			s.malformed(id, err)
			return
		}
		serve(s, id, m)
	}
}

func (s *Session) malformed(id uint32, err error) {
	s.env.Metrics.ProtocolErrors.Inc()
	s.fail(id, near.Malformed, "%v", err)
}

// refused answers a request whose field makes no sense, if fault says so.
func (s *Session) refused(id uint32, fault string) bool {
	if fault != "" {
		s.fail(id, near.BadValue, "%s", fault)
	}
	return fault != ""
}

func (s *Session) hello(id uint32, m *near.Hello) {
	for _, name := range []string{m.Name, m.Library, m.LibraryVersion} {
		if s.refused(id, operation.CheckName(name)) {
			return
		}
	}
	version := min(m.Max, near.Version)
	switch {
	case version < max(m.Min, near.MinVersion):
		s.fail(id, near.NoVersion, "this sidecar speaks versions %d to %d of the protocol, the client %d to %d", near.MinVersion, near.Version, m.Min, m.Max)
		return
	case s.env.Password != "" && subtle.ConstantTimeCompare([]byte(m.Password), []byte(s.env.Password)) != 1:
		s.fail(id, near.WrongPass, "a password is configured, and this is not it")
		return
	}
	s.open = true
	s.env.Clients.Change(s.client, func(c *operation.Client) {
		c.Name, c.LibName, c.LibVersion = m.Name, m.Library, m.LibraryVersion
	})
	s.answer(near.KindHello.Answer(), id, &near.Welcome{
		Version: version, Sidecar: s.env.Version, Client: uint64(s.client.ID), Incarnation: s.cache.Incarnation(),
		Clock: s.cache.Now(), BootID: clock.BootID(),
		Limits: near.Limits{
			Key: api.MaxKey, Value: uint64(s.cache.MaxValue()), Frame: uint64(s.maxFrame()), Pending: maxWaiting, Tracked: maxTracked,
		},
	})
}

// ping answers what the clock shows, behind all pushes that are queued (O4).
func (s *Session) ping(id uint32, _ *near.None) {
	s.deliver()
	s.answer(near.KindPing.Answer(), id, &near.Pong{Clock: s.cache.Now()})
}
