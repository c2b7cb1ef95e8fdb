package native_test

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/session"
)

// many makes the cache hold so much that prefetching is of use.
func many(t *testing.T, r *rig) {
	now := r.Clock.Now()
	for i := 0; !r.Prefetches(); i++ {
		key := "many:" + strconv.Itoa(i)
		_, _ = r.Get(key, nil, now)
		require.Equal(t, coherence.Stored, r.Set(key, []byte("v"), cache.TTL{}))
		require.Less(t, i, 1<<16)
	}
}

// What a run of Gets reads is prefetched; only whole ones are taken for such.
func TestRunOfGetsIsLookedAheadAt(t *testing.T) {
	r := newRig(t, nil)
	p := r.greet(t)
	keys := make([]string, 0, cache.PrefetchKeys)
	var in []byte
	var want []string
	for i := range 8 {
		want = append(want, "many:"+strconv.Itoa(i))
		in = near.Append(in, near.KindGet, uint32(100+i), get(want[i]))
	}
	require.Empty(t, p.s.Ahead(in, keys), "there is next to nothing to wait for")
	many(t, r)
	require.Equal(t, want, p.s.Ahead(near.Append(in, near.KindPing, 1, &near.None{}), keys))
	for n := range in[:len(in)/8] {
		require.Empty(t, p.s.Ahead(in[:n], keys))
	}
	require.Len(t, p.s.Ahead(bytes.Repeat(in, 20), keys), cache.PrefetchKeys)
	require.Empty(t, p.s.Ahead(near.Append(nil, near.KindGet, 1, get(strings.Repeat("k", 256))), keys))
	require.Empty(t, p.s.Ahead(near.Append(nil, near.KindGets, 1, &near.Gets{Keys: [][]byte{[]byte("k")}}), keys))
	require.Zero(t, testing.AllocsPerRun(100, func() { p.s.Ahead(in, keys) }))

	for _, times := range []int{1, 8, 9, 30} {
		got := p.feed(bytes.Repeat(in, times))
		require.Len(t, got, 8*times)
		for _, f := range got {
			require.Equal(t, "v", string(f.m.(*near.Value).Value))
		}
	}
}

// The keys of a long Gets are prefetched as well: its answer is what it was.
func TestLongGets(t *testing.T) {
	r := newRig(t, nil)
	many(t, r)
	p := r.greet(t)
	m := &near.Gets{Read: near.Read{Wait: -1}}
	for i := range 200 {
		m.Keys = append(m.Keys, []byte("many:"+strconv.Itoa(i)))
	}
	items := p.ask(near.KindGets, m).(*near.Values).Items
	require.Len(t, items, len(m.Keys))
	for _, v := range items {
		require.Equal(t, "v", string(v.Value))
	}
}

// A hit allocates nothing, whether Gets are looked ahead at or not.
func TestHitsDoNotAllocate(t *testing.T) {
	r := newRig(t, nil)
	p := r.greet(t)
	p.store("n:k", strings.Repeat("v", 100), 5, nil)
	in := bytes.Repeat(near.Append(nil, near.KindGet, 1, get("n:k")), 8)
	out := make([]byte, 0, 64<<10)
	hits := func() {
		if n, _, next := p.s.Serve(in, out); n != len(in) || next != session.Input {
			t.Error("no answer")
		}
	}
	require.Zero(t, testing.AllocsPerRun(100, hits))
	many(t, r)
	require.Zero(t, testing.AllocsPerRun(100, hits))
}
