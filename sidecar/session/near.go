package session

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

var nearCommands = []command{
	{"NEAR.EXPLAIN", 2, "readonly", 1, 1, 1, "Tells what is held of a key and why its next read hits or misses", (*Session).explain},
	{"NEAR.STATUS", 1, "readonly fast", 0, 0, 0, "Tells how the sidecar is", (*Session).status},
	{"NEAR.WATCH", 1, "no_multi", 0, 0, 0, "Pushes every event that is applied from now on", (*Session).startWatch},
}

// pairs answers with a map of names and values.
type pairs []struct {
	name  string
	value any // string, int, int64, uint64 or bool
}

func (s *Session) pairs(p pairs) {
	s.dict(len(p))
	for _, kv := range p {
		s.text(kv.name)
		switch v := kv.value.(type) {
		case string:
			s.text(v)
		case bool:
			s.out = s.proto.AppendBool(s.out, v)
		case int:
			s.integer(int64(v))
		case int64:
			s.integer(v)
		case uint64:
			if v > math.MaxInt64 { // versions use all 64 bits, RESP's integers have a sign
				s.text(strconv.FormatUint(v, 10))
				break
			}
			s.integer(int64(v))
		default:
			panic(fmt.Sprintf("session: %s has type %T", kv.name, v))
		}
	}
}

func (s *Session) status(resp.Command) {
	st, n := s.cache.Status(), s.cache.Counts()
	s.pairs(pairs{
		{"version", s.env.Version},
		{"uptime_seconds", int64(time.Since(s.env.Started).Seconds())},
		{"ready", st.Ready},
		{"stream", st.Bus.Stream},
		{"connected", st.Bus.Connected},
		{"server", st.Bus.Server},
		{"applied", st.Applied.String()},
		{"applied_seq", st.Applied.Seq},
		{"state", string(s.cache.State(&s.cache.Policies().Default, s.cache.Now()))},
		{"fresh_age_ms", (s.cache.Now() - s.cache.Fresh()).Milliseconds()},
		{"pulser", st.Bus.Pulser},
		{"pulses", st.Bus.Pulses},
		{"clients", s.env.Clients.Len()},
		{"toggles", len(s.env.Toggles.Toggles())},
		{"hits", n.Hits},
		{"misses", n.Misses},
		{"fills_stored", n.Stored},
		{"fills_rejected", n.Rejected},
		{"events_applied", n.Events},
		{"publishes", n.Publishes},
		{"publish_errors", n.PublishErrors},
		{"entries", st.Store.Entries},
		{"bytes", st.Store.Bytes},
		{"capacity", st.Store.Capacity},
		{"memory", s.env.Memory},
		{"evictions", st.Store.Evicted},
		{"fences", st.Fences},
		{"outstanding_misses", st.Misses},
		{"gaps", st.Bus.Gaps},
		{"repairs", st.Bus.Repairs},
		{"doubts", st.Bus.Doubts},
		{"forks", st.Bus.Forks},
	})
}

func (s *Session) explain(args resp.Command) {
	key := string(args[1])
	e := s.cache.Explain(key)
	last := "none known"
	if e.Decided {
		last = fmt.Sprintf("%s %v ago: %s", e.Verdict, e.Age.Round(time.Millisecond), e.Verdict.Words())
	}
	p := s.cache.Policies().OfKey(key)
	s.pairs(pairs{
		{"key", s.cache.Policies().Shown(key)},
		{"namespace", strings.Clone(bus.NamespaceOf(key))},
		{"next_read", nextRead(e, p)},
		{"last_fill", last},
		{"plain_set", nextSet(e, p)},
		{"resident", e.Resident},
		{"version", e.Stamp.Version},
		{"position_seq", e.Stamp.Seq},
		{"ttl_ms", e.TTL.Milliseconds()},
		{"size", e.Size},
		{"applied", e.Applied.String()},
		{"fence_version", e.Fence.Version},
		{"fence_seq", e.Fence.Seq},
		{"fence_unversioned_seq", e.Fence.Unversioned},
		{"purge_seq", e.Generation},
		{"tick", e.Tick},
		{"floor", e.Floor},
		{"outstanding_misses", e.Misses},
		{"ready", e.Ready},
		{"mode", string(cmp.Or(p.Mode, policy.Enforce))},
	})
}

// nextRead says in words what a read would find.
func nextRead(e cache.Explanation, p *policy.Namespace) string {
	switch {
	case p.Mode == policy.Off:
		return "MISS: the namespace's mode is off"
	case p.Mode == policy.Shadow && e.Resident && e.Alive && !e.Expired:
		return "MISS: the namespace's mode is shadow; else it would be a HIT"
	case !e.Resident:
		return "MISS: nothing is held"
	case !e.Alive:
		return "MISS: the entry is from before a purge or a doubt"
	case e.Expired:
		return "MISS: the entry has expired"
	}
	return "HIT"
}

// nextSet says in words how a plain SET would be judged.
func nextSet(e cache.Explanation, p *policy.Namespace) string {
	switch {
	case p.Set == policy.SetInvalidate:
		return "is taken for a write: published, nothing stored"
	case p.Mode == policy.Off:
		return "is dropped: the namespace's mode is off"
	case !e.Ready:
		return "is dropped: the sidecar does not follow the stream yet"
	case e.Blind > 0:
		return fmt.Sprintf("is dropped for another %v: the events before the start cannot be had", e.Blind.Round(time.Millisecond))
	case e.Phantom > 0:
		return fmt.Sprintf("is judged by what was known one fill window ago, for another %v: readers of an earlier life may be under way", e.Phantom.Round(time.Millisecond))
	case p.Set == policy.SetWindow || e.Misses == 0:
		return "is judged by what was known one fill window ago"
	}
	return fmt.Sprintf("is judged by the oldest of %d outstanding misses", e.Misses)
}
