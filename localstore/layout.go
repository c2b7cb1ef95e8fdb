package localstore

import "fmt"

// Limits. Sizes are in bytes.
const (
	// MaxKey is the length of the longest key.
	MaxKey = 65535
	// MaxHangs bounds Meta.Hangs.
	MaxHangs = 1024
	// DefaultMaxValue is used when Config.MaxValue is 0.
	DefaultMaxValue = 1 << 20

	// limitMaxValue and limitBudget keep a shard under 4 GiB: bigcache's index
	// holds 32-bit offsets.
	limitMaxValue = 256 << 20
	limitBudget   = 1 << 40
)

const (
	mib = 1 << 20

	// maxHead is the most of a key that bigcache can hold: it adds the 18 bytes
	// of its own header to the length in 16 bits.
	maxHead = MaxKey - bigcacheHeader
	// bigcacheHeader is bigcache's timestamp, hash and key length.
	bigcacheHeader = 8 + 8 + 2

	// minEntry is the least that an entry takes of a ring, and so bounds their
	// number, and the index with it.
	minEntry = 128
	// indexBytes is what the index may take for an entry: measured up to 49 in
	// Go 1.26's map[uint64]uint32 under churn, on average 35.
	indexBytes = 48
	// entryHint is the size of entry that bigcache is told. It divides a ring
	// into the number of entries that bigcache sizes two maps for, one of which
	// stays unused; small keeps the buffers small, large the maps.
	entryHint = 8 << 10

	maxShards = 256
	// entriesPerShard is how many of the largest entries a shard should hold
	// before there are more shards: a large value then evicts a fifth of one.
	entriesPerShard = 5
)

// layout says how a budget is split.
type layout struct {
	shards int   // a power of two
	shard  int64 // bytes of one shard's ring
}

// ring returns the bytes of all rings together, in whole MiB.
func (l layout) ring() int64 { return int64(l.shards) * l.shard }

// ringBytes is what an entry takes of a ring: bigcache's header, the part of
// the key that bigcache holds, our entry, and the length of it all as a varint.
func ringBytes(headLen, entryLen int) int {
	n := bigcacheHeader + headLen + entryLen
	// As bigcache's getNeededSize: the length counts itself.
	switch {
	case n < 1<<7-1:
		return n + 1
	case n < 1<<14-2:
		return n + 2
	case n < 1<<21-3:
		return n + 3
	case n < 1<<28-4:
		return n + 4
	}
	return n + 5
}

// largest returns what the largest entry takes of a ring.
func largest(maxValue int) int64 { return int64(ringBytes(maxHead, maxHeader+maxValue)) }

// plan splits a budget for the worst case: rings full of the smallest entries,
// every buffer grown to the largest.
func plan(budget int64, maxValue int) (layout, error) {
	if maxValue < 0 || maxValue > limitMaxValue {
		return layout{}, fmt.Errorf("localstore: maximum value size of %d bytes: must be 0 (for %d) to %d", maxValue, DefaultMaxValue, limitMaxValue)
	}
	if budget > limitBudget {
		return layout{}, fmt.Errorf("localstore: budget of %d bytes: must not be over %d", budget, int64(limitBudget))
	}
	entry := largest(maxValue)
	for shards := maxShards; shards > 1; shards /= 2 {
		if l := split(budget, entry, shards); l.shard >= entriesPerShard*entry {
			return l, nil
		}
	}
	// A ring begins at offset 1.
	if l := split(budget, entry, 1); l.shard >= entry+1 {
		return l, nil
	}
	return layout{}, fmt.Errorf("%w: %d bytes cannot hold values of %d bytes: raise the budget to %d or lower the maximum value size",
		ErrBudget, budget, maxValue, least(entry))
}

// split returns the largest layout with this many shards that keeps to the
// budget.
func split(budget, entry int64, shards int) layout {
	n := int64(shards)
	ring := (budget - (n+1)*entry) * 1000 / perMille(n) / mib * mib
	return layout{shards: shards, shard: max(ring, 0) / n}
}

// perMille is what a ring of 1000 bytes costs with the index, the map that
// bigcache leaves unused, and the positions of open scans, which are 8 bytes
// for each entry of one shard.
func perMille(shards int64) int64 {
	return 1000 + 1000*indexBytes/minEntry + 1000*indexBytes/entryHint + 1 + 1000*maxScans*8/minEntry/shards
}

// least returns the smallest budget that holds an entry.
func least(entry int64) int64 {
	ring := (entry + mib) / mib * mib
	return 2*entry + ring*perMille(1)/1000 + 1
}
