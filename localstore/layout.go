package localstore

import (
	"fmt"
	"math/bits"
	"sort"
)

// Limits. Sizes are in bytes.
const (
	// MaxKey is the length of the longest key.
	MaxKey = 65535
	// MaxHangs bounds Meta.Hangs.
	MaxHangs = 1024
	// DefaultMaxValue is used when Config.MaxValue is 0.
	DefaultMaxValue = 1 << 20

	// limitMaxValue and limitBudget keep a shard under 4 GiB: the index holds 32-bit
	// offsets.
	limitMaxValue = 256 << 20
	limitBudget   = 1 << 40
)

const (
	// meanEntry is the mean size of a record from which on the rings are full before
	// the index is.
	meanEntry = 128
	// page is what the runtime rounds large memory up to.
	page = 8 << 10

	maxShards = 256
	// leastShard is the least memory of one of several shards: they are for readers that
	// do not wait for each other, and eviction knows its own shard only.
	leastShard = 1 << 20
	// entriesPerShard is how many of the largest entries a shard should hold
	// before there are more shards: a large value then evicts a fifth of one.
	entriesPerShard = 5
	// probationShare is the part of a shard's rings that is probation.
	probationShare = 10
	// probationFit is how many entries probation must hold for one to go there.
	probationFit = 4
)

// layout says how a budget is split. All but shards is of one shard.
type layout struct {
	shards    int // a power of two
	probation int // bytes of its ring
	main      int // bytes of its ring
	entries   int // at most
	slots     int // of the index, at most
	ghosts    int // a power of two
}

// rings returns the bytes of all rings together.
func (l layout) rings() int64 { return int64(l.shards) * int64(l.probation+l.main) }

// ringBytes is what a record takes of a ring: itself and its length as a varint.
func ringBytes(n int) int {
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
func largest(maxValue int) int64 { return int64(ringBytes(maxHeader + MaxKey + maxPad + maxValue)) }

// plan splits a budget for the worst case: rings full, indexes full, the writer's
// buffer grown to the largest entry.
func plan(budget int64, maxValue int) (layout, error) {
	if maxValue < 0 || maxValue > limitMaxValue {
		return layout{}, fmt.Errorf("localstore: maximum value size of %d bytes: must be 0 (for %d) to %d", maxValue, DefaultMaxValue, limitMaxValue)
	}
	if budget > limitBudget {
		return layout{}, fmt.Errorf("localstore: budget of %d bytes: must not be over %d", budget, int64(limitBudget))
	}
	entry := largest(maxValue)
	for shards := maxShards; shards > 1; shards /= 2 {
		if l := split(budget, entry, shards); int64(l.main) >= max(entriesPerShard*entry, leastShard) {
			return l, nil
		}
	}
	if l := split(budget, entry, 1); holds(l, entry) {
		return l, nil
	}
	return layout{}, fmt.Errorf("%w: %d bytes cannot hold values of %d bytes: raise the budget to %d or lower the maximum value size",
		ErrBudget, budget, maxValue, least(entry))
}

// holds reports whether a layout can hold the largest entry. A ring begins at offset 1.
func holds(l layout, entry int64) bool { return int64(l.main) > entry }

// split returns the largest layout with this many shards that keeps to the budget: for
// 1000 bytes of ring it has, where records are of meanEntry bytes, 8 for each slot of the
// index, 2 for each ghost, and 4 for each entry of one shard in each open scan.
func split(budget, entry int64, shards int) layout {
	const entries = 1000 / float64(meanEntry)
	perMille := 1000 + entries*(8*float64(fullDen)/fullNum+2+4*maxScans/float64(shards))
	rings := int(max(float64(budget-entry)*1000/perMille, 0)) / shards
	l := layout{shards: shards, probation: max(rings/probationShare/page, 1) * page}
	l.main = (rings - l.probation) / page * page
	l.entries = rings / meanEntry
	l.slots = l.entries*fullDen/fullNum + 1
	l.ghosts = 1 << (bits.Len(uint(l.entries)|1) - 1)
	return l
}

// least returns the smallest budget that holds an entry.
func least(entry int64) int64 {
	return int64(sort.Search(limitBudget, func(b int) bool { return holds(split(int64(b), entry, 1), entry) }))
}
