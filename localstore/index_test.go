package localstore

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func addressOf(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

func TestWord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mixed, ring, reads := rapid.Uint64().Draw(t, "mixed"), rapid.IntRange(0, 1).Draw(t, "ring"), rapid.IntRange(0, maxReads).Draw(t, "reads")
		offset := rapid.Uint32Min(1).Draw(t, "offset")
		w := newWord(mixed, ring, offset, reads)
		require.Equal(t, mixed>>tagShift, w.tag())
		require.Equal(t, ring, w.ring())
		require.Equal(t, reads, w.reads())
		require.Equal(t, offset, w.offset())
	})
}

// Every word that was added and not removed is found between its home and the first
// empty slot, whatever was removed and however the index grew.
func TestIndex(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(firstSlots, 200).Draw(t, "limit")
		x := newIndex(firstSlots)
		held := map[word]bool{}
		next := uint32(0)
		find := func(w word) int {
			for i := x.home(w.tag()); ; i = x.next(i) {
				switch x.at(i) {
				case w:
					return i
				case 0:
					return -1
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				if len(held)*fullDen >= len(x.slots)*fullNum {
					if len(x.slots) == limit {
						return
					}
					x = x.grown(limit)
				}
				next++
				// Few tags, next to each other and at the end, so that runs meet and wrap.
				tag := rapid.Uint64Range(0, 40).Draw(t, "tag") - 20
				w := newWord(tag<<tagShift, 0, next, 0)
				x.add(w)
				held[w] = true
			},
			"remove": func(t *rapid.T) {
				if len(held) == 0 {
					return
				}
				some := make([]word, 0, len(held))
				for i := range x.slots {
					if w := x.at(i); w != 0 {
						some = append(some, w)
					}
				}
				w := rapid.SampledFrom(some).Draw(t, "word")
				x.remove(find(w))
				delete(held, w)
				require.Equal(t, -1, find(w))
			},
			"": func(t *rapid.T) {
				n := 0
				for i := range x.slots {
					if x.at(i) != 0 {
						n++
					}
				}
				require.Equal(t, len(held), n)
				for w := range held {
					require.NotEqual(t, -1, find(w))
				}
			},
		})
	})
}

func TestReadsAreCountedToThree(t *testing.T) {
	x := newIndex(4)
	x.set(1, newWord(0, 0, 7, 0))
	for want := range 6 {
		require.Equal(t, min(want, maxReads), x.at(1).reads())
		x.read(1, x.at(1))
	}
	require.EqualValues(t, 7, x.at(1).offset())
	stale := x.at(1)
	x.set(1, newWord(0, 0, 9, 0))
	x.read(1, stale)
	require.Equal(t, newWord(0, 0, 9, 0), x.at(1), "the slot was given to another meanwhile")
}

func TestGhosts(t *testing.T) {
	g := ghosts{prints: make([]uint16, 64)}
	require.False(t, g.take(mix(1), 50))
	g.add(mix(1), 50)
	require.True(t, g.take(mix(1), 50))
	require.False(t, g.take(mix(1), 50), "once")
	for i := range uint64(10_000) { // no more than there are entries
		g.add(mix(i), 10)
	}
	n := 0
	for i := range uint64(10_000) {
		if g.take(mix(i), 10) {
			n++
		}
	}
	require.LessOrEqual(t, n, 16)
	require.Positive(t, n)
	g.add(mix(1), 1<<20) // never beyond its memory
}
