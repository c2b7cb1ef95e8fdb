package cache_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// updating is a cache that keeps updates by the policy, as fresh as of more than a
// window after its start.
func updating(t *testing.T, store policy.Store, test func(*loading)) {
	t.Helper()
	withLoader(t, func(n *policy.Namespace) { n.Update.Store, n.Loader = store, nil }, func(_ *testing.T, l *loading) {
		for range 5 {
			l.passes(policy.DefaultWindow / 2)
		}
		test(l)
	})
}

func (l *loading) update(version uint64) {
	l.applies(bus.Event{Op: bus.OpUpdate, Keys: []bus.KeyVersion{{Key: "k", Version: version}}, Value: []byte("new")})
}

// fills stores a value as a reader does.
func (l *loading) fills(value string, version uint64, tags ...string) {
	l.t.Helper()
	v := l.Fill("k", []byte(value), cache.FillOptions{Lease: l.Lease("k", false), Version: version, Tags: tags})
	require.Equal(l.t, coherence.Stored, v)
}

// Which values of updates are kept is the policy's to say (C10).
func TestUpdateStore(t *testing.T) {
	for store, want := range map[policy.Store]struct{ absent, resident string }{
		"":                   {"", "new"},
		policy.StoreResident: {"", "new"},
		policy.StoreAlways:   {"new", "new"},
		policy.StoreNever:    {"", ""},
	} {
		t.Run(string(store), func(t *testing.T) {
			updating(t, store, func(l *loading) {
				l.update(2)
				require.Equal(t, want.absent, l.get("k"))
			})
			updating(t, store, func(l *loading) {
				l.fills("old", 1)
				l.update(2)
				require.Equal(t, want.resident, l.get("k"))
			})
			updating(t, store, func(l *loading) {
				l.fills("newer", 3)
				l.update(2)
				require.Equal(t, "newer", l.get("k"))
			})
		})
	}
}

// Where nothing is held, the value of an update is kept only if nothing of the last
// window speaks against it: it may have been committed as long ago (ADR 0012).
func TestUpdateOfAnAbsentKeyIsJudgedByAWindow(t *testing.T) {
	for name, happens := range map[string]func(*loading){
		"a newer version":              func(l *loading) { l.changed("k", 3) },
		"a newer version was served":   func(l *loading) { l.fills("served", 3); l.Expire("k", cache.TTL{Asked: true, For: -1}) },
		"a value without a version":    func(l *loading) { l.fills("served", 0); l.Expire("k", cache.TTL{Asked: true, For: -1}) },
		"an event without a version":   func(l *loading) { l.changed("k", 0) },
		"a purge of the namespace":     func(l *loading) { l.applies(bus.Event{Op: bus.OpFlush}) },
		"an own write that went amiss": func(l *loading) { _, _ = l.Invalidate(l.t.Context(), cache.Write{Keys: []bus.KeyVersion{{Key: "k"}}}) },
	} {
		t.Run(name, func(t *testing.T) {
			updating(t, policy.StoreAlways, func(l *loading) {
				happens(l)
				l.passes(policy.DefaultWindow - time.Millisecond)
				l.update(2)
				require.Empty(t, l.get("k"))
			})
			updating(t, policy.StoreAlways, func(l *loading) {
				happens(l)
				l.passes(policy.DefaultWindow + time.Millisecond)
				l.update(4)
				require.Equal(t, "new", l.get("k"))
			})
		})
	}
	// Not by when it is applied, which may be long after it was published, but by the
	// moment as of which all had been applied before.
	updating(t, policy.StoreAlways, func(l *loading) {
		l.changed("k", 0)
		l.clock.Advance(3 * policy.DefaultWindow)
		l.update(2)
		require.Empty(t, l.get("k"))
	})
}

// The sidecar that publishes an update keeps its value as the others do.
func TestOwnUpdate(t *testing.T) {
	publish := func(l *loading, version uint64, meanwhile func()) {
		l.published = func() bus.Position { meanwhile(); l.update(version); return at(l.seq) }
		_, err := l.Invalidate(l.t.Context(), cache.Write{
			Update: true, Keys: []bus.KeyVersion{{Key: "k", Version: version}}, Value: []byte("new"), TTL: time.Minute,
		})
		require.NoError(l.t, err)
	}
	nothing := func() {}
	updating(t, policy.StoreResident, func(l *loading) {
		publish(l, 2, nothing)
		require.Empty(t, l.get("k"))
		l.fills("old", 2)
		publish(l, 3, nothing)
		require.Equal(t, "new", l.get("k"))
		i, _ := l.Peek("k", l.Now())
		require.Equal(t, time.Minute, i.TTL)
	})
	for name, happens := range map[string]func(*loading){
		"an event": func(l *loading) { l.changed("k", 0) },
		"a purge":  func(l *loading) { l.applies(bus.Event{Op: bus.OpFlush}) },
		"newer":    func(l *loading) { l.changed("k", 4) },
		"a write": func(l *loading) {
			published := l.published
			l.published = nil
			_, _ = l.Invalidate(l.t.Context(), cache.Write{Keys: []bus.KeyVersion{{Key: "k"}}})
			l.published = published
		},
	} {
		for _, store := range []policy.Store{policy.StoreResident, policy.StoreAlways} {
			updating(t, store, func(l *loading) {
				l.fills("old", 2)
				publish(l, 3, func() { happens(l) })
				require.Empty(t, l.get("k"), name)
			})
		}
	}
	updating(t, policy.StoreResident, func(l *loading) {
		l.fills("old", 2, "tag")
		publish(l, 3, nothing)
		require.Empty(t, l.get("k"), "the new value may have other tags")
	})
	updating(t, policy.StoreAlways, func(l *loading) {
		publish(l, 3, nothing)
		require.Equal(t, "new", l.get("k"))
	})
	updating(t, policy.StoreNever, func(l *loading) {
		l.fills("old", 2)
		publish(l, 3, nothing)
		require.Empty(t, l.get("k"))
	})
}

