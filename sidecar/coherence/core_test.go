package coherence_test

import (
	"hash/fnv"
	"time"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/coherence"
)

// window is the fill window of all tests of this package.
const window = 10 * time.Second

func hashOf(key string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key))
	return h.Sum64()
}

const maxTrail = 16

func config() coherence.Config {
	return coherence.Config{
		Window: window, MaxFences: 64, MaxMisses: 64, MaxNamespaces: 4, GenerationSlots: 1024,
		Hash: hashOf, Incarnation: 100, FirstLife: true, MaxTrail: maxTrail,
	}
}

// entry is a value with the stamp it was stored under.
type entry struct {
	stamp coherence.Stamp
	value string
}

// shelf is the simplest store: it loses an entry only when told to.
type shelf map[string]entry

func (s shelf) Stamp(key string) (coherence.Stamp, bool) {
	e, ok := s[key]
	return e.stamp, ok
}

func (s shelf) Drop(key string) { delete(s, key) }

func (s shelf) Replace(key string, st coherence.Stamp, e bus.Event) {
	s[key] = entry{stamp: st, value: string(e.Value)}
}
