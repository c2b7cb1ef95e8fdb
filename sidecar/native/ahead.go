package native

import (
	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/operation"
)

// Ahead appends to keys, as far as it has room, the keys of the run of Gets for one key
// that in begins with, as session.Session does.
func (s *Session) Ahead(in []byte, keys []string) []string {
	before := len(keys)
	if s.cache.Prefetches() {
		keys = appendGets(keys, in)
	}
	s.ahead = len(keys) - before
	return keys
}

// lookAhead prefetches the run of such Gets that in begins with, once for as many as one
// Prefetch takes.
func (s *Session) lookAhead(in []byte) {
	if s.ahead > 0 {
		s.ahead--
		return
	}
	if !s.cache.Prefetches() {
		return
	}
	var space [cache.PrefetchKeys]string
	keys := appendGets(space[:0], in)
	s.cache.Prefetch(keys)
	s.ahead = max(0, len(keys)-1)
}

// prefetch has the first of reads prefetched that one Prefetch takes.
func (s *Session) prefetch(reads []operation.Read) {
	if !s.cache.Prefetches() {
		return
	}
	var space [cache.PrefetchKeys]string
	n := min(len(reads), len(space))
	for i := range reads[:n] {
		space[i] = reads[i].Key
	}
	s.cache.Prefetch(space[:n])
}

// appendGets appends the keys of Gets as far as there is room.
func appendGets(keys []string, in []byte) []string {
	for len(keys) < cap(keys) {
		key, n := plainGet(in)
		if n == 0 {
			break
		}
		keys, in = append(keys, view(key)), in[n:]
	}
	return keys
}

// plainGet returns the key and the length of the Get that in begins with; 0 when there is
// none, or none whose key has at most 255 bytes.
func plainGet(in []byte) (key []byte, n int) {
	const (
		bin8 = 0xc4
		head = near.HeaderSize + 3 // the body begins with an array, bin8 and the key's length
	)
	if len(in) < head || in[0] != near.Magic || near.Kind(in[1]) != near.KindGet || in[near.HeaderSize+1] != bin8 {
		return nil, 0
	}
	end := head + int(in[head-1])
	h, err := near.ParseHeader(in)
	if err != nil || end > h.Size() || h.Size() > len(in) {
		return nil, 0
	}
	return in[head:end], h.Size()
}
