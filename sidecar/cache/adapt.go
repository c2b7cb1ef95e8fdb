package cache

import (
	"bytes"
	"math/rand/v2"
	"time"

	"github.com/nearside-cache/nearside/localstore"
	"github.com/nearside-cache/nearside/sidecar/loader"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// adaptedTimes are the times of an entry whose TTL follows how often its value is
// seen to change: twice as long as before when it did not, half as long when it
// did, within the policy's bounds (the additive-increase rule of Alex, USENIX 1992,
// made multiplicative both ways). Where there is a soft TTL, that is what follows.
func adaptedTimes(p *policy.Namespace, now time.Duration, resident localstore.Meta, before, same bool) times {
	base := p.TTL
	if p.SoftTTL > 0 {
		base = p.SoftTTL
	}
	span := resident.Extra.Span
	switch {
	case !before || span == 0:
		span = base
	case same:
		span *= 2
	default:
		span /= 2
	}
	span = min(max(span, p.AdaptiveTTL.Min), p.AdaptiveTTL.Max)
	t := times{}
	t.extra.Span = span
	if p.SoftTTL == 0 {
		t.expires = localstore.Expiry(now, span, p.TTLJitter, rand.Float64())
		return t.with(p, now)
	}
	if p.TTL > 0 {
		t.expires = now + span + max(0, p.TTL-p.SoftTTL)
	}
	if most := p.TTLCap(); most > 0 && (t.expires == 0 || t.expires > now+most) {
		t.expires = now + most
	}
	soft := *p
	soft.SoftTTL = span
	return t.with(&soft, now)
}

// unchanged reports whether r is what is resident already.
func unchanged(m localstore.Meta, value []byte, r loader.Result) bool {
	switch {
	case r.NotModified:
		return true
	case r.Version != 0 && m.Version != 0:
		return r.Version == m.Version
	case r.ETag != "" && m.Extra.ETag != "":
		return r.ETag == m.Extra.ETag
	}
	return bytes.Equal(value, r.Value)
}
