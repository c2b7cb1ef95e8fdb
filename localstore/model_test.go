package localstore_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/nearside-cache/nearside/localstore"
)

// model holds what must be readable: every key that was put and was since
// neither deleted, reset nor reported as evicted.
type model struct {
	store *localstore.Store
	held  map[string]held
	lost  uint64
	tick  uint64
}

type held struct {
	value []byte
	meta  localstore.Meta
}

func (m *model) put(t *rapid.T, key string, size int) {
	m.tick++
	h := held{
		value: bytes.Repeat([]byte{byte(m.tick)}, size),
		meta:  localstore.Meta{Version: m.tick % 3, Seq: m.tick * 1000, Tick: m.tick, Incarnation: 1, Size: size},
	}
	err := m.store.Put(key, h.value, h.meta, func(e localstore.Evicted) {
		require.NotEqual(t, key, e.Key, "the key itself is replaced, not evicted")
		was, ok := m.held[e.Key]
		require.True(t, ok, "%.20q is reported, but was not there", e.Key)
		require.Equal(t, was.meta, e.Meta)
		_, ok = m.store.Head(e.Key) // reading here must not block
		require.False(t, ok)
		delete(m.held, e.Key)
		m.lost++
	})
	if size > smallValue {
		require.ErrorIs(t, err, localstore.ErrTooLarge)
		return
	}
	require.NoError(t, err)
	m.held[key] = h
}

func (m *model) remove(t *rapid.T, key string) {
	was, there := m.held[key]
	got, ok := m.store.Delete(key)
	require.Equal(t, there, ok)
	require.Equal(t, was.meta, got)
	delete(m.held, key)
}

func (m *model) check(t *rapid.T) {
	var size int64
	for key, h := range m.held {
		got, meta, ok := m.store.Get(key, nil)
		require.True(t, ok, "%.20q went without a report", key)
		require.True(t, bytes.Equal(h.value, got), "%.20q", key)
		require.Equal(t, h.meta, meta)
		size += int64(len(key) + len(h.value))
	}
	require.Equal(t, len(m.held), m.store.Len())
	require.Equal(t, size, m.store.Stats().Bytes)
	require.Equal(t, m.lost, m.store.Stats().Evicted)
}

// checkScan requires that a walk through a Store at rest meets every key once.
func (m *model) checkScan(t *rapid.T, count int) {
	seen := map[string]bool{}
	for cursor := uint64(0); ; {
		entries, next, err := m.store.Scan(cursor, count)
		require.NoError(t, err)
		require.LessOrEqual(t, len(entries), count)
		for _, e := range entries {
			require.False(t, seen[e.Key], "%.20q twice", e.Key)
			seen[e.Key] = true
			require.Equal(t, m.held[e.Key].meta, e.Meta)
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	require.Len(t, seen, len(m.held))
}

// Every key ever put is readable with its last value, was deleted, or was
// reported as evicted exactly once.
func TestModel(t *testing.T) {
	long := strings.Repeat("k", 65520)
	sizes := rapid.OneOf(rapid.IntRange(0, 300), rapid.IntRange(0, smallValue), rapid.Just(smallValue), rapid.Just(smallValue+1))
	rapid.Check(t, func(t *rapid.T) {
		// Few hashes make collisions; many let the rings fill.
		hashes := rapid.SampledFrom([]uint64{1, 5, 64, 1 << 40}).Draw(t, "hashes")
		s, err := localstore.Open(localstore.Config{Budget: 2 << 20, MaxValue: smallValue, Hash: func(key string) uint64 {
			var h uint64
			for _, b := range []byte(key[:min(len(key), 16)]) {
				h = (h + uint64(b)) * 0x9e3779b97f4a7c15
			}
			return h % hashes
		}})
		require.NoError(t, err)
		defer func() { require.NoError(t, s.Close()) }()
		m := &model{store: s, held: map[string]held{}}
		keys := rapid.Custom(func(t *rapid.T) string {
			key := fmt.Sprint(rapid.IntRange(0, 60).Draw(t, "key"))
			if rapid.IntRange(0, 19).Draw(t, "long") == 0 {
				return long + key
			}
			return key
		})
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) { m.put(t, keys.Draw(t, "key"), sizes.Draw(t, "size")) },
			"put many": func(t *rapid.T) {
				for range 20 {
					m.put(t, keys.Draw(t, "key"), sizes.Draw(t, "size"))
				}
			},
			"delete": func(t *rapid.T) { m.remove(t, keys.Draw(t, "key")) },
			"scan":   func(t *rapid.T) { m.checkScan(t, rapid.IntRange(1, 40).Draw(t, "count")) },
			"reset": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "really") == 0 {
					m.store.Reset()
					clear(m.held)
				}
			},
			"": m.check,
		})
	})
}
