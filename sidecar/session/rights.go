package session

import (
	"context"
	"strings"
	"time"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/operation"
	"github.com/nearside-cache/nearside/sidecar/rights"
)

// left is how much there is of a wait that began with r.
func (s *Session) left(began, wait time.Duration) time.Duration { return wait - (s.now - began) }

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
			ctx, cancel = context.WithTimeout(ctx, operation.DefaultWait)
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
