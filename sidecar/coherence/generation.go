package coherence

import (
	"maps"
	"strings"

	"github.com/nearside-cache/nearside/bus"
)

// Horizon decides which entries are alive: those of this incarnation whose
// position is not below a wide purge that concerns them (C5). It is immutable
// and safe for concurrent use.
type Horizon struct {
	incarnation uint64
	era         uint32 // counts epochs; seqs of different eras are not compared

	domain     generation
	namespaces map[string]generation // those that were ever flushed apart
}

// generation is the newest wide purge of a namespace or of the domain.
type generation struct {
	seq   uint64
	reset uint64 // tick of the newest flush RESET: versions known before it are void
}

// Alive reports whether an entry of the key with stamp s may be served, its own
// expiry aside. It does not allocate.
func (h *Horizon) Alive(key string, s Stamp) bool {
	return s.Incarnation == h.incarnation && s.Seq >= h.generation(key)
}

// Incarnation is raised by every doubt and every change of epoch; entries and
// leases of another one are dead.
func (h *Horizon) Incarnation() uint64 { return h.incarnation }

// generation returns the seq of the newest wide purge that concerns key.
func (h *Horizon) generation(key string) uint64 {
	if len(h.namespaces) == 0 {
		return h.domain.seq
	}
	return max(h.domain.seq, h.namespaces[bus.NamespaceOf(key)].seq)
}

// reset returns the tick below which the key's known versions are void.
func (h *Horizon) reset(key string) uint64 {
	if len(h.namespaces) == 0 {
		return h.domain.reset
	}
	return max(h.domain.reset, h.namespaces[bus.NamespaceOf(key)].reset)
}

// flush purges a namespace, or the domain when namespace is empty, at seq. It
// takes as long whatever the number of entries.
func (c *Core) flush(namespace string, seq uint64, reset bool) {
	h := *c.horizon
	_, known := h.namespaces[namespace]
	if namespace == "" || !known && len(h.namespaces) >= c.cfg.MaxNamespaces {
		h.domain = h.domain.raised(seq, c.tick, reset)
	} else {
		h.namespaces = maps.Clone(h.namespaces)
		if h.namespaces == nil {
			h.namespaces = make(map[string]generation)
		}
		h.namespaces[strings.Clone(namespace)] = h.namespaces[namespace].raised(seq, c.tick, reset)
	}
	c.horizon = &h
}

func (g generation) raised(seq, tick uint64, reset bool) generation {
	g.seq = max(g.seq, seq)
	if reset {
		g.reset = tick
	}
	return g
}

// flushPrefix purges what a prefix names. Prefixes below a namespace are not
// kept apart, so the purge takes the whole namespace; a prefix that does not
// name one whole takes the domain.
func (c *Core) flushPrefix(prefix string, seq uint64) {
	namespace, _, whole := strings.Cut(prefix, ":")
	if !whole || namespace == "" {
		namespace = ""
	}
	c.flush(namespace, seq, false)
}
