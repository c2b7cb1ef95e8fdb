package sim

import (
	"fmt"
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
//	u  without versions                   r  without versions, from lagging replicas
//	t  hang on tags                       p  purged by prefix and namespace
//	d  made of a key of v
var policies = func() *policy.Set {
	ns := func(bound, replicaLag time.Duration) policy.Namespace {
		return policy.Namespace{
			Class: policy.Important, MaxStale: bound, Set: policy.SetFill, ReplicaLag: replicaLag, AllowFlush: true,
		}
	}
	return &policy.Set{
		Window: window, Default: ns(0, 0),
		Namespaces: map[string]policy.Namespace{
			"v": ns(time.Second, 0), "u": ns(3*time.Second, 0), "x": ns(8*time.Second, lag), "r": ns(5*time.Second, lag),
			"t": ns(2*time.Second, 0), "p": ns(4*time.Second, 0), "d": ns(4*time.Second, 0),
		},
	}
}()

var keys = []string{"v:a", "v:b", "u:a", "u:b", "x:a", "r:a", "t:a", "t:b", "p:1:a", "p:2:b", "d:a"}

// tagsOf are the tags of the keys of t.
func tagsOf(key string) []string {
	switch key {
	case "t:a":
		return []string{"red", "all"}
	case "t:b":
		return []string{"blue", "all"}
	}
	return nil
}

// derived is the key made of another one.
const derived, source = "d:a", "v:a"

// mark says what an entry hangs on; it stands in its value.
type mark string

const (
	plain    mark = "-" // or, of a write: any entry
	tagged   mark = "t"
	depended mark = "d"
)

// markOf is that of a value filled under a lease.
func markOf(key string) mark {
	switch {
	case tagsOf(key) != nil:
		return tagged
	case key == derived:
		return depended
	}
	return plain
}

func versioned(key string) bool { return strings.HasPrefix(key, "v:") }

// origin is the source of truth: commits, numbered from 1 for each key. 0 is what
// it held before.
type origin struct {
	w       *world
	commits map[string][]time.Duration
}

// name is the key whose commits make the value of key.
func (o *origin) name(key string) string {
	if key == derived {
		return source
	}
	return key
}

func (o *origin) newest(key string) int { return len(o.commits[o.name(key)]) }

func (o *origin) commit(key string) int {
	o.commits[key] = append(o.commits[key], o.w.now)
	return len(o.commits[key])
}

// asOf is the newest commit at a moment.
func (o *origin) asOf(key string, t time.Duration) int {
	all := o.commits[o.name(key)]
	n, _ := slices.BinarySearchFunc(all, t, func(c, t time.Duration) int {
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

// covers is what an event of a key stands for.
func (o *origin) covers(key string, n int) []write {
	writes := []write{{key, n, plain}}
	if key == source {
		writes = append(writes, write{derived, n, depended})
	}
	return writes
}

func valueOf(key string, n int, m mark) []byte { return fmt.Appendf(nil, "%s %d %s", key, n, m) }

func parse(value []byte) (key string, n int, m mark, err error) {
	_, err = fmt.Sscanf(string(value), "%s %d %s", &key, &n, &m)
	return key, n, m, err
}

// change is a commit of something and the event that tells of it.
type change struct {
	what      string
	writes    []write
	namespace string
	event     bus.Event
	garbled   bool
}

// change commits a write of one key.
func (o *origin) change(key string, withVersion bool) change {
	key = o.name(key)
	n := o.commit(key)
	kv := bus.KeyVersion{Key: key}
	if withVersion {
		kv.Version = uint64(n)
	}
	return change{
		what: fmt.Sprintf("write %s %d, version %d", key, n, kv.Version), writes: o.covers(key, n),
		namespace: bus.NamespaceOf(key), event: bus.Event{Keys: []bus.KeyVersion{kv}},
	}
}

// purge commits writes of many keys at once, by one of several means.
func (o *origin) purge(choice int) change {
	var c change
	of := func(prefix string, m mark) {
		for _, key := range keys {
			if strings.HasPrefix(key, prefix) {
				c.writes = append(c.writes, write{key, o.commit(key), m})
			}
		}
	}
	switch choice {
	case 0:
		c.what, c.namespace = "purge tag red", "t"
		c.event.Tags = []string{"red"}
		of("t:a", tagged)
	case 1:
		c.what, c.namespace = "purge tag all", "t"
		c.event.Tags = []string{"all"}
		of("t:", tagged)
	case 2:
		c.what, c.namespace = "purge prefix p:1:", "p"
		c.event.Prefix = "p:1:"
		of("p:1:", plain)
	case 3:
		c.what, c.namespace = "flush p", "p"
		c.event.Op = bus.OpFlush
		of("p:", plain)
	default:
		c.what, c.namespace, c.garbled = "garbled event of u", "u", true
		of("u:", plain)
	}
	return c
}
