package near

// spec is a kind and its message.
type spec struct {
	kind Kind
	name string
	make func() Message
}

func of[T any, P interface {
	*T
	Message
}]() Message {
	return P(new(T))
}

// specs are all kinds, in the order of their values.
var specs = []spec{
	{KindHello, "HELLO", of[Hello]},
	{KindPing, "PING", of[None]},
	{KindGet, "GET", of[Get]},
	{KindGets, "GETS", of[Gets]},
	{KindFill, "FILL", of[Fill]},
	{KindRelease, "RELEASE", of[Release]},
	{KindInvalidate, "INVALIDATE", of[Invalidate]},
	{KindUpdate, "UPDATE", of[Update]},
	{KindBarrier, "BARRIER", of[None]},
	{KindExplain, "EXPLAIN", of[Explain]},
	{KindStatus, "STATUS", of[None]},
	{KindPolicy, "POLICY", of[Policy]},
	{KindToggle, "TOGGLE", of[Toggle]},
	{KindUntoggle, "UNTOGGLE", of[Untoggle]},
	{KindSettings, "SETTINGS", of[None]},
	{KindSubscribe, "SUBSCRIBE", of[None]},
	{KindUnsubscribe, "UNSUBSCRIBE", of[None]},
	{KindTrack, "TRACK", of[Track]},

	{KindError, "ERROR", of[Error]},
	{KindHello.Answer(), "HELLO answer", of[Welcome]},
	{KindPing.Answer(), "PING answer", of[Pong]},
	{KindGet.Answer(), "GET answer", of[Value]},
	{KindGets.Answer(), "GETS answer", of[Values]},
	{KindFill.Answer(), "FILL answer", of[Filled]},
	{KindRelease.Answer(), "RELEASE answer", of[Count]},
	{KindInvalidate.Answer(), "INVALIDATE answer", of[Written]},
	{KindUpdate.Answer(), "UPDATE answer", of[Written]},
	{KindBarrier.Answer(), "BARRIER answer", of[Written]},
	{KindExplain.Answer(), "EXPLAIN answer", of[Description]},
	{KindStatus.Answer(), "STATUS answer", of[Description]},
	{KindPolicy.Answer(), "POLICY answer", of[PolicyState]},
	{KindToggle.Answer(), "TOGGLE answer", of[Count]},
	{KindUntoggle.Answer(), "UNTOGGLE answer", of[Count]},
	{KindSettings.Answer(), "SETTINGS answer", of[SettingsText]},
	{KindSubscribe.Answer(), "SUBSCRIBE answer", of[None]},
	{KindUnsubscribe.Answer(), "UNSUBSCRIBE answer", of[None]},
	{KindTrack.Answer(), "TRACK answer", of[Fresh]},

	{KindInvalidated, "INVALIDATED", of[Invalidated]},
	{KindFresh, "FRESH", of[Fresh]},
	{KindEvent, "EVENT", of[Event]},
	{KindGoodbye, "GOODBYE", of[Goodbye]},
}

func specOf(k Kind) (spec, bool) {
	for _, s := range specs {
		if s.kind == k {
			return s, true
		}
	}
	return spec{}, false
}

// Kinds returns all kinds that this version knows, in the order of their values.
func Kinds() []Kind {
	all := make([]Kind, len(specs))
	for i, s := range specs {
		all[i] = s.kind
	}
	return all
}

// New returns an empty message of a kind, which is of this version.
func New(k Kind) (m Message, known bool) {
	s, known := specOf(k)
	if !known {
		return nil, false
	}
	return s.make(), true
}

// Fields describes the fields of a kind's message, in their order: nil for an
// unknown kind.
func Fields(k Kind) []Field {
	m, known := New(k)
	if !known {
		return nil
	}
	c := codec{describing: true}
	m.walk(&c)
	return c.fields
}
