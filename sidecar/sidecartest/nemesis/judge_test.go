package nemesis

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
)

const (
	someKey  = "near:0"
	somePage = "page:0:tagged"
)

// fixture is a judge whose clock stands still until it is moved.
type fixture struct {
	*judge
	now    time.Duration
	origin *origin
}

func newFixture() *fixture {
	keys := []string{someKey, somePage}
	f := &fixture{origin: newOrigin(keys)}
	f.judge = newJudge(keys, func() time.Duration { f.now++; return f.now })
	return f
}

var (
	podA = life{"pod-a", 1}
	podB = life{"pod-b", 1}
)

func position(seq uint64) bus.Position { return bus.Position{Epoch: bus.Epoch{Created: 1}, Seq: seq} }

// begin commits a new version and returns the write that is on its way.
func (f *fixture) begin() write {
	w := f.writing(someKey, true)
	w.version = f.origin.commit(someKey)
	return w
}

// write writes a new version, which is acknowledged at seq.
func (f *fixture) write(seq uint64, l life) write {
	w := f.begin()
	f.tried(w, l)
	f.wrote(w, position(seq), position(seq).String(), true)
	return w
}

// purge purges a new version of the page, which is acknowledged at seq.
func (f *fixture) purge(seq uint64) {
	w := f.writing(somePage, false)
	w.version = f.origin.commit(somePage)
	f.wrote(w, position(seq), position(seq).String(), false)
}

// serve lets a life serve a version.
func (f *fixture) serve(m mode, l life, bound time.Duration, version, applied uint64) {
	r := f.reading(someKey, m, l, bound, false)
	f.served(r, version, "", position(applied))
}

// Every checker finds the history that its invariant forbids, and lets pass the
// nearest one that it does not.
func TestJudge(t *testing.T) {
	const tight = 200 * time.Millisecond
	cases := []struct {
		name      string
		invariant string // broken; "" for none
		history   func(f *fixture)
	}{
		{"older than an event that was applied", "I1", func(f *fixture) {
			f.write(7, podB)
			f.serve(anyFresh, podA, 0, 1, 7)
		}},
		{"older than an event that was not applied yet", "", func(f *fixture) {
			f.write(7, podB)
			f.serve(anyFresh, podA, 0, 1, 6)
		}},
		{"older than an event that was applied before its acknowledgement", "I1", func(f *fixture) {
			w := f.begin()
			f.serve(anyFresh, podA, 0, 1, 7)
			f.wrote(w, position(7), "", true)
		}},
		{"acknowledged in another order than applied", "I1", func(f *fixture) {
			first, second := f.begin(), f.begin()
			f.wrote(second, position(7), "", true)
			f.wrote(first, position(8), "", true)
			f.serve(anyFresh, podA, 0, 2, 8)
		}},
		{"before a newer stream that an older clock made", "", func(f *fixture) {
			w, slow := f.begin(), f.begin()
			f.wrote(w, bus.Position{Epoch: bus.Epoch{Created: 2}, Seq: 7}, "", true)
			r := f.reading(someKey, anyFresh, podA, 0, false)
			f.served(r, 2, "", bus.Position{Epoch: bus.Epoch{Created: 2}, Seq: 8})
			f.wrote(slow, position(1), "", true) // of the stream made by a clock that is behind
		}},
		{"backwards on one sidecar", "I2", func(f *fixture) {
			f.begin()
			f.serve(anyFresh, podA, 0, 2, 0)
			f.serve(anyFresh, podA, 0, 1, 0)
		}},
		{"another sidecar is behind", "", func(f *fixture) {
			f.begin()
			f.serve(anyFresh, podA, 0, 2, 0)
			f.serve(anyFresh, podB, 0, 1, 0)
		}},
		{"a read that began before the newer one ended", "", func(f *fixture) {
			f.begin()
			r := f.reading(someKey, anyFresh, podA, 0, false)
			f.serve(anyFresh, podA, 0, 2, 0)
			f.served(r, 1, "", bus.Position{})
		}},
		{"older than what was written through this sidecar", "I4", func(f *fixture) {
			f.write(7, podA)
			f.serve(anyFresh, podA, 0, 1, 6)
		}},
		{"less than the token", "I4", func(f *fixture) {
			f.write(7, podB)
			f.serve(atLeast, podA, 0, 1, 6)
		}},
		{"acknowledged longer ago than the bound", "I5", func(f *fixture) {
			f.write(7, podB)
			f.now += tight + 1
			f.serve(maxStale, podA, tight, 1, 0)
		}},
		{"acknowledged within the bound", "", func(f *fixture) {
			f.write(7, podB)
			f.now += tight / 2
			f.serve(maxStale, podA, tight, 1, 0)
		}},
		{"a STRONG read after an acknowledged write", "I6", func(f *fixture) {
			f.write(7, podB)
			f.serve(strong, podA, 0, 1, 0)
		}},
		{"a page older than a purge that was applied", "I11", func(f *fixture) {
			f.purge(7)
			f.served(f.reading(somePage, anyFresh, podA, 0, false), 1, "", position(7))
		}},
		{"a page older than a purge that was not applied yet", "", func(f *fixture) {
			f.purge(7)
			f.served(f.reading(somePage, anyFresh, podA, 0, false), 1, "", position(6))
		}},
		{"a STRONG read of a page after an acknowledged purge", "I6", func(f *fixture) {
			f.purge(7)
			f.now++ // or it would be at the very moment of the call
			f.served(f.reading(somePage, regular, podA, 1, false), 1, "", position(6))
		}},
		{"a STRONG read during a write", "", func(f *fixture) {
			w := f.begin()
			f.serve(strong, podA, 0, 1, 0)
			f.serve(strong, podA, 0, 2, 0)
			f.wrote(w, position(7), "", true)
		}},
		{"STRONG reads of an unpublished version and then of the former one", "I6", func(f *fixture) {
			f.begin()
			f.loaded(f.reading(someKey, strong, podA, 0, false), 2)
			f.serve(strong, podB, 0, 1, 0)
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture()
			c.history(f)
			f.finish(nil)
			if c.invariant == "" {
				require.Empty(t, f.violations, f.evidence)
				return
			}
			require.NotZero(t, f.violations[c.invariant], f.violations)
			require.Len(t, f.violations, 1, f.evidence)
		})
	}
}

