package policy

import (
	"fmt"
	"strings"
	"time"

	"github.com/nearside-cache/nearside/bus"

	"github.com/nearside-cache/nearside/sidecar/loader/address"
)

// PurgeKind is what a wide purge names. Its text is a metric label.
type PurgeKind string

// Kinds of wide purges.
const (
	PurgeTags      PurgeKind = "tags"
	PurgePrefix    PurgeKind = "prefix"
	PurgeNamespace PurgeKind = "namespace"
	PurgeDomain    PurgeKind = "domain"
)

// PurgeKinds returns all kinds, for those who count them.
func PurgeKinds() []PurgeKind {
	return []PurgeKind{PurgeTags, PurgePrefix, PurgeNamespace, PurgeDomain}
}

// Permits reports whether clients may publish wide purges of a kind.
func (n *Namespace) Permits(k PurgeKind) bool {
	said, otherwise := n.Purge.Tags, true
	switch k {
	case PurgePrefix:
		said, otherwise = n.Purge.Prefix, n.AllowFlush
	case PurgeNamespace:
		said, otherwise = n.Purge.Namespace, n.AllowFlush
	case PurgeDomain:
		said, otherwise = n.Purge.Domain, n.AllowFlush
	}
	if said == "" {
		return otherwise
	}
	return said == Allow
}

// Explanation says which policy applies to a key and what it does.
type Explanation struct {
	Namespace string
	Block     string   // the part of the configuration that it stands in
	Effects   []string // one plain sentence each, without a full stop
}

// Explain tells which policy applies to a key, and why, in words.
func (s *Set) Explain(key string) Explanation {
	namespace := strings.Clone(bus.NamespaceOf(key))
	return Explanation{Namespace: namespace, Block: s.Block(namespace), Effects: s.Of(namespace).Effects()}
}

// Block returns the part of the configuration that a namespace's policy is from.
func (s *Set) Block(namespace string) string {
	if _, own := s.Namespaces[namespace]; own && !s.added[namespace] {
		return "namespaces." + namespace
	}
	return "defaults"
}

// effectList collects sentences.
type effectList []string

func (l *effectList) add(format string, args ...any) { *l = append(*l, fmt.Sprintf(format, args...)) }

// Effects says what the policy does, in one plain sentence each; the settings
// that decide it stand in brackets.
func (n *Namespace) Effects() []string {
	var l effectList
	switch n.Mode {
	case Shadow:
		l.add("nothing is served; what would be is computed and counted (mode shadow)")
	case Off:
		l.add("nothing is kept and nothing is served (mode off)")
	}
	switch {
	case n.Critical():
		l.add("every read sees every write acknowledged before it began (class critical)")
	case n.MaxStale > 0:
		l.add("reads may be up to %s stale (max_stale)", Words(n.MaxStale))
	default:
		l.add("reads may be up to %s stale (class %s)", Words(n.Bound()), n.Class)
	}
	n.livesFor(&l)
	n.loads(&l)
	n.keeps(&l)
	n.purges(&l)
	return l
}

// livesFor says how long values are kept.
func (n *Namespace) livesFor(l *effectList) {
	switch {
	case n.TTL == 0:
		l.add("a value that comes without a TTL is kept until it must give way (ttl: 0)")
	case n.TTLJitter > 0:
		l.add("a value that comes without a TTL is kept for %s, less up to %s at random (ttl, ttl_jitter)", Words(n.TTL), percent(n.TTLJitter))
	default:
		l.add("a value that comes without a TTL is kept for %s (ttl)", Words(n.TTL))
	}
	switch {
	case n.MaxTTL > 0:
		l.add("no value is kept for longer than %s (max_ttl)", Words(n.MaxTTL))
	case n.Sensitive:
		l.add("no value is kept for longer than %s (sensitive, without a max_ttl)", Words(n.TTLCap()))
	}
	if a := n.AdaptiveTTL; a.Max > 0 {
		l.add("TTLs follow how often a key changes, from %s to %s (adaptive_ttl)", Words(a.Min), Words(a.Max))
	}
}

// loadsFrom says what becomes of a miss.
func (n *Namespace) loadsFrom(l *effectList) {
	switch o := n.Loader; {
	case o == nil:
	case o.URL != "":
		if at, err := address.ParseWeb(o.URL, o.Socket); err == nil { // without secrets
			l.add("a miss loads from %s (loader.url)", at)
		}
	default:
		l.add("a miss loads by a request on %s (loader.subject)", o.Subject)
	}
	if n.L2 != nil {
		t := n.L2.WithDefaults()
		l.add("before that it looks into the shared tier, for %s at most; %d sidecars load a key at once (l2)", Words(t.Timeout), t.Loaders)
	}
	switch r := n.Lease; {
	case r.Off:
		l.add("readers that miss together all load (lease.off)")
	case r.Plain():
		l.add("of the clients that miss a key one loads it, the others wait up to %s, plain GETs too (lease)", Words(r.Patience()))
	default:
		l.add("of the clients that miss a key by NEAR.GET one loads it, the others wait up to %s (lease)", Words(r.Patience()))
	}
}

