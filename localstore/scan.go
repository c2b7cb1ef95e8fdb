package localstore

import (
	"errors"
	"fmt"
	"slices"
	"sync"
)

// ErrCursor says that a scan cannot go on: its cursor is not from the step
// before, or too many others were begun since. Begin again with 0.
var ErrCursor = errors.New("localstore: unknown scan cursor")

const (
	// MaxScanCount is the most entries that a step of a scan returns.
	MaxScanCount = 1000
	// maxScans is how many scans may be under way. Each keeps the tags of one shard's
	// entries.
	maxScans = 4
)

// Entry is a key that a scan has come across.
type Entry struct {
	Key  string // the caller's to keep
	Meta Meta
}

// scan is a scan between two steps.
type scan struct {
	cursor uint64   // that the next step must name
	resets uint64   // of the Store when it began
	shard  int      // the next whose tags are taken
	tags   []uint32 // to be looked for in the shard before: what it held when they were taken
	rest   []Entry  // of the tag before, which were too many for the step
}

// scans are those under way, the one that rested longest first.
type scans struct {
	mu     sync.Mutex
	last   uint64 // cursor given out
	open   []scan
	closed bool // none may rest any more
}

// take removes the scan with this cursor, so that only one step goes on with it.
func (s *scans) take(cursor uint64) (scan, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.open, func(sc scan) bool { return sc.cursor == cursor })
	if i < 0 {
		return scan{}, false
	}
	sc := s.open[i]
	s.open = slices.Delete(s.open, i, i+1)
	return sc, true
}

// rest keeps a scan for its next step, and returns the cursor for it; 0 when the
// Store was closed meanwhile.
func (s *scans) rest(sc scan) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0
	}
	if len(s.open) == maxScans {
		s.open = slices.Delete(s.open, 0, 1)
	}
	s.last++
	sc.cursor = s.last
	s.open = append(s.open, sc)
	return sc.cursor
}

func (s *scans) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open, s.closed = nil, true
}

// Scan returns the next entries of a walk through the Store, at most count (1 to
// MaxScanCount; others are limited to that), expired ones included. A cursor of
// 0 begins a walk; next is the cursor of the next step, or 0 at the end. A step
// may return nothing and not be the last.
//
// Every key that is there from the first step to the last comes once, others
// may. A cursor is good for one step. Four walks can be under way: beginning
// another ends the one that rested longest, whose next step returns ErrCursor. A
// Reset ends them all, without an error: nothing that was there is left.
func (s *Store) Scan(cursor uint64, count int) (entries []Entry, next uint64, err error) {
	sh := s.shelf.Load()
	if sh == nil {
		return nil, 0, ErrClosed
	}
	count = min(max(count, 1), MaxScanCount)
	var sc scan
	if cursor == 0 {
		sc = scan{resets: s.resets.Load()}
	} else {
		var ok bool
		if sc, ok = s.scans.take(cursor); !ok {
			return nil, 0, fmt.Errorf("%w %d: begin again with 0", ErrCursor, cursor)
		}
	}
	if sc.resets != s.resets.Load() {
		return nil, 0, nil
	}
	for looked := 0; looked < count; {
		switch {
		case len(sc.rest) > 0:
			entries, sc.rest = append(entries, sc.rest[0]), sc.rest[1:]
			looked++
		case len(sc.tags) > 0:
			sc.rest = sh.shards[sc.shard-1].tagged(uint64(sc.tags[0]))
			sc.tags = sc.tags[1:]
			if len(sc.rest) == 0 {
				looked++ // it has gone
			}
		case sc.shard == len(sh.shards):
			return entries, 0, nil
		default:
			sc.tags = sh.shards[sc.shard].tags()
			sc.shard++
		}
	}
	return entries, s.scans.rest(sc), nil
}

// tags returns the tag of every entry, each once.
func (s *shard) tags() []uint32 {
	s.mu.RLock()
	x := s.index.Load()
	tags := make([]uint32, 0, s.entries)
	for i := range x.slots {
		if w := x.at(i); w != 0 {
			tags = append(tags, uint32(w.tag()))
		}
	}
	s.mu.RUnlock()
	slices.Sort(tags)
	return slices.Compact(tags)
}

// tagged returns the entries with a tag.
func (s *shard) tagged(tag uint64) (entries []Entry) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	x := s.index.Load()
	for i := x.home(tag); ; i = x.next(i) {
		w := x.at(i)
		if w == 0 {
			return entries
		}
		var r record
		if w.tag() == tag && r.parse(s.rings[w.ring()].at(w.offset())) == nil {
			entries = append(entries, Entry{Key: string(r.key), Meta: r.own()})
		}
	}
}