// porcupine alone finds what the judge's own look at STRONG reads finds too, and
// names the operation; a write that nobody acknowledged may take effect or not.
func TestRegister(t *testing.T) {
	f := newFixture()
	w := f.begin()
	f.loaded(f.reading(someKey, strong, podA, 0, false), 2)
	stale := f.reading(someKey, strong, podB, 0, false)
	stale.strong = 0 // as if the judge had not looked
	f.served(stale, 1, "", bus.Position{})
	f.finish([]write{w})
	require.Equal(t, map[string]int{"I6": 1}, f.violations)
	require.Contains(t, f.evidence[0], "the read of version 1")
	require.Equal(t, 3, f.segments.operations)
}

// A history that is cut where nothing is under way is judged as one.
func TestRegisterIsCut(t *testing.T) {
	f := newFixture()
	for i := range uint64(segmentLength) {
		w := f.write(i+1, podA)
		f.serve(strong, podA, 0, w.version, 0)
	}
	f.finish(nil)
	require.Empty(t, f.violations, f.evidence)
	require.Equal(t, 2, f.segments.segments)
	require.Equal(t, 2*segmentLength, f.segments.operations)
}

func TestValues(t *testing.T) {
	version, err := versionOf(someKey, valueOf(someKey, 7))
	require.NoError(t, err)
	require.EqualValues(t, 7, version)
	for name, value := range map[string]string{
		"of another key": valueOf("near:1", 7),
		"torn":           valueOf(someKey, 7)[:20] + valueOf(someKey, 8)[20:],
		"cut short":      valueOf(someKey, 7)[:len(valueOf(someKey, 7))-1],
		"empty":          "",
	} {
		_, err := versionOf(someKey, value)
		require.Error(t, err, name)
	}
}
