package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// Times that the runs are scaled to: short, so that much happens in few steps.
const (
	window   = 2 * time.Second
	interval = 250 * time.Millisecond
	lag      = 400 * time.Millisecond
)

// What a namespace's keys are like.
//
//	v  versioned                          x  v and u mixed, from lagging replicas
//	u  without versions, with a TTL       r  without versions, from lagging replicas
//	t  hang on tags, v and u mixed        p  purged by prefix and namespace
//	d  made of others (see recipes)       c  of the class critical
//
// and of those that are loaded through the cache:
//
//	l  versioned, old ones are served     m  v and u mixed, from lagging replicas
//	n  without versions, old ones, too    k  of the class critical
//	s  versioned, shared                  z  v and u mixed, shared, from replicas
var policies = func() *policy.Set {
	ns := func(bound, replicaLag time.Duration) policy.Namespace {
		return policy.Namespace{
			Class: policy.Important, MaxStale: bound, Set: policy.SetFill, ReplicaLag: replicaLag, AllowFlush: true,
		}
	}
	set := &policy.Set{
		Window: window, Default: ns(0, 0),
		Namespaces: map[string]policy.Namespace{
			"v": ns(time.Second, 0), "u": ns(3*time.Second, 0), "x": ns(8*time.Second, lag), "r": ns(5*time.Second, lag),
			"t": ns(2*time.Second, 0), "p": ns(4*time.Second, 0), "d": ns(4*time.Second, 0), "c": ns(4*time.Second, 0),
			"l": ns(2*time.Second, 0), "m": ns(5*time.Second, lag), "n": ns(3*time.Second, 0),
			"k": ns(4*time.Second, 0), "s": ns(4*time.Second, 0), "z": ns(4*time.Second, lag),
		},
	}
	change := func(name string, f func(*policy.Namespace)) {
		n := set.Namespaces[name]
		f(&n)
		set.Namespaces[name] = n
	}
	change("u", func(n *policy.Namespace) { n.TTL = 6 * time.Second })
	change("x", func(n *policy.Namespace) { n.MaxTTL = 5 * time.Second })
	change("c", func(n *policy.Namespace) { n.Class = policy.Critical })
	for _, name := range []string{"v", "x"} {
		change(name, func(n *policy.Namespace) { n.Update.Store = policy.StoreAlways })
	}
	change("m", func(n *policy.Namespace) { n.Update.Store = policy.StoreNever })
	for name, negative := range map[string]time.Duration{"l": 2, "m": 1, "n": 3, "k": 2, "s": 2, "z": 0} {
		change(name, func(n *policy.Namespace) { n.Loader, n.NegativeTTL = &policy.Loader{}, negative*time.Second })
	}
	change("l", func(n *policy.Namespace) {
		n.TTL, n.SoftTTL = 5*time.Second, 600*time.Millisecond
		n.StaleWhileRevalidate, n.StaleIfError = 700*time.Millisecond, 1500*time.Millisecond
	})
	change("m", func(n *policy.Namespace) {
		n.TTL, n.RefreshAhead = 2*time.Second, 0.3
		n.AdaptiveTTL = policy.AdaptiveTTL{Min: 300 * time.Millisecond, Max: 3 * time.Second}
	})
	change("n", func(n *policy.Namespace) {
		n.SoftTTL, n.StaleWhileRevalidate, n.StaleIfError = 500*time.Millisecond, time.Second, 2*time.Second
	})
	change("k", func(n *policy.Namespace) { n.Class = policy.Critical })
	change("s", func(n *policy.Namespace) {
		n.L2, n.TTL, n.SoftTTL, n.StaleWhileRevalidate = &sharing, 6*time.Second, time.Second, time.Second
	})
	change("z", func(n *policy.Namespace) { n.L2 = &sharing })
	return set.Indexed()
}()

var keys = []string{
	"v:a", "v:b", "u:a", "u:b", "x:a", "r:a", "t:a", "t:b", "p:1:a", "p:2:b", "c:a",
	"d:a", "d:b", "d:c", "d:w", "d:x",
	"l:a", "l:b", "m:a", "n:a", "k:a", "s:a", "s:b", "z:a",
}

// loaded are the keys that are loaded through the cache.
var loaded = keys[slices.Index(keys, "l:a"):]

// shared are those of them that sidecars share.
var shared = keys[slices.Index(keys, "s:a"):]

