package native

import (
	"container/list"
	"strings"

	"github.com/nearside-cache/nearside/bus"
)

const (
	// maxTracked bounds the keys that are tracked for a connection.
	maxTracked = 65_536
	// trackedBytes is what one takes besides its bytes.
	trackedBytes = 160
)

// tracked are the keys that a client was given to keep. Which it has dropped since, is
// not known here: what is told in vain costs a push.
type tracked struct {
	reserve func(int64) bool // nil: no bound
	keys    map[string]*list.Element
	order   list.List // of string, tracked longest first
	bytes   int64     // reserved
}

// add tracks a key, and reports whether it is tracked and whether it was not before.
// Where there is no room, the key that is tracked longest gives way.
func (t *tracked) add(key string) (known, added bool, gone string) {
	if t.keys[key] != nil {
		return true, false, ""
	}
	if size := int64(len(key) + trackedBytes); t.reserve != nil && !t.reserve(size) {
		return false, false, ""
	}
	if len(t.keys) >= maxTracked {
		gone = t.order.Front().Value.(string)
		t.drop(gone)
	}
	if t.keys == nil {
		t.keys = make(map[string]*list.Element)
	}
	key = strings.Clone(key)
	t.keys[key] = t.order.PushBack(key)
	t.bytes += int64(len(key) + trackedBytes)
	return true, true, gone
}

// drop ends the tracking of a key, and reports whether it was tracked.
func (t *tracked) drop(key string) bool {
	e := t.keys[key]
	if e == nil {
		return false
	}
	t.order.Remove(e)
	if delete(t.keys, key); len(t.keys) == 0 {
		t.keys = nil // a map keeps the room of all it ever held
	}
	t.give(int64(len(key) + trackedBytes))
	return true
}

// clear ends the tracking of all keys, however many there are.
func (t *tracked) clear() {
	t.keys = nil
	t.order.Init()
	t.give(t.bytes)
}

func (t *tracked) give(n int64) {
	t.bytes -= n
	if t.reserve != nil {
		t.reserve(-n)
	}
}

// those returns which of the keys are tracked, and ends that.
func (t *tracked) those(keys []bus.KeyVersion) (names [][]byte) {
	for _, kv := range keys {
		if t.drop(kv.Key) {
			names = append(names, []byte(kv.Key))
		}
	}
	return names
}
