package l2

import (
	"hash/maphash"
	"sync/atomic"
)

const (
	// recentSlots times recentValue bounds the memory of a Tier for places.
	recentSlots = 1024
	recentValue = 4 << 10 // bytes of a value
)

// recent is what a Tier has lately seen in places that several wanted: of a key that
// changes often it need not be asked for before the next claim, which tells whether it
// is still there. Of two keys in one slot the newer one is known.
type recent struct {
	seed  maphash.Seed
	slots [recentSlots]atomic.Pointer[recentPlace]
}

type recentPlace struct {
	key   string
	entry Entry
}

func (r *recent) slot(key string) *atomic.Pointer[recentPlace] {
	return &r.slots[maphash.String(r.seed, key)%recentSlots]
}

func (r *recent) note(key string, e Entry) {
	if e.Version != 0 && len(e.Claims) == 0 && len(e.Value) <= recentValue {
		r.slot(key).Store(&recentPlace{key: key, entry: e})
	}
}

func (r *recent) of(key string) (Entry, bool) {
	if p := r.slot(key).Load(); p != nil && p.key == key {
		return p.entry, true
	}
	return Entry{}, false
}