// tagsOf are the tags of the keys of t.
func tagsOf(key string) []string {
	switch key {
	case "t:a":
		return []string{"red", "all"}
	case "t:b":
		return []string{"blue", "all"}
	case "l:b", "s:b":
		return []string{"warm-" + bus.NamespaceOf(key)}
	}
	return nil
}

// mark says which events an entry hangs on, for the invariants' names.
type mark byte

const (
	plain  mark = iota // of its key, prefixes, namespace and domain
	tagged             // of its tags
)

// versioned says that every fill and event of key has a version, absences aside.
func versioned(key string) bool { return strings.ContainsRune("vls", rune(key[0])) }

// mayVersion decides whether a fill or an event of key has one.
func mayVersion(key string, r *rand.Rand) bool {
	return versioned(key) || strings.ContainsRune("xtmz", rune(key[0])) && r.IntN(2) == 0
}

// origin is the source of truth: commits, numbered from 1 for each key. 0 is what
// it held before. Versions are the commits' numbers until a namespace is restored
// from a backup: then they begin again.
type origin struct {
	w        *world
	commits  map[string][]time.Duration
	restores map[string][]int        // of a key: the commits by which it was restored
	gone     map[string]map[int]bool // of a key: the commits by which it was deleted
	// late are the keys of which a version of before their restore was told after it:
	// a fence then refuses what is newer for as long as its version is lower.
	late map[string]bool
}

// lost notes a RESET that the broker has lost: the versions before it are read back
// at the next start.
func (o *origin) lost(e *event) {
	for _, x := range e.writes {
		o.late[x.key] = o.late[x.key] || e.restored > 0
	}
}

// told notes late versions.
func (o *origin) told(writes []write) {
	for _, x := range writes {
		if x.versioned && x.life < o.life(x.key, o.newest(x.key)) {
			o.late[x.key] = true
		}
	}
}

func (o *origin) newest(key string) int { return len(o.commits[key]) }

func (o *origin) commit(key string) int {
	o.commits[key] = append(o.commits[key], o.w.now)
	return len(o.commits[key])
}

// remove makes commit n of key a deletion.
func (o *origin) remove(key string, n int) {
	if o.gone[key] == nil {
		o.gone[key] = map[int]bool{}
	}
	o.gone[key][n] = true
}

// absent reports whether there is no value as of commit n of key.
func (o *origin) absent(key string, n int) bool { return o.gone[key][n] }

// life counts the restores of key up to commit n.
func (o *origin) life(key string, n int) int {
	at, found := slices.BinarySearch(o.restores[key], n)
	if found {
		at++
	}
	return at
}

// version is the source's own stamp of commit n of key.
func (o *origin) version(key string, n int) uint64 {
	if life := o.life(key, n); life > 0 {
		n -= o.restores[key][life-1] - 1
	}
	return uint64(n)
}

// commitOf is the inverse of version, for one who knows of so many restores.
func (o *origin) commitOf(key string, version uint64, life int) int {
	n := int(version)
	if life > 0 {
		n += o.restores[key][life-1] - 1
	}
	return min(n, o.newest(key))
}

// asOf is the newest commit at a moment.
func (o *origin) asOf(key string, t time.Duration) int {
	n, _ := slices.BinarySearchFunc(o.commits[key], t, func(c, t time.Duration) int {
		if c <= t {
			return -1
		}
		return 1
	})
	return n
}

// load reads key now, from a replica where its namespace has one.
func (o *origin) load(key string, primary bool) int {
	behind := policies.OfKey(key).ReplicaLag
	if primary || behind == 0 {
		return o.newest(key)
	}
	return o.asOf(key, o.w.now-within(o.w.rng, 0, behind*9/10))
}

// change is a commit of something and the event that tells of it.
type change struct {
	what      string
	writes    []write
	namespace string // of the event; empty: of all
	event     bus.Event
	garbled   bool
	update    int           // the number of the value that it brings
	since     time.Duration // when it was committed, for an update
	restored  int           // it tells of so many restores of its namespace
}

// versionWrite is what an event stands for that names commit n of key by its
// version. To those who do not know that the source was restored before n it says
// nothing.
func (o *origin) versionWrite(key string, n int) write {
	return write{key: key, n: n, versioned: true, life: o.life(key, n)}
}

// change commits a write of one key.
func (o *origin) change(key string, withVersion bool) change {
	n := o.commit(key)
	kv, wr := bus.KeyVersion{Key: key}, write{key: key, n: n}
	if withVersion {
		kv.Version, wr = o.version(key, n), o.versionWrite(key, n)
	}
	return change{
		what: fmt.Sprintf("write %s %d, version %d", key, n, kv.Version), writes: []write{wr},
		namespace: bus.NamespaceOf(key), event: bus.Event{Keys: []bus.KeyVersion{kv}},
	}
}

