package l2

import (
	"bytes"
	"hash/maphash"
	"sync/atomic"
)

const (
	// recentSlots times recentBytes bounds the memory of a Tier for entries.
	recentSlots = 1024
	recentBytes = 4 << 10 // of an entry
)

// recent is what a Tier has lately seen in places that several wanted: of a key that
// changes often it need not be asked for before the next claim, which tells whether it
// is still there. It is good for one use. Of two keys in one slot the newer one is known.
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
	if e.Version != 0 && len(e.Claims) == 0 && e.size() <= recentBytes {
		e.Value = bytes.Clone(e.Value) // of a message that is larger
		r.slot(key).Store(&recentPlace{key: key, entry: e})
	}
}

func (r *recent) take(key string) (Entry, bool) {
	slot := r.slot(key)
	if p := slot.Load(); p != nil && p.key == key && slot.CompareAndSwap(p, nil) {
		return p.entry, true
	}
	return Entry{}, false
}
