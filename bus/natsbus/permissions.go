package natsbus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/nearside-cache/nearside/bus"
)

// Permission is one subject that a user of a domain may use, or must not.
type Permission struct {
	// Subject may hold wildcards.
	Subject string `json:"subject"`
	// Subscribe says that it is for subscribing, and not for publishing.
	Subscribe bool `json:"subscribe,omitempty"`
	// Forbidden says that nobody but the server should have it.
	Forbidden bool `json:"forbidden,omitempty"`
	// Optional says that a sidecar works without it, where an operator makes the
	// stream.
	Optional bool `json:"optional,omitempty"`
	// For is what it is needed for, in few words.
	For string `json:"for"`

	tried string // an instance of Subject that does no harm
}

// probe is the last part of subjects that are only tried.
const probe = "nearside-check"

// Permissions returns what a sidecar needs, and what nobody may have. A shared tier
// and loaders by NATS need more. An empty inboxPrefix stands for _INBOX.
func Permissions(s bus.Subjects, jetStreamDomain, inboxPrefix string) []Permission {
	api, name := "$JS.API.", s.Stream()
	if jetStreamDomain != "" {
		api = "$JS." + jetStreamDomain + ".API."
	}
	if inboxPrefix == "" {
		inboxPrefix = strings.TrimSuffix(nats.InboxPrefix, ".")
	}
	ask, live := s.Ask(probe), s.Live()
	return []Permission{
		{Subject: s.All(), For: "invalidations and pulses", tried: strings.TrimSuffix(s.All(), ">") + "ev." + probe},
		{Subject: api + "STREAM.INFO." + name, For: "looking at the stream", tried: api + "STREAM.INFO." + name},
		{Subject: api + "STREAM.MSG.GET." + name, For: "reading from the leader", tried: api + "STREAM.MSG.GET." + name},
		{Subject: api + "DIRECT.GET." + name, For: "fetching what was missed", tried: api + "DIRECT.GET." + name},
		{Subject: strings.TrimSuffix(ask, probe) + "*", For: "asking the other sidecars", tried: ask},
		{Subject: inboxPrefix + ".>", For: "answering them", tried: inboxPrefix + "." + probe},
		{Subject: api + "STREAM.CREATE." + name, Optional: true, For: "making the stream", tried: api + "STREAM.CREATE." + name},
		{Subject: live, Subscribe: true, For: "following the stream", tried: live},
		{Subject: strings.TrimSuffix(ask, probe) + "*", Subscribe: true, For: "being asked by the other sidecars", tried: ask},
		{Subject: inboxPrefix + ".>", Subscribe: true, For: "answers", tried: inboxPrefix + "." + probe},
		{Subject: live, Forbidden: true, For: "only the server may publish what sidecars apply (B1)", tried: strings.TrimSuffix(live, ">") + probe},
	}
}

// Denied tries the permissions of this connection's user, without an effect on the
// stream, and returns those that it should have and has not, and those that it has
// and should not. It must not be called while the bus follows. What is missing and
// optional is returned, too.
func (b *Bus) Denied(ctx context.Context) ([]Permission, error) {
	if !b.nc.IsConnected() {
		return nil, fmt.Errorf("natsbus: try the permissions: %w", b.stream.explain(nats.ErrDisconnected))
	}
	var wrong []Permission
	for _, p := range Permissions(b.config.Stream.Subjects, b.config.JetStreamDomain, b.config.InboxPrefix) {
		granted, err := b.try(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("natsbus: try the permission for %s: %w", p.Subject, b.stream.explain(err))
		}
		if granted == p.Forbidden {
			wrong = append(wrong, p)
		}
	}
	return wrong, nil
}

// try reports whether the server lets this user use a subject. It says no on the
// connection before it answers the flush.
func (b *Bus) try(ctx context.Context, p Permission) (granted bool, err error) {
	verb := "publish"
	if p.Subscribe {
		verb = "subscription"
		sub, err := b.nc.SubscribeSync(p.tried)
		if err != nil {
			return false, err
		}
		defer func() { _ = sub.Unsubscribe() }() // fails only when the connection is closed
	} else {
		// No stream takes a message that expects another one, and no request is one
		// without a body.
		err := b.nc.PublishMsg(&nats.Msg{Subject: p.tried, Header: nats.Header{headerExpected: {probe}}})
		if err != nil {
			return false, err
		}
	}
	if err := b.nc.FlushWithContext(ctx); err != nil {
		return false, err
	}
	last := b.nc.LastError()
	if !errors.Is(last, nats.ErrPermissionViolation) {
		return true, nil
	}
	m := violation.FindStringSubmatch(last.Error())
	return m == nil || !strings.EqualFold(m[1], verb) || m[2] != p.tried, nil
}
