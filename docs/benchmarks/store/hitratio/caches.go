package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/allegro/bigcache/v3"
	"github.com/dgraph-io/ristretto/v2"
	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/maypok86/otter/v2"

	"github.com/nearside-cache/nearside/localstore"
)

// cache is what is compared: a read, and the fill that follows a miss.
type cache interface {
	get(key string) bool
	set(key string, value []byte)
	close()
}

// kind makes caches of one kind that hold at most so much.
type kind struct {
	name string
	// open makes one for weight bytes, in which an entry weighs its key, its value and
	// overhead bytes, for entries of about size bytes of key and value.
	open func(weight int64, overhead, size int) cache
	// bounded says that the budget is of memory already and needs no overhead.
	bounded bool
}

var kinds = []kind{
	{name: "nearside", open: openNearside, bounded: true},
	{name: "otter", open: openOtter},
	{name: "ristretto", open: openRistretto},
	{name: "lru", open: openLRU},
	{name: "bigcache", open: openBigcache},
}

type nearside struct {
	store *localstore.Store
	buf   []byte
	tick  uint64
}

// maxValue of a workload; a larger one takes memory for buffers.
const maxValue = 16 << 10

func openNearside(weight int64, _, _ int) cache {
	s, err := localstore.Open(localstore.Config{Budget: weight, MaxValue: maxValue})
	if err != nil {
		panic(err)
	}
	return &nearside{store: s}
}

func (c *nearside) get(key string) (ok bool) {
	c.buf, _, ok = c.store.AppendTo(c.buf[:0], key)
	return ok
}

// set stores with stamps as long as those of a sidecar.
func (c *nearside) set(key string, value []byte) {
	c.tick++
	m := localstore.Meta{Seq: 1<<40 + c.tick, Tick: c.tick, Incarnation: 1 << 50, Expires: time.Hour}
	if err := c.store.Put(key, value, m, nil); err != nil {
		panic(err)
	}
}

func (c *nearside) close() { _ = c.store.Close() }

type otterCache struct{ c *otter.Cache[string, []byte] }

func openOtter(weight int64, overhead, _ int) cache {
	return otterCache{otter.Must(&otter.Options[string, []byte]{
		MaximumWeight: uint64(weight),
		Weigher:       func(k string, v []byte) uint32 { return uint32(len(k) + len(v) + overhead) },
		Executor:      func(f func()) { f() }, // what a run decides does not hang on goroutines
	})}
}

func (c otterCache) get(key string) bool {
	_, ok := c.c.GetIfPresent(key)
	return ok
}
func (c otterCache) set(key string, value []byte) { c.c.Set(key, value) }
func (c otterCache) close()                       { c.c.InvalidateAll(); c.c.StopAllGoroutines() }

type ristrettoCache struct {
	c        *ristretto.Cache[string, []byte]
	overhead int
}

func openRistretto(weight int64, overhead, size int) cache {
	c, err := ristretto.NewCache(&ristretto.Config[string, []byte]{
		NumCounters:        weight / int64(size) * 10, // ten for an entry, as its documentation says
		MaxCost:            weight,
		BufferItems:        64,
		IgnoreInternalCost: true, // it is in overhead
	})
	if err != nil {
		panic(err)
	}
	return ristrettoCache{c, overhead}
}

func (c ristrettoCache) get(key string) bool {
	_, ok := c.c.Get(key)
	return ok
}

func (c ristrettoCache) set(key string, value []byte) {
	c.c.Set(key, value, int64(len(key)+len(value)+c.overhead))
	c.c.Wait() // it would drop what comes too fast
}
func (c ristrettoCache) close() { c.c.Close() }

type lruCache struct {
	c            *simplelru.LRU[string, []byte]
	weight, most int64
	overhead     int
}

func openLRU(weight int64, overhead, _ int) cache {
	l := &lruCache{most: weight, overhead: overhead}
	l.c, _ = simplelru.NewLRU(1<<40, func(k string, v []byte) { l.weight -= int64(len(k) + len(v) + overhead) })
	return l
}

func (c *lruCache) get(key string) bool {
	_, ok := c.c.Get(key)
	return ok
}

func (c *lruCache) set(key string, value []byte) {
	c.c.Remove(key)
	c.c.Add(key, value)
	for c.weight += int64(len(key) + len(value) + c.overhead); c.weight > c.most; {
		c.c.RemoveOldest()
	}
}
func (c *lruCache) close() { c.c.Purge() }

type bigcacheCache struct{ c *bigcache.BigCache }

// openBigcache gives its rings what is left of the weight beside overhead bytes for each
// entry of a hundred bytes or more, rounded to whole MiB as it does.
func openBigcache(weight int64, overhead, _ int) cache {
	rings := int(float64(weight) * (1 - float64(overhead)/1000))
	c, err := bigcache.New(context.Background(), bigcache.Config{
		Shards: 16, LifeWindow: 1000 * time.Hour, MaxEntriesInWindow: 1000, MaxEntrySize: 500,
		HardMaxCacheSize: max(rings>>20, 1),
	})
	if err != nil {
		panic(err)
	}
	return bigcacheCache{c}
}

func (c bigcacheCache) get(key string) bool {
	_, err := c.c.Get(key)
	return err == nil
}
func (c bigcacheCache) set(key string, value []byte) { _ = c.c.Set(key, value) }
func (c bigcacheCache) close()                       { _ = c.c.Close() }

func heapLive() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// overhead measures what an entry of a kind takes of the heap beside its key and its
// value, in bytes, when weight bytes are full; for bigcache, per mille of all memory
// beside the rings.
func (k kind) overhead(valueSize int) int {
	if k.bounded {
		return 0
	}
	const weight = 48 << 20
	n := weight / (valueSize + 16)
	before := heapLive()
	c := k.open(weight, 0, valueSize+16)
	for i := range 2 * n {
		c.set(fmt.Sprintf("%016d", i), make([]byte, valueSize))
	}
	used := heapLive() - before
	runtime.KeepAlive(c)
	c.close()
	if k.name == "bigcache" {
		return max(int(1000-1000*weight/used), 0)
	}
	return max(int((used-weight)/int64(n)), 0)
}
