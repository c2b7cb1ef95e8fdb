package nearside

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nearside-cache/nearside/api/near"
)

// Target is what an Invalidate names, or says of itself.
type Target struct {
	apply func(*near.Invalidate) error
	key   string // set by Key: this key and nothing else
}

// Key names a key, and the source's version of its new value; 0: none.
func Key(key string, version uint64) Target {
	return Target{key: key, apply: func(m *near.Invalidate) error {
		m.Keys = append(m.Keys, near.KeyVersion{Key: []byte(key), Version: version})
		return checkKey(key)
	}}
}

// Tag names whatever was filled with a tag.
func Tag(tag string) Target {
	return Target{apply: func(m *near.Invalidate) error {
		m.Tags = append(m.Tags, tag)
		return nil
	}}
}

// Prefix names the keys that begin with a prefix, which goes up to a ':'. One at a time.
func Prefix(prefix string) Target {
	return Target{apply: func(m *near.Invalidate) error {
		if m.Prefix != nil {
			return errors.New("one prefix at a time")
		}
		m.Prefix = []byte(prefix)
		return nil
	}}
}

// Namespace names all keys of a namespace. Nothing else may be named with it.
func Namespace(namespace string) Target {
	return Target{apply: func(m *near.Invalidate) error {
		m.Namespace = namespace
		return nil
	}}
}

// Refresh asks sidecars with a loader to load anew what is hot.
func Refresh() Target {
	return Target{apply: func(m *near.Invalidate) error {
		m.Refresh = true
		return nil
	}}
}

// ChangedAt says when the change was made, for people.
func ChangedAt(t time.Time) Target {
	return Target{apply: func(m *near.Invalidate) error {
		m.Changed = time.Duration(max(0, t.UnixNano()))
		return nil
	}}
}

// ID makes repeats of one write within two minutes one event. It must be new for every
// write.
func ID(id string) Target {
	return Target{apply: func(m *near.Invalidate) error {
		m.ID = id
		return nil
	}}
}

// Invalidate says in all pods that something has changed. Call it after the commit. It
// returns when the stream has the event and this pod's sidecar has applied it; the token
// makes a reader anywhere see it, and is left in the context's session.
//
// It waits for a sidecar that is away, and repeats what a broken connection may have
// swallowed, until WriteTimeout. An error says what became of the write:
// ErrNotPublished, ErrUncertain or ErrNotApplied.
func (c *Client) Invalidate(ctx context.Context, targets ...Target) (Token, error) {
	var m near.Invalidate
	keys := make([]string, 0, len(targets))
	for _, t := range targets {
		if err := t.apply(&m); err != nil {
			return "", writeError("invalidate", false, err)
		}
		keys = append(keys, t.key)
	}
	if len(m.Tags) > 0 || m.Prefix != nil || m.Namespace != "" {
		keys = nil // who knows which
	}
	return c.written(ctx, near.KindInvalidate, &m, keys)
}

// Update is what Client.Update publishes.
type Update struct {
	Key     string
	Version uint64 // the source's own stamp of the value; not 0
	Value   []byte
	TTL     time.Duration // 0: the policy's
	ID      string        // see the function ID; empty: none
}

// Update is an Invalidate of one key that brings its new value: sidecars that hold an
// older version replace it, as far as policy allows.
func (c *Client) Update(ctx context.Context, u Update) (Token, error) {
	if err := checkKey(u.Key); err != nil {
		return "", writeError("update", false, err)
	}
	m := near.Update{Key: []byte(u.Key), Version: u.Version, Value: u.Value, TTL: u.TTL, ID: u.ID}
	return c.written(ctx, near.KindUpdate, &m, []string{u.Key})
}

// Barrier returns when everything that was published anywhere before the call is applied
// in this pod. The token is left in the context's session.
func (c *Client) Barrier(ctx context.Context) (Token, error) {
	token, _, err := c.publish(ctx, near.KindBarrier, &near.None{})
	if err != nil {
		return "", fmt.Errorf("barrier: %w", err)
	}
	return token, nil
}

// written publishes a write. Loads of its keys that are under way began before it, and
// answer nobody who comes after; without keys, that goes for all.
func (c *Client) written(ctx context.Context, kind near.Kind, m near.Message, keys []string) (Token, error) {
	c.flights.forget(keys)
	token, sent, err := c.publish(ctx, kind, m)
	if err != nil {
		c.counters.failedWrites.Add(1)
		return "", writeError(kind.String(), sent, err)
	}
	c.counters.writes.Add(1)
	return token, nil
}

// publish sends what is answered with a Written, again while connections break, until
// WriteTimeout. sent reports whether it may have reached a sidecar.
func (c *Client) publish(ctx context.Context, kind near.Kind, m near.Message) (token Token, sent bool, err error) {
	end := time.Now().Add(c.options.WriteTimeout)
	for {
		conn, err := c.pick(ctx, true, time.Until(end))
		if err != nil {
			return "", sent, err
		}
		var w near.Written
		now, err := conn.do(ctx, &call{kind: kind, answer: &w}, m, time.Until(end))
		sent = sent || now
		if err == nil {
			sessionOf(ctx).advance(Token(w.Token))
			return Token(w.Token), true, nil
		}
		if !errors.Is(err, ErrUnavailable) || !time.Now().Before(end) {
			return "", sent, err
		}
		if err := conn.pause(ctx); err != nil {
			return "", sent, err
		}
	}
}

// pause waits for a connection that broke to be seen as such, or for one that is full to
// get room, before the same is tried again.
func (c *conn) pause(ctx context.Context) error {
	t := time.NewTimer(minBackoff)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("nearside: %w", context.Cause(ctx))
	}
}
