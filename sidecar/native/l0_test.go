package native_test

import (
	"strings"
	"time"

	"github.com/nearside-cache/nearside/api/near"
)

// l0 is an in-process cache that follows the rules L1 to L6 of docs/protocol.md, and no
// more.
type l0 struct {
	entries map[string]near.Value
	fresh   near.Fresh
}

func newL0() *l0 { return &l0{entries: make(map[string]near.Value)} }

// answered takes an answer about a key (L3).
func (l *l0) answered(key string, v *near.Value) {
	if delete(l.entries, key); v.Flags&near.Cacheable != 0 {
		l.entries[key] = *v
	}
}

// pushed takes a push.
func (l *l0) pushed(m near.Message) {
	switch m := m.(type) {
	case *near.Fresh:
		l.fresh = *m
	case *near.Invalidated: // L4
		for key, v := range l.entries {
			if named(m, key, v) {
				delete(l.entries, key)
			}
		}
	}
}

func named(m *near.Invalidated, key string, v near.Value) bool {
	switch m.Scope {
	case near.Keys:
		for _, n := range m.Names {
			if string(n) == key {
				return true
			}
		}
		return false
	case near.Prefix:
		return strings.HasPrefix(key, string(m.Names[0]))
	case near.Namespace:
		return near.NamespaceOf(key) == string(m.Names[0])
	case near.Linked:
		return v.Flags&near.Links != 0
	}
	return true
}

// read serves a read that begins at now and allows bound (L5).
func (l *l0) read(key string, now, bound time.Duration) (near.Value, bool) {
	f := l.fresh.AsOf
	v, ok := l.entries[key]
	f = max(f, v.AsOf)
	return v, ok && (v.Until == 0 || now < v.Until) && now-f <= bound
}

// tracking is a peer with an L0 of all that it is answered.
type tracking struct {
	*peer
	l0   *l0
	keys map[uint32]string // of the Gets under way
	done int               // of seen, how much was taken
	// answered, if it is not nil, is told of every answer in its place.
	answered func(key string, v near.Value)
}

func (r *rig) tracking(p *peer) *tracking {
	c := &tracking{peer: p, l0: newL0(), keys: make(map[uint32]string)}
	c.l0.fresh = *p.ask(near.KindTrack, &near.Track{On: true}).(*near.Fresh)
	c.done = len(p.seen)
	return c
}

// take processes what came, in its order (L2).
func (c *tracking) take() {
	for _, f := range c.seen[c.done:] {
		if key, ok := c.keys[f.id]; ok && f.kind == near.KindGet.Answer() {
			delete(c.keys, f.id)
			v := f.m.(*near.Value)
			c.l0.answered(key, v)
			if c.answered != nil {
				c.answered(key, *v)
			}
		}
		c.l0.pushed(f.m)
	}
	c.done = len(c.seen)
}

// begin sends a read whose answer is to be kept.
func (c *tracking) begin(key string, change func(*near.Get)) uint32 {
	c.t.Helper()
	g := get(key)
	g.Flags = near.ForL0
	if change != nil {
		change(g)
	}
	c.keys[c.last+1] = key
	id := c.send(near.KindGet, g)
	c.take()
	return id
}

// holds reports what L0 keeps of a key once all pushes are there.
func (c *tracking) holds(key string) string {
	c.t.Helper()
	c.ask(near.KindPing, &near.None{})
	c.take()
	return string(c.l0.entries[key].Value)
}
