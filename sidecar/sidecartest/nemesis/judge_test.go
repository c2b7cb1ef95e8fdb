package nemesis

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
)

const (
	someKey   = "near:0"
	somePage  = "page:0:tagged"
	someLoad  = "share:0" // loaded, with versions, absences too
	someBare  = "bare:0"  // loaded, without
	ownSpace  = "load:0"  // loaded, not shared
	someClass = "crit:0"
)

// fixture is a judge whose clock stands still until it is moved.
type fixture struct {
	*judge
	now time.Duration
}

func newFixture() *fixture {
	keys := []string{someKey, somePage, someLoad, someBare, ownSpace, someClass}
	f := &fixture{}
	f.judge = newJudge(keys, newOrigin(keys), func() time.Duration { f.now++; return f.now })
	return f
}

var (
	podA = life{name: "pod-a", number: 1}
	podB = life{name: "pod-b", number: 1}
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
	f.served(r, seen{version: version}, position(applied))
}

// change commits a version of a key, or a deletion, which is acknowledged at seq.
func (f *fixture) change(key string, absent bool, seq uint64) {
	w := f.writing(key, versioned(key))
	if absent {
		w.version = f.origin.remove(key)
	} else {
		w.version = f.origin.commit(key)
	}
	f.wrote(w, position(seq), "", versioned(key))
}

// load loads a key for a life.
func (f *fixture) load(key string, l life) found {
	x := f.origin.read(key)
	f.given(x, l.name)
	return x
}

// answer lets a life answer a read with what was loaded.
func (f *fixture) answer(x found, m mode, l life, bound time.Duration, old bool) {
	f.served(f.reading(x.key, m, l, bound, false), seen{version: x.version, serial: x.serial, absent: x.absent, old: old}, bus.Position{})
}

