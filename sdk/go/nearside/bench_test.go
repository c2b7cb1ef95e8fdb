package nearside_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sdk/go/nearside"
)

const benchKeys = 10_000

// zipf are keys as readers of hot data ask for them.
func zipf() []string {
	z := rand.NewZipf(rand.New(rand.NewPCG(1, 1)), 1.1, 1, benchKeys-1)
	keys := make([]string, 1<<16)
	for i := range keys {
		keys[i] = fmt.Sprintf("product:%06d", z.Uint64())
	}
	return keys
}

type product struct {
	ID   int
	Name string
}

// warm returns a client whose L0 holds all keys, with the clock that it has in earnest.
func warm(b *testing.B) *nearside.Client {
	f := newFake()
	f.bound, f.now = time.Hour, nearside.BootTime
	c, err := nearside.Open(nearside.Options{L0: &nearside.L0Options{MaxEntries: 2 * benchKeys, Bound: time.Hour}, Dial: f.dial})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, c.Close()) })
	keys := make([]string, benchKeys)
	for i := range keys {
		keys[i] = fmt.Sprintf("product:%06d", i)
		f.set(keys[i], fmt.Sprintf(`{"ID":%d,"Name":"%0100d"}`, i, i), 1)
	}
	_, err = c.GetMany(b.Context(), keys)
	require.NoError(b, err)
	a, err := c.Get(b.Context(), keys[0])
	require.NoError(b, err)
	require.True(b, a.FromL0)
	return c
}

var sink int

// library is the cache that stores L0's entries, by itself.
func library() *otter.Cache[string, []byte] {
	c := otter.Must(&otter.Options[string, []byte]{MaximumSize: 2 * benchKeys})
	for i := range benchKeys {
		c.Set(fmt.Sprintf("product:%06d", i), make([]byte, 128))
	}
	return c
}

// The hit of an L0 beside that of the library, in turns of a millisecond: on a machine
// that is shared, the fastest turns and the middle ratio of two neighbours tell most.
func BenchmarkL0Hit(b *testing.B) {
	keys, lib, c := zipf(), library(), warm(b)
	plain, seen := context.Background(), nearside.ContextWithToken(context.Background(), "1-0-1")
	from := nearside.Source[*product]{Shared: true}
	turn := func(read func(key string) int) float64 {
		began := time.Now()
		for _, key := range keys[:turnReads] {
			sink += read(key)
		}
		return float64(time.Since(began)) / turnReads
	}
	for name, read := range map[string]func(key string) int{
		"get":       func(key string) int { a, _ := c.Get(plain, key); return len(a.Value) },
		"maxstale":  func(key string) int { a, _ := c.Get(plain, key, nearside.MaxStale(time.Minute)); return len(a.Value) },
		"session":   func(key string) int { a, _ := c.Get(seen, key); return len(a.Value) },
		"getorload": func(key string) int { p, _ := nearside.GetOrLoad(plain, c, key, from); return p.ID },
	} {
		b.Run(name, func(b *testing.B) {
			var ratios, ours, theirs []float64
			b.ReportAllocs()
			for b.Loop() {
				theirs = append(theirs, turn(func(key string) int { v, _ := lib.GetIfPresent(key); return len(v) }))
				ours = append(ours, turn(read))
				ratios = append(ratios, ours[len(ours)-1]/theirs[len(theirs)-1])
			}
			slices.Sort(ratios)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(slices.Min(theirs), "otter-ns")
			b.ReportMetric(slices.Min(ours), "ns")
			b.ReportMetric(ratios[len(ratios)/2], "ratio")
		})
	}
}

// turnReads is how many reads a turn has.
const turnReads = 10_000

func BenchmarkL0HitParallel(b *testing.B) {
	keys := zipf()
	b.Run("otter", func(b *testing.B) {
		c := library()
		b.RunParallel(func(p *testing.PB) {
			for i := rand.Int(); p.Next(); i++ {
				c.GetIfPresent(keys[i&0xffff])
			}
		})
	})
	b.Run("get", func(b *testing.B) {
		c, ctx := warm(b), context.Background()
		b.RunParallel(func(p *testing.PB) {
			for i := rand.Int(); p.Next(); i++ {
				c.Get(ctx, keys[i&0xffff])
			}
		})
	})
}

// A hit of the sidecar, as far as the client and a socket have a part in it.
func BenchmarkSocket(b *testing.B) {
	f := newFake()
	f.set("product:1", "value", 1)
	l, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
	require.NoError(b, err)
	go f.listen(l)
	defer l.Close()
	c, err := nearside.Open(nearside.Options{Socket: l.Addr().String()})
	require.NoError(b, err)
	defer c.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Get(b.Context(), "product:1"); err != nil {
			b.Fatal(err)
		}
	}
}