// loads says when values are loaded anew, and what becomes of loaded ones.
func (n *Namespace) loads(l *effectList) {
	n.loadsFrom(l)
	if n.SoftTTL > 0 {
		l.add("after %s a value is to be loaded anew (soft_ttl)", Words(n.SoftTTL))
	}
	if n.StaleWhileRevalidate > 0 {
		l.add("while that happens it is served for up to %s more (stale_while_revalidate)", Words(n.StaleWhileRevalidate))
	}
	if n.StaleIfError > 0 {
		l.add("when the origin fails it is served for up to %s more (stale_if_error)", Words(n.StaleIfError))
	}
	if n.NegativeTTL > 0 {
		l.add("that a key does not exist is kept for %s (negative_ttl)", Words(n.NegativeTTL))
	}
	if n.RefreshAhead > 0 {
		l.add("a read in the last %s of a value's TTL has it loaded anew (refresh_ahead)", percent(n.RefreshAhead))
	}
	switch n.Set {
	case SetWindow:
		l.add("plain SETs are judged by what was known one fill window ago (set: window)")
	case SetInvalidate:
		l.add("plain SETs are writes: published, nothing is stored (set: invalidate)")
	default:
		l.add("plain SETs are judged by the oldest miss of the key that awaits one (set: fill)")
	}
	n.Update.effects(l)
	if n.ReplicaLag > 0 {
		l.add("loads may read replicas that lag up to %s: leases are dated back as far (replica_lag)", Words(n.ReplicaLag))
	}
}

// keeps says how values are kept.
func (n *Namespace) keeps(l *effectList) {
	if n.MaxValue > 0 {
		l.add("values over %v are not kept (max_value)", n.MaxValue)
	}
	if n.CompressOver > 0 {
		l.add("values over %v are kept compressed (compress_over)", n.CompressOver)
	}
	if n.Sensitive {
		l.add("keys and values are kept out of logs, EXPLAIN and the watch (sensitive)")
	}
}

// purges says what clients may purge.
func (n *Namespace) purges(l *effectList) {
	var may, not []string
	for _, k := range PurgeKinds() {
		if n.Permits(k) {
			may = append(may, string(k))
		} else {
			not = append(not, string(k))
		}
	}
	if len(may) > 0 {
		l.add("clients may purge by %s (purge, allow_flush)", enumerate(may, "and"))
	}
	if len(not) > 0 {
		l.add("clients may not purge by %s (purge, allow_flush)", enumerate(not, "or"))
	}
	if n.Tenant > 0 {
		l.add("segment %d of a key names its tenant, and a wide purge must name one (tenant)", n.Tenant)
	}
	if n.Purge.CrossTenant == Allow {
		l.add("wide purges may cross tenants, with an audit record (purge.cross_tenant)")
	}
	switch w := n.WidePurges; {
	case w.Paused:
		l.add("wide purges are paused: every one is refused (wide_purges.paused)")
	case w.PerMinute > 0:
		l.add("clients may publish %d wide purges a minute, %d at once (wide_purges)", w.PerMinute, max(1, w.Burst))
	}
	if r := n.Refresh.WithDefaults(); n.Loader != nil {
		l.add("a REFRESH event reloads what was read within %s, spread over %s, %d at once (refresh)", Words(r.Recent), Words(r.Window), r.Workers)
	}
}

// Words writes a duration for people: 30 s, 10 min, 1 h.
func Words(d time.Duration) string {
	for _, unit := range []struct {
		is   time.Duration
		name string
	}{{time.Hour, "h"}, {time.Minute, "min"}, {time.Second, "s"}, {time.Millisecond, "ms"}} {
		if d != 0 && d%unit.is == 0 {
			return fmt.Sprintf("%d %s", d/unit.is, unit.name)
		}
	}
	return d.String()
}

func percent(fraction float64) string { return fmt.Sprintf("%.3g %%", fraction*100) }

// enumerate joins words as in a sentence.
func enumerate(words []string, last string) string {
	n := len(words) - 1
	if n == 0 {
		return words[0]
	}
	return strings.Join(words[:n], ", ") + " " + last + " " + words[n]
}