// A reader that loads between the own write and its event may know what the value hangs
// on; the update does not (I11).
func TestOwnUpdateLeavesWhatAReaderHasStored(t *testing.T) {
	updating(t, policy.StoreResident, func(l *loading) {
		l.fills("old", 2)
		l.published = func() bus.Position {
			l.fills("reader's", 3, "tag") // loaded after the own write
			l.update(3)                   // the event: same version, stays
			require.Equal(t, "reader's", l.get("k"))
			return at(l.seq)
		}
		_, err := l.Invalidate(l.t.Context(), cache.Write{
			Update: true, Keys: []bus.KeyVersion{{Key: "k", Version: 3}}, Value: []byte("new"),
		})
		require.NoError(l.t, err)
		l.applies(bus.Event{Tags: []string{"tag"}})
		require.Empty(t, l.get("k"), "a purge of the tag was applied")
	})
}

// An entry with tags that an update makes stale is not replaced where values are kept
// always, either (C10).
func TestUpdateOfAnEntryWithTags(t *testing.T) {
	updating(t, policy.StoreAlways, func(l *loading) {
		l.fills("old", 2, "tag")
		for range 5 {
			l.passes(policy.DefaultWindow / 2)
		}
		l.update(3)
		l.applies(bus.Event{Tags: []string{"tag"}})
		require.Empty(t, l.get("k"), "foreign update")
	})
}

// Nor is the one of whoever publishes it.
func TestOwnUpdateOfAnEntryWithTags(t *testing.T) {
	updating(t, policy.StoreAlways, func(l *loading) {
		l.fills("old", 3, "tag")
		for range 5 {
			l.passes(policy.DefaultWindow / 2)
		}
		l.published = func() bus.Position { l.update(3); return at(l.seq) }
		_, err := l.Invalidate(l.t.Context(), cache.Write{
			Update: true, Keys: []bus.KeyVersion{{Key: "k", Version: 3}}, Value: []byte("new"),
		})
		require.NoError(l.t, err)
		l.applies(bus.Event{Tags: []string{"tag"}})
		require.Empty(t, l.get("k"), "own update of the version that is resident")
	})
}

// An update that repeats an earlier one may be of an event that newer ones follow.
func TestOwnUpdateThatRepeatsAnEarlierOne(t *testing.T) {
	updating(t, policy.StoreAlways, func(l *loading) {
		l.update(3) // event of the first try, published in time
		first := l.seq
		l.changed("k", 0) // a newer write, told without a version
		for range 3 {
			l.passes(policy.DefaultWindow / 2)
		}
		l.published = func() bus.Position { return at(first) } // deduplicated
		_, err := l.Invalidate(l.t.Context(), cache.Write{
			Update: true, ID: "x", Keys: []bus.KeyVersion{{Key: "k", Version: 3}}, Value: []byte("new"),
		})
		require.NoError(l.t, err)
		require.Empty(t, l.get("k"), "an event without a version came after that update's")
	})
}

// What an own update brings may be older than an own write before it that went amiss.
func TestOwnUpdateAfterAFailedWrite(t *testing.T) {
	updating(t, policy.StoreAlways, func(l *loading) {
		_, err := l.Invalidate(l.t.Context(), cache.Write{Keys: []bus.KeyVersion{{Key: "k"}}}) // publishing fails
		require.Error(t, err)
		l.passes(policy.DefaultWindow / 2)
		l.published = func() bus.Position { l.update(2); return at(l.seq) }
		_, err = l.Invalidate(l.t.Context(), cache.Write{
			Update: true, Keys: []bus.KeyVersion{{Key: "k", Version: 2}}, Value: []byte("new"),
		})
		require.NoError(l.t, err)
		require.Empty(t, l.get("k"), "committed within a window before its publishing: perhaps before the own write")
	})
}
