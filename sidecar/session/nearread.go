package session

import (
	"context"
	"time"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/coherence"
)

var nearReadCommands = []command{
	{"NEAR.GET", -2, "readonly", 1, 1, 1, "GET that says how fresh it must be and what it rests on", (*Session).nearGet},
	{"NEAR.FILL", -4, "write", 1, 1, 1, "Offers a value that was loaded under a lease", (*Session).nearFill},
	{"NEAR.RELEASE", 3, "fast", 1, 1, 1, "Gives up the right to fill that came with a lease; the load failed", (*Session).nearRelease},
	{"NEAR.BARRIER", 1, "", 0, 0, 0, "Returns when everything published before is applied here", (*Session).nearBarrier},
}

// defaultWait is how long a read waits for the freshness that it asks for, where
// it does not say.
const defaultWait = time.Second

// nearGet is NEAR.GET key [ANY | MAXSTALE ms | ATLEAST token | STRONG] [WAIT ms].
func (s *Session) nearGet(args resp.Command) {
	w := words{rest: args[2:], usage: "NEAR.GET key [ANY | MAXSTALE ms | ATLEAST token | STRONG] [WAIT ms]"}
	key, m := view(args[1]), cache.Mode{}
	fresh, shared := defaultWait, s.cache.Policies().OfKey(key).Lease.Patience()
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
		fresh = w.millis("WAIT")
		shared = fresh
	}
	if fault := w.end(); fault != "" {
		s.fail(fault)
		return
	}
	s.readNear(reading{key: key, mode: m, began: s.now, fresh: fresh, shared: shared})
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
	if !lease.Strong || o.Version == 0 {
		s.fillAnswer(s.cache.Fill(key, value, o))
		return
	}
	if s.hold(int64(len(value))) {
		s.parkStrongFill(key, append([]byte(nil), value...), o)
		s.wait.held = int64(len(value))
	}
}

// parkStrongFill makes the version known everywhere before the reader, who waits
// for the answer, returns it (C12).
func (s *Session) parkStrongFill(key string, value []byte, o cache.FillOptions) {
	s.cache.Confirming(key, o.Lease, o.Version)
	var err error
	s.park(
		func(ctx context.Context) { err = s.cache.Confirm(ctx, key, o.Version) },
		func(s *Session) {
			if err != nil {
				s.cache.Release(key, o.Lease)
				s.writeFailed(err)
				return
			}
			s.fillAnswer(s.cache.Fill(key, value, o))
		})
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
		ctx, cancel := context.WithTimeout(ctx, s.env.BarrierTimeout)
		defer cancel()
		p, failed := s.cache.Barrier(ctx)
		token, err = p.String(), failed
	}, func(s *Session) {
		if err != nil {
			s.writeFailed(err)
			return
		}
		s.text(token)
	})
}
