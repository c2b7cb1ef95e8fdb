package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/allegro/bigcache/v3"
	"github.com/dgraph-io/ristretto/v2"
	"github.com/maypok86/otter/v2"

	"github.com/nearside-cache/nearside/localstore"
)

const valueSize = 100

func split(s string) []string { return strings.Split(s, ",") }

func key(i int) string { return fmt.Sprintf("product:%08d", i) }

// openStore returns a Store that holds n entries of 16 and valueSize bytes.
func openStore(n int) (*localstore.Store, error) {
	s, err := localstore.Open(localstore.Config{Budget: int64(n)*200 + 8<<20})
	if err != nil {
		return nil, err
	}
	for i := range n {
		if err := put(s, i); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func put(s *localstore.Store, i int) error {
	m := localstore.Meta{Version: uint64(i), Seq: 1<<40 + uint64(i), Tick: uint64(i), Incarnation: 1 << 50, Expires: time.Hour}
	return s.Put(key(i), make([]byte, valueSize), m, nil)
}

// batch is how many keys a client asks for at once.
const batch = 16

// reader reads a key into a buffer and returns it.
type reader struct {
	name  string
	read  func(buf []byte, key string) []byte
	ahead func(keys []string) // called before the keys of a batch are read; nil = nothing
}

// readers returns all caches, each with n entries.
func readers(n int) ([]reader, error) {
	s, err := openStore(n)
	if err != nil {
		return nil, err
	}
	big, err := bigcache.New(context.Background(), bigcache.Config{
		Shards: 256, LifeWindow: time.Hour, MaxEntriesInWindow: n, MaxEntrySize: 160, HardMaxCacheSize: n * 200 >> 20,
	})
	if err != nil {
		return nil, err
	}
	ott := otter.Must(&otter.Options[string, []byte]{MaximumSize: n * 2})
	ris, err := ristretto.NewCache(&ristretto.Config[string, []byte]{NumCounters: int64(n) * 10, MaxCost: int64(n) * 100, BufferItems: 64})
	if err != nil {
		return nil, err
	}
	table := map[string][]byte{}
	var mu sync.RWMutex
	for i := range n {
		_ = big.Set(key(i), make([]byte, valueSize))
		ott.Set(key(i), make([]byte, valueSize))
		ris.Set(key(i), make([]byte, valueSize), 1)
		ris.Wait()
		table[key(i)] = make([]byte, valueSize)
	}
	appendTo := func(buf []byte, key string) []byte { buf, _, _ = s.AppendTo(buf, key); return buf }
	return []reader{
		{name: "nearside's store", read: appendTo},
		{name: fmt.Sprintf("nearside's store, %d keys prefetched", batch), read: appendTo, ahead: s.Prefetch},
		{name: "bigcache", read: func(buf []byte, key string) []byte { b, _ := big.Get(key); return append(buf, b...) }},
		{name: "otter", read: func(buf []byte, key string) []byte { b, _ := ott.GetIfPresent(key); return append(buf, b...) }},
		{name: "ristretto", read: func(buf []byte, key string) []byte { b, _ := ris.Get(key); return append(buf, b...) }},
		{name: "map and RWMutex", read: func(buf []byte, key string) []byte {
			mu.RLock()
			defer mu.RUnlock()
			return append(buf, table[key]...)
		}},
	}, nil
}

// lookups measures all readers in turn, in each round.
func lookups(n, rounds int) error {
	all, err := readers(n)
	if err != nil {
		return err
	}
	keys := make([]string, n)
	for i := range keys {
		keys[i] = key(i)
	}
	rand.Shuffle(n, func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	serial, parallel := make([][]float64, len(all)), make([][]float64, len(all))
	allocs := make([]float64, len(all))
	for range rounds {
		for i, r := range all {
			t, a := timed(r, keys, 1)
			serial[i], allocs[i] = append(serial[i], t), a
			t, _ = timed(r, keys, runtime.GOMAXPROCS(0))
			parallel[i] = append(parallel[i], t)
		}
	}
	fmt.Printf("\n%d entries of 16 + %d bytes, random keys, %d rounds, medians\n\n| | ns a lookup, serial | on %d cores | allocations |\n|---|---|---|---|\n",
		n, valueSize, rounds, runtime.GOMAXPROCS(0))
	for i, r := range all {
		fmt.Printf("| %s | %.0f | %.0f | %.2f |\n", r.name, median(serial[i]), median(parallel[i]), allocs[i])
	}
	return nil
}

// timed returns the nanoseconds and the allocations of a lookup.
func timed(r reader, keys []string, workers int) (ns, allocs float64) {
	const each = 500_000
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begun := time.Now()
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			buf := make([]byte, 0, 1<<10)
			for i, at := 0, rand.IntN(len(keys)-batch); i < each; i, at = i+batch, (at+batch)%(len(keys)-batch) {
				if r.ahead != nil {
					r.ahead(keys[at : at+batch])
				}
				for _, key := range keys[at : at+batch] {
					buf = r.read(buf[:0], key)
				}
			}
		})
	}
	all.Wait()
	took := time.Since(begun)
	runtime.ReadMemStats(&after)
	n := float64(workers * each)
	return float64(took.Nanoseconds()) / n, float64(after.Mallocs-before.Mallocs) / n
}

func median(a []float64) float64 {
	a = slices.Clone(a)
	slices.Sort(a)
	return a[len(a)/2]
}
