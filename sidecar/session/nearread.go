package session

import (
	"context"
	"time"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/operation"
)

var nearReadCommands = []command{
	{"NEAR.GET", -2, "readonly", 1, 1, 1, "GET that says how fresh it must be and what it rests on", (*Session).nearGet},
	{"NEAR.FILL", -4, "write", 1, 1, 1, "Offers a value that was loaded under a lease", (*Session).nearFill},
	{"NEAR.RELEASE", 3, "fast", 1, 1, 1, "Gives up the right to fill that came with a lease; the load failed", (*Session).nearRelease},
	{"NEAR.BARRIER", 1, "", 0, 0, 0, "Returns when everything published before is applied here", (*Session).nearBarrier},
}

// nearGet is NEAR.GET key [ANY | MAXSTALE ms | ATLEAST token | STRONG] [WAIT ms].
func (s *Session) nearGet(args resp.Command) {
	w := words{rest: args[2:], usage: "NEAR.GET key [ANY | MAXSTALE ms | ATLEAST token | STRONG] [WAIT ms]"}
	key, m, wait := view(args[1]), cache.Mode{}, time.Duration(-1)
	switch {
	case w.option("ANY"):
		m.Kind = cache.Any
	case w.option("MAXSTALE"):
		m.Kind, m.MaxStale = cache.MaxStale, w.millis("MAXSTALE")
	case w.option("ATLEAST"):
		token := string(w.next("the token"))
		var err error
		if m.AtLeast, err = cache.ParseToken(token); err != nil && w.fault == "" {
			w.fail("%v: want one that NEAR.GET or a write answered", err)
		}
		m.Kind = cache.AtLeast
	case w.option("STRONG"):
		m.Kind = cache.Strong
	}
	if w.option("WAIT") {
		wait = w.millis("WAIT")
	}
	if fault := w.end(); fault != "" {
		s.fail(fault)
		return
	}
	s.readNear(s.env.NewRead(key, m, wait, s.now, &s.holder))
}

// readNear reads and answers. What has to be waited for parks it, and then it reads
// again.
func (s *Session) readNear(r operation.Read) {
	value, a, waits := s.env.Try(&r, s.now, nil)
	if !waits {
		s.nearAnswer(value, a)
		return
	}
	parked := r
	s.park(
		func(ctx context.Context) { s.env.Await(ctx, &parked) },
		func(s *Session) { s.readNear(parked) })
}

func (s *Session) nearAnswer(value []byte, a cache.Answer) {
	found := a.Status == cache.Hit || a.Status == cache.Regular || a.Status == cache.Stale
	n := 4
	switch {
	case found:
		n++
	case a.Status == cache.Miss:
		n += 2
	}
	s.dict(n)
	s.text("status")
	s.text(string(a.Status))
	switch {
	case found:
		s.text("value")
		s.bulk(value)
	case a.Status == cache.Miss:
		s.text("lease")
		s.text(a.Lease.String())
		s.text("right")
		s.truth(a.Lease.Right != 0)
	}
	s.text("version")
	s.integer(int64(a.Version))
	s.text("token")
	s.text(a.Token.String())
	s.text("age_ms")
	s.integer(a.Age.Milliseconds())
}

// Bounds of what a fill may hang on, besides what its dependencies hang on.
const (
	maxTags    = 64
	maxDepends = 64
)

// nearFill is NEAR.FILL key lease [VERSION v] [PX ms] [SOFT ms] [TAGS n t…] [DEPENDS
// n key…] [NEGATIVE] value.
func (s *Session) nearFill(args resp.Command) {
	key, value := string(args[1]), args[len(args)-1]
	lease, err := cache.ParseLease(string(args[2]))
	if err != nil {
		s.fail("ERR " + err.Error() + ": want the one that NEAR.GET answered")
		return
	}
	w := words{rest: args[3 : len(args)-1], usage: "NEAR.FILL key lease [VERSION v] [PX ms] [SOFT ms] [TAGS n tag…] [DEPENDS n key…] [NEGATIVE] value"}
	o := cache.FillOptions{Lease: lease}
	for w.fault == "" && len(w.rest) > 0 {
		switch {
		case w.option("VERSION"):
			o.Version = w.uint("VERSION")
		case w.option("PX"):
			o.TTL = cache.TTL{Asked: true, For: w.millis("PX")}
			if w.fault == "" && o.TTL.For == 0 {
				w.fail("PX is 0: want 1 or more")
			}
		case w.option("SOFT"):
			o.Soft = w.millis("SOFT")
		case w.option("NEGATIVE"):
			if o.Negative = true; len(value) > 0 {
				w.fail("NEGATIVE says that there is no value: want an empty one")
			}
		case w.option("TAGS"):
			o.Tags = w.list("tags", maxTags)
		case w.option("DEPENDS"):
			o.Depends = w.list("keys", maxDepends)
		default:
			w.end()
		}
	}
	if fault := w.end(); fault != "" {
		s.fail(fault)
		return
	}
	if !operation.Confirms(o) {
		s.fillAnswer(s.cache.Fill(key, value, o))
		return
	}
	if s.hold(int64(len(value))) {
		s.parkFill(key, append([]byte(nil), value...), o)
		s.wait.held = int64(len(value))
	}
}

// parkFill makes the version known everywhere before the reader, who waits for the
// answer, returns it (C12).
func (s *Session) parkFill(key string, value []byte, o cache.FillOptions) {
	var (
		v   coherence.Verdict
		err error
	)
	s.park(
		func(ctx context.Context) { v, err = s.env.Fill(ctx, key, value, o) },
		func(s *Session) {
			if err != nil {
				s.writeFailed(err)
				return
			}
			s.fillAnswer(v)
		})
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

func (s *Session) fillAnswer(v coherence.Verdict) {
	if v == coherence.Stored {
		s.simple("STORED")
		return
	}
	s.simple("REJECTED " + v.String())
}

func (s *Session) nearBarrier(resp.Command) {
	var (
		token string
		err   error
	)
	s.park(func(ctx context.Context) {
		token, err = s.env.Barrier(ctx)
	}, func(s *Session) {
		if err != nil {
			s.writeFailed(err)
			return
		}
		s.text(token)
	})
}
