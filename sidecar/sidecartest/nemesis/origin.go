package nemesis

import (
	"fmt"
	"hash/crc32"
	"strings"
	"sync"
)

// firstVersion is that of every key before its first commit. No event needs to
// name it, for nothing older exists.
const firstVersion = 1

// origin is the source of truth, in memory: it knows of every key its versions. Some
// of them are deletions; the value of the others follows from the version. It is
// safe for concurrent use.
type origin struct {
	mu   sync.Mutex
	keys map[string][]bool // of a key, whether version i+1 is a deletion
	last uint64            // serial
}

// found is what a load found. Its serial tells it from all other loads: it is part
// of the value, so that an answer says which load it came from.
type found struct {
	key     string
	version uint64
	absent  bool
	serial  uint64 // 0: of no load
}

func newOrigin(keys []string) *origin {
	o := &origin{keys: make(map[string][]bool, len(keys))}
	for _, k := range keys {
		o.keys[k] = []bool{false}
	}
	return o
}

// commit makes a new version of the key, in one step, and returns it.
func (o *origin) commit(key string) uint64 { return o.add(key, false) }

// remove is commit of a deletion.
func (o *origin) remove(key string) uint64 { return o.add(key, true) }

func (o *origin) add(key string, absent bool) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.keys[key] = append(o.keys[key], absent)
	return uint64(len(o.keys[key]))
}

// read loads the key's newest version.
func (o *origin) read(key string) found {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.found(key, uint64(len(o.keys[key])))
}

// readOlder loads the newest version below one; ok says whether there is one.
func (o *origin) readOlder(key string, than uint64) (f found, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if than <= firstVersion {
		return found{}, false
	}
	return o.found(key, than-1), true
}

func (o *origin) found(key string, version uint64) found {
	o.last++
	return found{key: key, version: version, absent: o.keys[key][version-1], serial: o.last}
}

// absent reports whether there was such a version, and whether it is a deletion.
func (o *origin) absent(key string, version uint64) (was, absent bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if version == 0 || version > uint64(len(o.keys[key])) {
		return false, false
	}
	return true, o.keys[key][version-1]
}

// deletions returns the newest version of the key that is a deletion, and the oldest
// one from a version on; 0 for none.
func (o *origin) deletions(key string, from uint64) (newest, oldest uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := o.keys[key]
	for v := max(from, 1); v <= uint64(len(all)) && oldest == 0; v++ {
		if all[v-1] {
			oldest = v
		}
	}
	i := len(all) - 1
	for i >= 0 && !all[i] {
		i--
	}
	return uint64(i + 1), oldest
}

const (
	valueFormat = "%s %d %d %08x "
	padding     = 200 // bytes at most, so that values differ in length
)

// valueOf is what the origin holds of the key at a version. Every value is
// unique, and a torn one is told from a whole one.
func valueOf(f found) string {
	sum := crc32.ChecksumIEEE(fmt.Appendf(nil, "%s %d %d", f.key, f.version, f.serial))
	return fmt.Sprintf(valueFormat, f.key, f.version, f.serial, sum) + strings.Repeat("x", int(f.version%padding))
}

// foundIn returns what load brought a value that was served for the key, or an error
// when nobody wrote such a value (I10).
func foundIn(key, value string) (f found, err error) {
	var sum uint32
	if _, err := fmt.Sscanf(value, valueFormat, &f.key, &f.version, &f.serial, &sum); err != nil || f.key != key || value != valueOf(f) {
		return found{}, fmt.Errorf("nobody wrote %.80q for %s", value, key)
	}
	return f, nil
}
