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

// origin is the source of truth, in memory: it knows of every key its newest
// version, and the value follows from both. It is safe for concurrent use.
type origin struct {
	mu       sync.Mutex
	versions map[string]uint64
}

func newOrigin(keys []string) *origin {
	o := &origin{versions: make(map[string]uint64, len(keys))}
	for _, k := range keys {
		o.versions[k] = firstVersion
	}
	return o
}

// commit makes a new version of the key, in one step, and returns it.
func (o *origin) commit(key string) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.versions[key]++
	return o.versions[key]
}

// read returns the key's newest version.
func (o *origin) read(key string) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.versions[key]
}

const (
	valueFormat = "%s %d %08x "
	padding     = 200 // bytes at most, so that values differ in length
)

// valueOf is what the origin holds of the key at a version. Every value is
// unique, and a torn one is told from a whole one.
func valueOf(key string, version uint64) string {
	sum := crc32.ChecksumIEEE(fmt.Appendf(nil, "%s %d", key, version))
	return fmt.Sprintf(valueFormat, key, version, sum) + strings.Repeat("x", int(version%padding))
}

// versionOf returns the version of a value that was served for the key, or an
// error when nobody wrote such a value (I10).
func versionOf(key, value string) (version uint64, err error) {
	var (
		name string
		sum  uint32
	)
	if _, err := fmt.Sscanf(value, valueFormat, &name, &version, &sum); err != nil || value != valueOf(key, version) {
		return 0, fmt.Errorf("nobody wrote %.80q for %s", value, key)
	}
	return version, nil
}
