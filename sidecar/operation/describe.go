package operation

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// Fact is a name and a value of a description: a string, int64, uint64 or bool.
type Fact struct {
	Name  string
	Value any
}

// Status describes the sidecar, with its running totals.
func (e *Env) Status() []Fact {
	c := e.Cache
	st, n := c.Status(), c.Counts()
	return []Fact{
		{"version", e.Version},
		{"uptime_seconds", int64(time.Since(e.Started).Seconds())},
		{"ready", st.Ready},
		{"stream", st.Bus.Stream},
		{"connected", st.Bus.Connected},
		{"server", st.Bus.Server},
		{"applied", st.Applied.String()},
		{"applied_seq", st.Applied.Seq},
		{"state", string(c.State(&c.Policies().Default, c.Now()))},
		{"fresh_age_ms", c.FreshAge(c.Now()).Milliseconds()},
		{"pulser", st.Bus.Pulser},
		{"pulses", st.Bus.Pulses},
		{"clients", int64(e.Clients.Len())},
		{"toggles", int64(len(e.Toggles.Toggles()))},
		{"hits", n.Hits},
		{"misses", n.Misses},
		{"fills_stored", n.Stored},
		{"fills_rejected", n.Rejected},
		{"events_applied", n.Events},
		{"publishes", n.Publishes},
		{"publish_errors", n.PublishErrors},
		{"entries", int64(st.Store.Entries)},
		{"bytes", st.Store.Bytes},
		{"capacity", st.Store.Capacity},
		{"memory", e.Memory},
		{"evictions", st.Store.Evicted},
		{"fences", int64(st.Fences)},
		{"outstanding_misses", int64(st.Misses)},
		{"gaps", st.Bus.Gaps},
		{"repairs", st.Bus.Repairs},
		{"doubts", st.Bus.Doubts},
		{"forks", st.Bus.Forks},
	}
}

// Explain describes what is held of a key and why its next read hits or misses. It is
// no miss.
func (e *Env) Explain(key string) []Fact {
	x := e.Cache.Explain(key)
	last := "none known"
	if x.Decided {
		last = fmt.Sprintf("%s %v ago: %s", x.Verdict, x.Age.Round(time.Millisecond), x.Verdict.Words())
	}
	p := e.Cache.Policies().OfKey(key)
	return []Fact{
		{"key", e.Cache.Policies().Shown(key)},
		{"namespace", strings.Clone(bus.NamespaceOf(key))},
		{"next_read", nextRead(x, p)},
		{"last_fill", last},
		{"plain_set", nextSet(x, p)},
		{"resident", x.Resident},
		{"version", x.Stamp.Version},
		{"position_seq", x.Stamp.Seq},
		{"ttl_ms", x.TTL.Milliseconds()},
		{"size", int64(x.Size)},
		{"applied", x.Applied.String()},
		{"fence_version", x.Fence.Version},
		{"fence_seq", x.Fence.Seq},
		{"fence_unversioned_seq", x.Fence.Unversioned},
		{"purge_seq", x.Generation},
		{"tick", x.Tick},
		{"floor", x.Floor},
		{"outstanding_misses", int64(x.Misses)},
		{"ready", x.Ready},
		{"mode", string(cmp.Or(p.Mode, policy.Enforce))},
	}
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
