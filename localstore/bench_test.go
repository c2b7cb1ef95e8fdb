package localstore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/allegro/bigcache/v3"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/localstore"
)

// million is how many entries the benchmarks read at random.
const million = 1 << 20

var benchSizes = []int{100, 1 << 10}

// benchKeys returns keys in the order in which they are stored.
func benchKeys() []string {
	keys := make([]string, million)
	for i := range keys {
		keys[i] = fmt.Sprintf("product:%08d", i)
	}
	return keys
}

// shuffled returns keys in another order, so that memory is not read in the
// order in which it was written.
func shuffled(keys []string) []string {
	keys = slices.Clone(keys)
	rand.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	return keys
}

// collectEarly keeps garbage small beside the entries. By default it may grow as
// large as they are, and touching that memory for the first time would be most
// of what is measured.
func collectEarly(b *testing.B) {
	old := debug.SetGCPercent(20)
	b.Cleanup(func() { debug.SetGCPercent(old) })
}

func benchStore(b *testing.B, keys []string, size int) *localstore.Store {
	s := open(b, localstore.Config{Budget: int64(million) * int64(size+200) * 8 / 5})
	value := make([]byte, size)
	for i, key := range keys {
		require.NoError(b, s.Put(key, value, localstore.Meta{Seq: 1 << 40, Tick: uint64(i), Expires: time.Hour}, nil))
	}
	require.Equal(b, million, s.Len())
	return s
}

func benchRaw(b *testing.B, keys []string, size int) *bigcache.BigCache {
	c, err := bigcache.New(context.Background(), bigcache.Config{
		Shards: 256, LifeWindow: time.Hour, MaxEntriesInWindow: million, MaxEntrySize: size + 200,
		HardMaxCacheSize: million * (size + 200) >> 20,
	})
	require.NoError(b, err)
	value := make([]byte, size)
	for _, key := range keys {
		require.NoError(b, c.Set(key, value))
	}
	return c
}

// BenchmarkGet reads random keys of a million, beside bigcache alone.
func BenchmarkGet(b *testing.B) {
	keys := benchKeys()
	random := shuffled(keys)
	collectEarly(b)
	for _, size := range benchSizes {
		b.Run(fmt.Sprintf("store/%dB", size), func(b *testing.B) {
			s := benchStore(b, keys, size)
			var buf []byte
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				buf, _, _ = s.AppendTo(buf[:0], random[i%million])
			}
			require.Len(b, buf, size)
		})
		b.Run(fmt.Sprintf("bigcache/%dB", size), func(b *testing.B) {
			c := benchRaw(b, keys, size)
			var buf []byte
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				buf, _ = c.Get(random[i%million])
			}
			require.Len(b, buf, size)
		})
	}
}

// BenchmarkGetParallel is BenchmarkGet of 100 bytes from all cores.
func BenchmarkGetParallel(b *testing.B) {
	keys := benchKeys()
	random := shuffled(keys)
	collectEarly(b)
	b.Run("store", func(b *testing.B) {
		s := benchStore(b, keys, 100)
		b.ReportAllocs()
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			var buf []byte
			for i := rand.IntN(million); pb.Next(); i++ {
				buf, _, _ = s.AppendTo(buf[:0], random[i%million])
			}
		})
	})
	b.Run("bigcache", func(b *testing.B) {
		c := benchRaw(b, keys, 100)
		b.ReportAllocs()
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for i := rand.IntN(million); pb.Next(); i++ {
				_, _ = c.Get(random[i%million])
			}
		})
	})
}

// BenchmarkPut replaces random keys of a million, or stores new ones and so
// evicts, beside bigcache alone.
func BenchmarkPut(b *testing.B) {
	keys := benchKeys()
	random := shuffled(keys)
	collectEarly(b)
	for _, size := range benchSizes {
		value := make([]byte, size)
		b.Run(fmt.Sprintf("store/%dB", size), func(b *testing.B) {
			s := benchStore(b, keys, size)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				_ = s.Put(random[i%million], value, localstore.Meta{Seq: 1 << 40, Tick: uint64(i), Expires: time.Hour}, nil)
			}
		})
		b.Run(fmt.Sprintf("store-evicting/%dB", size), func(b *testing.B) {
			s := open(b, localstore.Config{Budget: 64 << 20})
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				_ = s.Put(random[i%million], value, localstore.Meta{Seq: 1 << 40, Tick: uint64(i), Expires: time.Hour}, func(localstore.Evicted) {})
			}
		})
		b.Run(fmt.Sprintf("bigcache/%dB", size), func(b *testing.B) {
			c := benchRaw(b, keys, size)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				_ = c.Set(random[i%million], value)
			}
		})
	}
}
