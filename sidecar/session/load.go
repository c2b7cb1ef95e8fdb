package session

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/operation"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// loadsAtOnce bounds the loads of one command.
const loadsAtOnce = 64

// loading says what was done about the keys of the command under way.
type loading uint8

const (
	unloaded   loading = iota
	loaded             // they were loaded: what is missing now is a miss
	loadFailed         // not all could be
)

// read is Cache.Read, which serves a value for longer when its load has failed.
func (s *Session) read(key string, dst []byte) ([]byte, cache.Found) {
	if s.loading == loadFailed {
		return s.cache.ReadStale(key, dst, s.now)
	}
	return s.cache.Read(key, dst, s.now)
}

// head is Cache.Head, for as long as read.
func (s *Session) head(key string) (cache.Info, bool) {
	if s.loading == loadFailed {
		return s.cache.HeadStale(key, s.now)
	}
	return s.cache.Head(key, s.now)
}

// mayLoad reports whether a miss is loaded before it is told.
func (s *Session) mayLoad(p *policy.Namespace) bool {
	return s.loading == unloaded && p.Loader != nil && p.Enforces()
}

// mustLoad returns the keys that a plain read is to load before it is run. GET
// looks first: most find what they want. They are copies.
func (s *Session) mustLoad(c *command, args resp.Command) (keys []string) {
	if !readsValues(c.name) || c.name == "GET" {
		return nil
	}
	last := c.last
	if last < 0 {
		last += len(args)
	}
	policies := s.cache.Policies()
	for _, arg := range args[c.first : last+1] {
		key := view(arg)
		if s.mayLoad(policies.OfKey(key)) && s.cache.Wanting(key, s.now) {
			keys = append(keys, string(arg))
		}
	}
	return keys
}

// start runs a command, or has what it reads loaded first.
func (s *Session) start(c *command, args resp.Command) {
	if keys := s.mustLoad(c, args); keys != nil {
		args = own(args)
		s.parkLoads(keys, func(s *Session) { c.run(s, args) }, func(s *Session) { s.absent(c, args) })
		return
	}
	c.run(s, args)
}

// parkLoads has keys loaded and then runs the command, whether that succeeded or
// not. What a critical read will find is made known everywhere (C12); when that
// cannot be done, the command is answered as if nothing were held.
func (s *Session) parkLoads(keys []string, run, absent func(*Session)) {
	s.parkRound(keys, operation.LoadRounds, run, absent)
}

func (s *Session) parkRound(keys []string, rounds int, run, absent func(*Session)) {
	became, unknown := loaded, false
	var again []string
	s.park(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, s.env.BarrierTimeout)
		defer cancel()
		for i, err := range s.loadAll(ctx, keys) {
			switch {
			case err == nil:
				again = append(again, keys[i])
			case !errors.Is(err, cache.ErrAbsent): // which the metrics of loads tell
				became = loadFailed
			}
		}
		for _, key := range keys {
			if s.cache.Policies().OfKey(key).Critical() && s.cache.Catch(ctx, cache.Mode{Kind: cache.Strong}, key) != nil {
				unknown = true
			}
		}
	}, func(s *Session) {
		if unknown {
			absent(s)
			return
		}
		again = slices.DeleteFunc(again, func(key string) bool { return !s.cache.Wanting(key, s.now) })
		if len(again) > 0 && rounds > 1 && became == loaded {
			s.parkRound(again, rounds-1, run, absent)
			return
		}
		s.loading = became
		run(s)
		s.loading = unloaded
	})
}

// loadAll loads keys and returns what became of each.
func (s *Session) loadAll(ctx context.Context, keys []string) []error {
	errs := make([]error, len(keys))
	var g errgroup.Group
	g.SetLimit(loadsAtOnce)
	for i, key := range keys {
		g.Go(func() error {
			errs[i] = s.cache.Load(ctx, key, 0)
			return nil
		})
	}
	_ = g.Wait() // errs has them
	return errs
}

// revalidate goes on with a GET that has answered a value past its soft TTL from
// start on: one reader is told of a miss instead and loads it anew.
func (s *Session) revalidate(key string, start int) {
	if _, l := s.cache.Claim(key, cache.Mode{Kind: cache.Any}, &s.holder, true); l.Right == 0 {
		return
	}
	s.out = s.out[:start]
	s.null()
	s.cache.Missed(key, s.now)
}
