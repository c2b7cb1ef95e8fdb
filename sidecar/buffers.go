package sidecar

import "sync/atomic"

// buffers is the memory that all connections' buffers share beyond the little
// that each starts with (I15). It is safe for concurrent use.
type buffers struct {
	limit int64
	used  atomic.Int64
}

// reserve changes the reservation by delta bytes and reports whether there was
// room; without it nothing changes. Giving back always succeeds.
func (b *buffers) reserve(delta int64) bool {
	if used := b.used.Add(delta); delta > 0 && used > b.limit {
		b.used.Add(-delta)
		return false
	}
	return true
}

// buffer is a byte slice whose growth is accounted for. It belongs to one
// connection.
type buffer struct {
	bytes  []byte
	shared *buffers
	held   int64 // reserved
	roomy  int   // uses in a row that needed little of it
}

const (
	firstBuffer = 4 << 10  // what a buffer starts with, not accounted for
	keptBuffer  = 64 << 10 // what a buffer may keep for ever
	roomyUses   = 64       // after so many uses that needed a quarter at most, a buffer shrinks
)

// grow makes room for n more bytes and reports whether the shared memory
// allowed it.
func (b *buffer) grow(n int) bool {
	need := len(b.bytes) + n
	if need <= cap(b.bytes) {
		return true
	}
	size := max(need, 2*cap(b.bytes), firstBuffer)
	if !b.account(int64(size)) {
		if size = need; !b.account(int64(size)) {
			return false
		}
	}
	bigger := make([]byte, len(b.bytes), size)
	copy(bigger, b.bytes)
	b.bytes = bigger
	return true
}

// account reserves what a buffer of size bytes takes from the shared memory.
func (b *buffer) account(size int64) bool {
	want := max(0, size-firstBuffer)
	if !b.shared.reserve(want - b.held) {
		return false
	}
	b.held = want
	return true
}

// adopt takes over bytes that something else may have grown, and reports whether
// the shared memory had room for them.
func (b *buffer) adopt(bytes []byte) bool {
	b.bytes = bytes
	return b.account(int64(cap(bytes)))
}

// usedUp ends one use of the buffer, which needed n bytes, and leaves it empty. A
// buffer that was larger than needed for long is given back; any is, while the
// shared memory is more than half full: what idle connections keep must not
// crowd out those at work.
func (b *buffer) usedUp(n int) {
	b.bytes = b.bytes[:0]
	if b.held > 0 && b.shared.used.Load() > b.shared.limit/2 {
		b.release()
		return
	}
	if cap(b.bytes) <= keptBuffer || n > cap(b.bytes)/4 {
		b.roomy = 0
		return
	}
	if b.roomy++; b.roomy >= roomyUses {
		b.release()
	}
}

func (b *buffer) release() {
	b.bytes, b.roomy = nil, 0
	b.account(0)
}
