package session

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/rights"
)

// reading is one NEAR.GET under way.
type reading struct {
	key    string
	mode   cache.Mode
	began  time.Duration
	fresh  time.Duration // how long it waits for the freshness that it asks for
	shared time.Duration // how long it waits for another's load

	tried  bool   // to catch up, since it last waited for a load
	caught bool   // it did once
	alone  bool   // it waits for no load any more
	right  uint64 // to fill; 0 = none
	loads  int    // how often the key was loaded for it
	ended  bool   // that failed, or there is no value to load
	failed bool   // it failed
}

// left is how much there is of a wait that began with r.
func (s *Session) left(began, wait time.Duration) time.Duration { return wait - (s.now - began) }

// readNear reads and answers. What has to be waited for parks it, and then it
// reads again: the answer is never that of a flight (C2).
func (s *Session) readNear(r reading) {
	for {
		value, a := s.cache.Near(r.key, r.mode, r.caught, r.failed, nil)
		switch a.Status {
		case cache.Miss:
			if wait := s.left(r.began, r.fresh); wait > 0 && !r.ended && r.loads < loadRounds && s.cache.Loads(r.key) {
				s.parkForLoad(r, wait)
				return
			}
			if r.right != 0 {
				a.Lease.Right = r.right
				break
			}
			switch o, lease := s.claim(r); {
			case o == rights.Again:
				continue
			case o == rights.Granted:
				a.Lease = lease
			case o == rights.Busy && s.left(r.began, r.shared) > 0:
				s.parkForRight(r)
				return
			}
		case cache.Bypassed, cache.Behind:
			s.cache.Unneeded(r.key, r.right, false)
			r.right = 0
			if !r.tried && s.left(r.began, r.fresh) > 0 {
				s.parkForFreshness(r)
				return
			}
		default:
			if r.right != 0 {
				s.cache.Unneeded(r.key, r.right, true)
			} else if a.Status == cache.Stale && !s.cache.Loads(r.key) {
				// One reader is told of a miss instead and loads it anew.
				if o, lease := s.claim(r); o == rights.Granted {
					a.Status, a.Version, a.Lease = cache.Miss, 0, lease
				}
			}
		}
		s.nearAnswer(value, a)
		return
	}
}

func (s *Session) claim(r reading) (rights.Outcome, cache.Lease) {
	if r.alone {
		return rights.Alone, cache.Lease{}
	}
	return s.cache.Claim(r.key, r.mode, &s.holder, false)
}

// parkForFreshness makes what the mode asks for hold.
func (s *Session) parkForFreshness(r reading) {
	r.key, r.tried = strings.Clone(r.key), true
	wait := s.left(r.began, r.fresh)
	s.park(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		if s.cache.Catch(ctx, r.mode, r.key) == nil { // if not, the answer says so
			r.caught = true
		}
	}, func(s *Session) { s.readNear(r) })
}

// parkForLoad has the key loaded, and what a STRONG read will find known
// everywhere (C12).
func (s *Session) parkForLoad(r reading, wait time.Duration) {
	r.key, r.loads = strings.Clone(r.key), r.loads+1
	s.park(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		err := s.cache.Load(ctx, r.key, r.mode.AtLeast.Version)
		r.ended = err != nil || r.mode.Kind == cache.AtLeast // what the origin has now may be too old for it
		if r.failed = err != nil && !errors.Is(err, cache.ErrAbsent); !r.failed && r.caught {
			r.caught = s.cache.Catch(ctx, r.mode, r.key) == nil
		}
	}, func(s *Session) { s.readNear(r) })
}

// parkForRight waits while another reader has the right to fill the key.
func (s *Session) parkForRight(r reading) {
	r.key, r.tried = strings.Clone(r.key), false
	wait := s.left(r.began, r.shared)
	s.park(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		var o rights.Outcome
		r.right, o = s.cache.AwaitRight(ctx, r.key, &s.holder, false)
		r.alone = o == rights.Alone
	}, func(s *Session) { s.readNear(r) })
}

// nearRelease is NEAR.RELEASE key lease.
func (s *Session) nearRelease(args resp.Command) {
	lease, err := cache.ParseLease(string(args[2]))
	if err != nil {
		s.fail("ERR " + err.Error() + ": want the one that NEAR.GET answered")
		return
	}
	s.truth(s.cache.Release(view(args[1]), lease))
}

// get is GET. Where policy says so, one that misses waits while the key is loaded,
// by the sidecar or by another client.
func (s *Session) get(args resp.Command) {
	key, start := view(args[1]), len(s.out)
	found := s.lookup(key)
	if found == cache.Value {
		return
	}
	policy := s.cache.Policies().OfKey(key)
	switch {
	case found == cache.Absence:
		s.cache.Missed(key, s.now)
	case found == cache.Nothing && s.mayLoad(policy):
		s.out = s.out[:start]
		args = own(args)
		s.parkLoads([]string{string(args[1])}, func(s *Session) { s.get(args) }, func(s *Session) { s.absent(commands["GET"], args) })
	case found == cache.Old:
		if policy.Loader == nil { // which would load it in the background
			s.revalidate(key, start)
		}
	case policy.Lease.Plain():
		s.share(key, start, s.now, policy.Lease.Patience())
	default:
		s.cache.Missed(key, s.now)
	}
}

// share goes on with a GET that began at began and has answered null from start
// on, which its client has not been told yet.
func (s *Session) share(key string, start int, began, patience time.Duration) {
	o, _ := s.cache.Claim(key, cache.Mode{Kind: cache.Any}, &s.holder, true)
	switch {
	case o == rights.Again:
		s.out = s.out[:start]
		s.value(key)
	case o == rights.Busy && s.left(began, patience) > 0:
		s.out = s.out[:start]
		s.parkGet(strings.Clone(key), began, patience)
	default:
		s.cache.Missed(key, s.now)
	}
}

// parkGet waits while another reader has the right to fill the key, then reads
// again. In a critical namespace, what was stored meanwhile must be as fresh as
// what was there before.
func (s *Session) parkGet(key string, began, patience time.Duration) {
	var (
		right uint64
		o     rights.Outcome
		err   error
	)
	critical := s.cache.Policies().OfKey(key).Critical()
	wait := s.left(began, patience)
	s.park(func(ctx context.Context) {
		waiting, cancel := context.WithTimeout(ctx, wait)
		right, o = s.cache.AwaitRight(waiting, key, &s.holder, true)
		cancel()
		if critical {
			ctx, cancel = context.WithTimeout(ctx, defaultWait)
			defer cancel()
			err = s.cache.Catch(ctx, cache.Mode{Kind: cache.Strong}, key)
		}
	}, func(s *Session) {
		start := len(s.out)
		switch {
		case err == nil && held(s.lookup(key)):
			if o == rights.Granted {
				s.cache.Unneeded(key, right, true)
			}
			return
		case err != nil:
			s.null()
		}
		if o == rights.Again {
			s.share(key, start, began, patience)
			return
		}
		s.cache.Missed(key, s.now)
	})
}

// offer is a plain SET, judged by C3.
func (s *Session) offer(key string, value []byte, ttl cache.TTL) {
	if s.cache.Set(key, value, ttl) != coherence.Stored {
		s.cache.SetRefused(key, &s.holder)
	}
}