// denies lets a life answer that there is no value, without a version.
func (f *fixture) denies(key string, m mode, l life) {
	f.served(f.reading(key, m, l, 0, false), seen{absent: true}, position(8))
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
			f.served(r, seen{version: 2}, bus.Position{Epoch: bus.Epoch{Created: 2}, Seq: 8})
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
			f.served(r, seen{version: 1}, bus.Position{})
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
			f.served(f.reading(somePage, anyFresh, podA, 0, false), seen{version: 1}, position(7))
		}},
		{"a page older than a purge that was not applied yet", "", func(f *fixture) {
			f.purge(7)
			f.served(f.reading(somePage, anyFresh, podA, 0, false), seen{version: 1}, position(6))
		}},
		{"a STRONG read of a page after an acknowledged purge", "I6", func(f *fixture) {
			f.purge(7)
			f.now++ // or it would be at the very moment of the call
			f.served(f.reading(somePage, regular, podA, 1, false), seen{version: 1}, position(6))
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
		{"a value that was refused", "I1", func(f *fixture) {
			x := f.origin.read(someKey)
			f.refused(x, podA)
			f.answer(x, anyFresh, podA, 0, false)
		}},
		{"a value that another life refused", "", func(f *fixture) {
			x := f.origin.read(someKey)
			f.refused(x, podA)
			f.answer(x, anyFresh, podB, 0, false)
		}},
		{"a value that was too old for whoever loaded it", "I1", func(f *fixture) {
			x := f.origin.read(someLoad)
			f.refused(x, life{})
			f.answer(x, anyFresh, podB, 0, false)
		}},
		{"past its soft TTL, by more than the reader allows", "I5", func(f *fixture) {
			x := f.load(ownSpace, podA)
			f.now += 500*time.Millisecond + tight + slack + 10
			f.answer(x, maxStale, podA, tight, true)
		}},
		{"past its soft TTL, as long as the reader allows", "", func(f *fixture) {
			x := f.load(ownSpace, podA)
			f.now += 500*time.Millisecond + tight + slack - 10
			f.answer(x, maxStale, podA, tight, true)
		}},
		{"past its soft TTL, by more than the policy allows", "I5", func(f *fixture) {
			x := f.load(ownSpace, podA)
			f.now += 1500*time.Millisecond + slack + 10
			f.answer(x, anyFresh, podA, 0, true)
		}},
		{"past its soft TTL, by more than the policy allows, for a plain reader", "I5", func(f *fixture) {
			x := f.load(ownSpace, podA)
			f.now += 1500*time.Millisecond + slack + 10
			f.answer(x, plain, podA, plainBound(ownSpace), false)
		}},
		{"past its soft TTL, and called fresh", "I5", func(f *fixture) {
			x := f.load(ownSpace, podA)
			f.now += 500*time.Millisecond + slack + 10
			f.answer(x, anyFresh, podA, 0, false)
		}},
		{"past its soft TTL, for a STRONG reader", "I5", func(f *fixture) {
			f.answer(f.load(someLoad, podA), strong, podA, 0, true)
		}},
		{"confirmed meanwhile", "", func(f *fixture) {
			x := f.load(ownSpace, podA)
			f.now += time.Minute
			f.given(x, podA.name)
			f.answer(x, anyFresh, podA, 0, false)
		}},
		{"stored after a pause", "", func(f *fixture) {
			x := f.load(ownSpace, podA)
			f.now += time.Minute
			f.paused(podA.name)
			f.answer(x, anyFresh, podA, 0, false)
		}},
		{"loaded by another pod, long ago", "I5", func(f *fixture) {
			x := f.load(someLoad, podB)
			f.now += time.Minute
			f.answer(x, anyFresh, podA, 0, false)
		}},
		{"loaded by another pod, long ago by a wrong clock", "", func(f *fixture) {
			x := f.load(someLoad, podB)
			f.clocksJump()
			f.now += time.Minute
			f.answer(x, anyFresh, podA, 0, false)
		}},
		{"an absence past its TTL", "I12", func(f *fixture) {
			f.change(ownSpace, true, 7)
			f.load(ownSpace, podA)
			f.now += time.Second + slack + 10
			f.denies(ownSpace, anyFresh, podA)
		}},
		{"an absence of which nobody said anything", "I12", func(f *fixture) {
			f.change(someBare, true, 7)
			f.denies(someBare, anyFresh, podA)
		}},
		{"an absence that never was", "I12", func(f *fixture) {
			f.denies(someBare, anyFresh, podA)
		}},
		{"an absence at the version of a value", "I10", func(f *fixture) {
			f.answer(found{key: someLoad, version: 1, absent: true}, anyFresh, podA, 0, false)
		}},
		{"an absence that may be of the deletion that was applied", "", func(f *fixture) {
			f.change(someBare, true, 7)
			f.load(someBare, podA)
			f.denies(someBare, anyFresh, podA)
		}},
		{"an absence from before a value that was applied", "I12", func(f *fixture) {
			f.change(someBare, true, 7)
			f.load(someBare, podA)
			f.change(someBare, false, 8)
			f.denies(someBare, anyFresh, podA)
		}},
		{"an absence from before a value that was served", "I2", func(f *fixture) {
			f.change(someBare, true, 9)
			f.load(someBare, podA)
			f.change(someBare, false, 10)
			f.answer(f.load(someBare, podA), anyFresh, podA, 0, false)
			f.denies(someBare, anyFresh, podA)
		}},
		{"absences of two deletions, told apart by nobody", "", func(f *fixture) {
			f.change(someBare, true, 9)
			f.load(someBare, podA)
			early := f.reading(someBare, anyFresh, podA, 0, false)
			f.change(someBare, true, 10)
			f.denies(someBare, anyFresh, podA)
			f.served(early, seen{absent: true}, bus.Position{})
			f.denies(someBare, anyFresh, podA)
		}},
		{"a STRONG read of an absence after an acknowledged write", "I6", func(f *fixture) {
			f.change(someLoad, true, 7)
			x := f.load(someLoad, podA)
			f.change(someLoad, false, 8)
			f.answer(x, strong, podA, 0, false)
		}},
		{"a STRONG read of an absence without a version after an acknowledged write", "I6", func(f *fixture) {
			f.change(ownSpace, true, 9)
			f.load(ownSpace, podA)
			f.change(ownSpace, false, 10)
			f.denies(ownSpace, strong, podA)
		}},
		{"a STRONG read of an absence and then of the value before it", "I6", func(f *fixture) {
			before := f.load(someLoad, podB)
			w := f.writing(someLoad, true)
			w.version = f.origin.remove(someLoad)
			f.answer(f.load(someLoad, podA), strong, podA, 0, false)
			f.answer(before, strong, podB, 0, false)
		}},
		{"a GET of class critical after an acknowledged write", "I6", func(f *fixture) {
			x := f.load(someClass, podA)
			f.change(someClass, false, 7)
			f.answer(x, critical, podA, 0, false)
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
	f.served(stale, seen{version: 1}, bus.Position{})
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
	seven, eight := found{key: someKey, version: 7, serial: 21}, found{key: someKey, version: 8, serial: 21}
	f, err := foundIn(someKey, valueOf(seven))
	require.NoError(t, err)
	require.Equal(t, seven, f)
	for name, value := range map[string]string{
		"of another key": valueOf(found{key: "near:1", version: 7}),
		"torn":           valueOf(seven)[:20] + valueOf(eight)[20:],
		"cut short":      valueOf(seven)[:len(valueOf(seven))-1],
		"empty":          "",
	} {
		_, err := foundIn(someKey, value)
		require.Error(t, err, name)
	}
}
