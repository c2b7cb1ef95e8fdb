package localstore

import (
	"math"
	"time"
)

// Expiry returns the moment, for Meta.Expires, at which something stored now
// with the given ttl expires. The ttl is shortened by up to the fraction jitter
// of itself, as u says (both between 0 and 1; u is drawn at random by the
// caller), so that what was stored together does not expire together. It is
// never lengthened: the result is rounded down to the millisecond. A ttl of 0
// gives 0, never; a negative one a moment that has passed.
func Expiry(now, ttl time.Duration, jitter, u float64) time.Duration {
	switch {
	case ttl == 0:
		return 0
	case ttl < 0:
		return time.Millisecond
	}
	cut := time.Duration(float64(ttl) * unit(jitter) * unit(u))
	if ttl = max(ttl-cut, min(ttl, time.Millisecond)); now > math.MaxInt64-ttl {
		now = math.MaxInt64 - ttl
	}
	return max((now + ttl).Truncate(time.Millisecond), time.Millisecond)
}

// unit limits x to 0 to 1; what is no number is 0.
func unit(x float64) float64 {
	if !(x > 0) {
		return 0
	}
	return min(x, 1)
}

// expiryMillis is Meta.Expires as it is kept in an entry. 0 is kept for never.
func expiryMillis(expires time.Duration) uint64 {
	if expires == 0 {
		return 0
	}
	return uint64(max(expires.Milliseconds(), 1))
}
