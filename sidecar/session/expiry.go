package session

import (
	"fmt"
	"math"
	"time"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/cache"
)

func isExpiry(arg []byte) bool {
	return is(arg, "EX") || is(arg, "PX") || is(arg, "EXAT") || is(arg, "PXAT")
}

// parseExpiry reads a TTL or a moment of the wall clock, which counts as the TTL
// that is left until it now.
func parseExpiry(unit, arg []byte) (ttl cache.TTL, fault string) {
	n, ok := parseInt(arg)
	if !ok {
		return ttl, errInt
	}
	per := int64(time.Millisecond)
	if is(unit, "EX") || is(unit, "EXAT") {
		per = int64(time.Second)
	}
	if n <= 0 || n > math.MaxInt64/per {
		return ttl, fmt.Sprintf("ERR invalid expire time: %d", n)
	}
	ttl = cache.TTL{Asked: true, For: time.Duration(n * per)}
	if is(unit, "EXAT") || is(unit, "PXAT") {
		if ttl.For = ttl.For - time.Duration(time.Now().UnixNano()); ttl.For == 0 {
			ttl.For = -1 // 0 would be never
		}
	}
	return ttl, ""
}

// expire is EXPIRE and PEXPIRE. They change the entry here and publish nothing:
// an expiry is no write.
func (s *Session) expire(args resp.Command) {
	n, ok := parseInt(args[2])
	per := int64(time.Second)
	if len(args[0]) == len("PEXPIRE") {
		per = int64(time.Millisecond)
	}
	if !ok || n > math.MaxInt64/per || n < math.MinInt64/per {
		s.fail(errInt)
		return
	}
	ttl := cache.TTL{Asked: true, For: time.Duration(n * per)}
	if ttl.For == 0 {
		ttl.For = -1 // Redis drops the key at once; 0 would be never
	}
	key := view(args[1])
	if len(args) == 4 {
		info, held := s.cache.Head(key, s.now)
		change, known := condition(args[3], info, ttl.For)
		switch {
		case !known:
			s.fail(fmt.Sprintf("ERR Unsupported option %.32s", args[3]))
			return
		case !held || !change:
			s.integer(0)
			return
		}
	} else if len(args) > 4 {
		s.fail(errSyntax)
		return
	}
	s.truth(s.cache.Expire(key, ttl, s.now))
}

// condition judges the option of EXPIRE; an entry without expiry counts as one
// that never ends.
func condition(opt []byte, i cache.Info, ttl time.Duration) (change, known bool) {
	switch {
	case is(opt, "NX"):
		return !i.Expires, true
	case is(opt, "XX"):
		return i.Expires, true
	case is(opt, "GT"):
		return i.Expires && ttl > i.TTL, true
	case is(opt, "LT"):
		return !i.Expires || ttl < i.TTL, true
	}
	return false, false
}

func (s *Session) persist(args resp.Command) {
	info, held := s.cache.Head(view(args[1]), s.now)
	s.truth(held && info.Expires && s.cache.Expire(view(args[1]), cache.TTL{Asked: true}, s.now))
}

// ttl is TTL and PTTL: -2 without an entry, -1 for one that never expires.
func (s *Session) ttl(args resp.Command) {
	info, held := s.cache.Head(view(args[1]), s.now)
	switch {
	case !held:
		s.integer(-2)
	case !info.Expires:
		s.integer(-1)
	case len(args[0]) == len("PTTL"):
		s.integer(info.TTL.Milliseconds())
	default:
		s.integer(int64((info.TTL + time.Second/2) / time.Second)) // rounded, as Redis does
	}
}
