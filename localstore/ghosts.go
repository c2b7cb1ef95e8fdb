package localstore

import "math/bits"

// ghosts remember keys whose entries went from probation unread, or were deleted
// although they were read, so that they are kept longer when they come again. They
// are fingerprints in a table without chains: a newer one takes the place of an older.
type ghosts struct {
	prints []uint16
}

// span is how much of the table is in use: as many fingerprints are remembered as
// there are entries, rounded up to a power of two, whatever their size. To remember
// more would make main a second probation.
func (g *ghosts) span(entries int) int {
	return min(1<<bits.Len(uint(entries)), len(g.prints)) // both powers of two
}

func (g *ghosts) place(mixed uint64, entries int) (*uint16, uint16) {
	// Of the low bits, so that half of them stay in place when the span changes.
	i := mixed >> 32 & uint64(g.span(entries)-1)
	return &g.prints[i], max(uint16(mixed>>16), 1)
}

func (g *ghosts) add(mixed uint64, entries int) {
	p, mark := g.place(mixed, entries)
	*p = mark
}

// take reports whether a key is remembered, and forgets it.
func (g *ghosts) take(mixed uint64, entries int) bool {
	p, mark := g.place(mixed, entries)
	if *p != mark {
		return false
	}
	*p = 0
	return true
}
