package session

import "github.com/nearside-cache/nearside/sidecar/cache"

// Ahead appends to keys, as far as it has room, the keys of the run of plain GETs that in
// begins with, for the driver to have them prefetched, together with those of other
// connections, before it calls Serve with the same in. They are views of in.
func (s *Session) Ahead(in []byte, keys []string) []string {
	before := len(keys)
	if s.cache.Prefetches() {
		keys = appendGets(keys, in)
	}
	s.ahead = len(keys) - before
	return keys
}

// lookAhead prefetches the run of GETs that in begins with, once for as many as one
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

// prefetch has the first of keys prefetched that one Prefetch takes.
func (s *Session) prefetch(keys [][]byte) {
	if !s.cache.Prefetches() {
		return
	}
	var space [cache.PrefetchKeys]string
	n := min(len(keys), len(space))
	for i, key := range keys[:n] {
		space[i] = view(key)
	}
	s.cache.Prefetch(space[:n])
}

// appendGets appends the keys of plain GETs as far as there is room.
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

// What a plain GET begins with, as clients send it: its name aside.
const (
	getHead = "*2\r\n$3\r\n"
	getName = "GET"
	getTail = "\r\n$"
)

// plainGet returns the key and the length of the plain GET that in begins with; 0 when
// there is none, or none whose key has at most 999 bytes: those of long keys gain little.
func plainGet(in []byte) (key []byte, n int) {
	const name, tail, head = len(getHead), len(getHead) + len(getName), len(getHead) + len(getName) + len(getTail)
	if len(in) < head || string(in[:name]) != getHead || string(in[tail:head]) != getTail || !isGet(in[name:tail]) {
		return nil, 0
	}
	size, at := 0, head
	for ; at < len(in) && at < head+3 && '0' <= in[at] && in[at] <= '9'; at++ {
		size = size*10 + int(in[at]-'0')
	}
	at += len("\r\n")
	if n = at + size + len("\r\n"); size == 0 || n > len(in) || in[at-1] != '\n' {
		return nil, 0
	}
	return in[at : at+size], n
}

func isGet(name []byte) bool {
	const small = 'a' - 'A'
	return name[0]|small == 'g' && name[1]|small == 'e' && name[2]|small == 't'
}
