package l2

import (
	"bytes"
	"slices"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// Entry is a value in the shared tier, or the place of one.
//
// Of two entries of a key the newer one is that of the newer creation of the
// stream; of one creation, that with the higher version; of one version, that of
// the newer epoch and then the higher position. This is a total order, so that
// whatever pods do, what is in the bucket only moves up in it, until it expires,
// is dropped or is lost.
type Entry struct {
	// Version is the source's stamp of the value, not 0.
	Version uint64
	// Position is that of the lease under which the value was loaded, or of the
	// newest voucher (Vouch): no event up to it makes the entry stale.
	Position bus.Position
	// Digest is that of the message at Position (bus.Message): the stream may lose it,
	// and give its seq to another one. It orders nothing.
	Digest uint64
	// Loaded is the seq of that lease, in the epoch of Position. It stays when the
	// entry is vouched for: nobody may take the load for a later one.
	Loaded uint64
	Value  []byte
	// ETag is the source's validator of the value, empty when it gave none.
	ETag string
	// Tags and Depends are what else makes the value stale.
	Tags, Depends []string
	// Stored is when the value was first stored, by the wall clock of who did; now
	// when it is zero. It bounds the entry's life and orders nothing.
	Stored time.Time
	// TTL is how long the entry lives from Stored on; 0 or more than the policy's is
	// the policy's. Both are kept in milliseconds.
	TTL time.Duration
	// Claims are of those who are loading the key anew (Tier.Acquire). Where nothing but
	// they is in its place, Version is 0.
	Claims []Claim
	// Revision is where the entry was read from the bucket, 0 where there was nothing.
	// It is not stored.
	Revision uint64
}

// Claim is the right of one sidecar to load a key, or the word of one that what it has
// loaded cannot be shared.
type Claim struct {
	ID    uint64    // barren: that word
	Until time.Time // when it ends, by the wall clock of who made it, in milliseconds
}

const barren = 0

// valid returns e without the claims that have ended; nor those that would last longer
// than any does, which are of a clock that is wrong.
func (e Entry) valid(now time.Time, longest time.Duration) Entry {
	e.Claims = slices.DeleteFunc(slices.Clone(e.Claims), func(c Claim) bool {
		left := c.Until.Sub(now)
		return left <= 0 || left > longest
	})
	return e
}

// has returns where the claim is, -1 for nowhere.
func (e Entry) has(id uint64) int {
	return slices.IndexFunc(e.Claims, func(c Claim) bool { return c.ID == id })
}

// size is the memory that e holds on to, in bytes.
func (e Entry) size() (n int) {
	for _, list := range [][]string{e.Tags, e.Depends} {
		for _, text := range list {
			n += len(text)
		}
	}
	return n + len(e.Value) + len(e.ETag)
}

// Empty returns what is left of e where its value must not be kept: its place.
func (e Entry) Empty() Entry { return Entry{Claims: e.Claims, Revision: e.Revision} }

// Remaining is how long the entry has to live. Clocks that disagree shorten or
// lengthen it by as much, but never beyond the TTL.
func (e Entry) Remaining(now time.Time) time.Duration {
	return e.TTL - max(0, now.Sub(e.Stored))
}

// head is what e is ordered by, and how long it lives.
func (e Entry) head() Entry {
	return Entry{Version: e.Version, Position: e.Position, Stored: e.Stored, TTL: e.TTL}
}

// same reports whether o says of itself what e does.
func (e Entry) same(o Entry) bool {
	return e.Version == o.Version && e.Position == o.Position && e.Digest == o.Digest && e.Loaded == o.Loaded &&
		e.Stored.Equal(o.Stored) && bytes.Equal(e.Value, o.Value)
}

// newer reports whether e may replace o.
func (e Entry) newer(o Entry) bool {
	p, q := e.Position, o.Position
	switch {
	case p.Epoch.Created != q.Epoch.Created:
		return p.Epoch.Created > q.Epoch.Created
	case e.Version != o.Version:
		return e.Version > o.Version
	case p.Epoch.Fork != q.Epoch.Fork:
		return p.Epoch.Fork > q.Epoch.Fork
	}
	return p.Seq > q.Seq
}