// update makes the event of c bring the value.
func (o *origin) update(c *change, ttl time.Duration) {
	kv, n := c.event.Keys[0], c.writes[0].n
	id := o.w.value(content{key: kv.Key, version: kv.Version, parts: []part{{key: kv.Key, n: n, update: true}}})
	c.what = "up" + strings.Replace(c.what, "write", "date by", 1)
	c.update, c.event.Op, c.event.Value, c.event.TTL = id, bus.OpUpdate, o.w.contents[id].text, ttl
	c.since = o.w.now
}

// prompt is c, without its value where that is kept by who has none and comes too late
// for it: writers keep to what is asked of them (ADR 0012).
func (o *origin) prompt(c change) change {
	if c.update != 0 && policies.Of(c.namespace).Update.Store == policy.StoreAlways && o.w.now-c.since > window {
		c.update, c.event.Op, c.event.Value, c.event.TTL = 0, bus.OpInvalidate, nil, 0
	}
	return c
}

// all commits a write of every key that begins with prefix. What does not exist has no
// tags.
func (o *origin) all(prefix string, m mark) (writes []write) {
	for _, key := range keys {
		if strings.HasPrefix(key, prefix) && (m == plain || !o.absent(key, o.newest(key))) {
			writes = append(writes, write{key: key, n: o.commit(key), mark: m})
		}
	}
	return writes
}

// A purge commits writes of many keys at once and tells of them by one event.
type purge struct {
	what, namespace string
	commit          func(*origin, *change)
}

var purges = []purge{
	{"purge of tag red", "t", func(o *origin, c *change) {
		c.event.Tags, c.writes = []string{"red"}, o.all("t:a", tagged)
	}},
	{"purge of tag all", "t", func(o *origin, c *change) {
		c.event.Tags, c.writes = []string{"all"}, o.all("t:", tagged)
	}},
	{"write of t:b and purge of tag red", "t", func(o *origin, c *change) {
		c.event.Keys = []bus.KeyVersion{{Key: "t:b"}}
		c.event.Tags, c.writes = []string{"red"}, append(o.all("t:a", tagged), o.all("t:b", plain)...)
	}},
	{"purge of prefix p:1:", "p", func(o *origin, c *change) {
		c.event.Prefix, c.writes = "p:1:", o.all("p:1:", plain)
	}},
	{"purge of prefix p:2:b", "p", func(o *origin, c *change) {
		c.event.Prefix, c.writes = "p:2:b", o.all("p:2:b", plain)
	}},
	{"purge of prefix v:", "v", func(o *origin, c *change) {
		c.event.Prefix, c.writes = "v:", o.all("v:", plain)
	}},
	{"flush of p", "p", flushOf("p:")},
	{"flush of t", "t", flushOf("t:")},
	{"flush of u", "u", flushOf("u:")},
	{"flush of d", "d", flushOf("d:")},
	{"flush of all", "", flushOf("")},
	{"purge of tag warm-l", "l", func(o *origin, c *change) {
		c.event.Tags, c.writes = []string{"warm-l"}, o.all("l:b", tagged)
	}},
	{"purge of tag warm-s", "s", func(o *origin, c *change) {
		c.event.Tags, c.writes = []string{"warm-s"}, o.all("s:b", tagged)
	}},
	{"flush of s", "s", flushOf("s:")},
	{"flush of n", "n", flushOf("n:")},
	{"garbled event of u", "u", func(o *origin, c *change) { c.garbled, c.writes = true, o.all("u:", plain) }},
}

func flushOf(prefix string) func(*origin, *change) {
	return func(o *origin, c *change) { c.event.Op, c.writes = bus.OpFlush, o.all(prefix, plain) }
}

func (o *origin) purge(p purge) change {
	c := change{what: p.what, namespace: p.namespace}
	p.commit(o, &c)
	return c
}

// restore puts a namespace back to a backup: other values, and lower versions.
func (o *origin) restore(namespace string) change {
	c := change{what: "flush RESET of " + namespace, namespace: namespace, event: bus.Event{Op: bus.OpFlush, Reset: true}}
	c.writes = o.all(namespace+":", plain)
	for _, x := range c.writes {
		o.restores[x.key] = append(o.restores[x.key], x.n)
	}
	c.restored = len(o.restores[c.writes[0].key])
	return c
}
