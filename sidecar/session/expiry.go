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
func parseExpiry(command, unit, arg []byte) (ttl cache.TTL, fault string) {
	n, ok := parseInt(arg)
	if !ok {
		return ttl, errInt
	}
	per := int64(time.Millisecond)
	if is(unit, "EX") || is(unit, "EXAT") {
		per = int64(time.Second)
	}
	if n <= 0 || n > math.MaxInt64/per {
		return ttl, badExpiry(command)
	}
	ttl = cache.TTL{Asked: true, For: time.Duration(n * per)}
	if is(unit, "EXAT") || is(unit, "PXAT") {
		if ttl.For -= time.Duration(time.Now().UnixNano()); ttl.For == 0 {
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
	switch {
	case !ok:
		s.fail(errInt)
		return
	case n > math.MaxInt64/per || n < math.MinInt64/per:
		s.fail(badExpiry(args[0]))
		return
	}
	ttl := cache.TTL{Asked: true, For: time.Duration(n * per)}
	if ttl.For == 0 {
		ttl.For = -1 // Redis drops the key at once; 0 would be never
	}
	key := view(args[1])
	info, held := s.cache.Peek(key, s.now)
	for _, option := range args[3:] {
		change, known := condition(option, info, ttl.For)
		if !known {
			s.fail(fmt.Sprintf("ERR Unsupported option %.32s", option))
			return
		}
		if held && !change {
			s.integer(0)
			return
		}
	}
	// What must not be told yet (C12) expires earlier all the same.
	s.truth(s.cache.Expire(key, ttl) && held)
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
	info, held := s.head(view(args[1]))
	s.truth(held && info.Expires && s.cache.Expire(view(args[1]), cache.TTL{Asked: true}))
}

// ttl is TTL and PTTL: -2 without an entry, -1 for one that never expires.
func (s *Session) ttl(args resp.Command) {
	info, held := s.head(view(args[1]))
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
