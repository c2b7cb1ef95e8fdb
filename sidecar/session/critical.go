package session

import (
	"context"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/operation"
)

// readsValues reports whether a plain command is a STRONG read in a critical
// namespace (C6).
func readsValues(name string) bool {
	switch name {
	case "GET", "MGET", "GETEX", "STRLEN", "EXISTS":
		return true
	}
	return false
}

// mustCatch returns the keys that a plain read must catch up for before it is
// run: those of critical namespaces. They are copies.
func (s *Session) mustCatch(c *command, args resp.Command) (keys []string) {
	if !readsValues(c.name) {
		return nil
	}
	last := c.last
	if last < 0 {
		last += len(args)
	}
	p := s.cache.Policies()
	for _, key := range args[c.first : last+1] {
		if n := p.OfKey(view(key)); n.Critical() && n.Enforces() {
			keys = append(keys, string(key))
		}
	}
	return keys
}

// parkCritical runs a plain read when this sidecar reflects every write that was
// acknowledged before now. When that cannot be proven, it answers as if nothing
// were held, so that the client loads from the source.
func (s *Session) parkCritical(c *command, args resp.Command, keys []string) {
	own := own(args)
	var err error
	s.park(
		func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, operation.DefaultWait)
			defer cancel()
			err = s.cache.Catch(ctx, cache.Mode{Kind: cache.Strong}, keys...)
		},
		func(s *Session) {
			if err == nil {
				s.start(c, own)
				return
			}
			s.absent(c, own)
		})
}

// absent answers a plain read as if none of its keys were held.
func (s *Session) absent(c *command, args resp.Command) {
	keys := args[c.first : c.first+1]
	if c.last < 0 {
		keys = args[c.first:]
	}
	for _, k := range keys {
		s.cache.Missed(view(k), s.now)
	}
	switch c.name {
	case "MGET":
		s.array(len(keys))
		for range keys {
			s.null()
		}
	case "EXISTS", "STRLEN":
		s.integer(0)
	default:
		s.null()
	}
}

// own returns a copy of args that outlives the input buffer.
func own(args resp.Command) resp.Command {
	c := make(resp.Command, len(args))
	for i, a := range args {
		c[i] = append([]byte(nil), a...)
	}
	return c
}
