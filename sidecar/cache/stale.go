package cache

import (
	"time"

	"github.com/nearside-cache/nearside/localstore"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// Found says what a read found.
type Found uint8

// What reads find.
const (
	Nothing Found = iota // nothing that may be served
	Value                // a value
	Old                  // a value past its soft TTL
	Absence              // the source's word that there is no value
)

// none is a bound that allows no value past its soft TTL at all; unbounded allows
// what the policy does.
const (
	none      = time.Duration(-1)
	unbounded = never
	never     = time.Duration(1 << 62)
)

// patience is how long past its soft TTL an entry may be served (C10): while
// somebody loads it anew, or because that has failed.
func patience(p *policy.Namespace, failed bool) time.Duration {
	if failed {
		return max(p.StaleWhileRevalidate, p.StaleIfError)
	}
	if p.Loader == nil && !p.Lease.Plain() {
		return none // nobody would
	}
	return p.StaleWhileRevalidate
}

// boundOf is how far past its soft TTL a value may be for a plain read: those of
// class critical are STRONG.
func boundOf(p *policy.Namespace) time.Duration {
	if p.Critical() {
		return none
	}
	return p.Bound()
}

// find says how an entry may be served to a reader that allows bound, and has what is
// due loaded anew. After a load that failed it has nothing loaded: the next reader
// tries again. It must be asked after the entry was read.
func (c *Cache) find(key string, m localstore.Meta, p *policy.Namespace, now, bound time.Duration, failed bool) Found {
	found := c.judge(key, m, p, now, bound, failed)
	switch due := m.Extra.Renew != 0 && now >= m.Extra.Renew; {
	case failed:
	case found == Old, found == Value && due: // it is read, so that it should not expire
		c.renew(key, now)
	}
	return found
}

// judge says how an entry may be served to a reader that allows bound. What is past
// its soft TTL by more than the reader's staleness bound never is: bounded means
// bounded, and STALE is never what an event has made stale (C6), which is not alive.
func (c *Cache) judge(key string, m localstore.Meta, p *policy.Namespace, now, bound time.Duration, failed bool) Found {
	if !c.servable(key, m, now) {
		return Nothing
	}
	x := &m.Extra
	old := x.Soft != 0 && now >= x.Soft
	switch {
	case old && (now-x.Soft > bound || now-x.Soft > patience(p, failed)):
		return Nothing
	case x.Negative:
		return Absence
	case old:
		return Old
	}
	return Value
}

// ReadStale is Read for a reader whose load has failed: a value may be served for
// longer past its soft TTL (stale-if-error), within the bound of the class.
func (c *Cache) ReadStale(key string, dst []byte, now time.Duration) ([]byte, Found) {
	return c.read(key, dst, now, true)
}
