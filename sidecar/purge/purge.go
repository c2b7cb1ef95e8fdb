// Package purge decides which wide purges the clients of a sidecar may publish:
// by what the policies permit, by tenancy, and by how many there were. It bounds
// what this sidecar's clients do; the events of others are always applied.
package purge

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/audit"
	"github.com/nearside-cache/nearside/sidecar/clock"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// TenantTag is what a tag begins with that names a tenant: tenant:acme, or
// tenant:acme:orders.
const TenantTag = "tenant:"

// Request is a wide purge that a client asks for. It may name several kinds.
type Request struct {
	Tags      []string
	Prefix    string
	Namespace string
	Domain    bool
	By        audit.Who
}

// Wide reports whether a request purges more than keys.
func (r Request) Wide() bool { return len(r.kinds()) > 0 }

// kinds returns what a request names.
func (r Request) kinds() (all []policy.PurgeKind) {
	for _, k := range []struct {
		named bool
		kind  policy.PurgeKind
	}{
		{len(r.Tags) > 0, policy.PurgeTags}, {r.Prefix != "", policy.PurgePrefix},
		{r.Namespace != "", policy.PurgeNamespace}, {r.Domain, policy.PurgeDomain},
	} {
		if k.named {
			all = append(all, k.kind)
		}
	}
	return all
}

// Outcome says what became of a request. Its text is a metric label.
type Outcome string

// Outcomes.
const (
	Admitted Outcome = "admitted"
	Denied   Outcome = "denied"  // policy does not permit the kind
	Tenant   Outcome = "tenant"  // it names no tenant where it must
	Paused   Outcome = "paused"  // none are permitted now
	Limited  Outcome = "limited" // there were too many
)

var outcomes = []Outcome{Admitted, Denied, Tenant, Paused, Limited}

// RefusedError is why a purge may not be published, and what to do.
type RefusedError struct {
	Outcome Outcome
	Words   string
}

// Error implements error.
func (r *RefusedError) Error() string { return r.Words }

// Config is what a Gate is made of.
type Config struct {
	Policies   func() *policy.Set // those in force, toggles included
	Clock      clock.Clock
	Audit      *audit.Log
	Registerer prometheus.Registerer
}

// Gate admits wide purges. It is safe for concurrent use.
type Gate struct {
	cfg     Config
	purges  *prometheus.CounterVec // by kind and outcome
	mu      sync.Mutex
	buckets map[string]*rate.Limiter // by the part of the configuration
}

// New makes a Gate.
func New(c Config) *Gate {
	g := &Gate{
		cfg: c, buckets: make(map[string]*rate.Limiter),
		purges: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "nearside", Name: "wide_purges_total", Help: "Wide purges that clients asked for, by kind and by what was decided.",
		}, []string{"kind", "outcome"}),
	}
	for _, k := range policy.PurgeKinds() {
		for _, o := range outcomes {
			g.purges.WithLabelValues(string(k), string(o))
		}
	}
	c.Registerer.MustRegister(g.purges)
	return g
}

// Admit reports whether a purge may be published: nil, or a *RefusedError. A request
// that names nothing wide is admitted. A purge that is refused uses nothing up.
func (g *Gate) Admit(r Request) error {
	kinds := r.kinds()
	if len(kinds) == 0 {
		return nil
	}
	crossed, refusal := g.judge(r, kinds)
	outcome := Admitted
	if refusal != nil {
		outcome = refusal.Outcome
	}
	for _, k := range kinds {
		g.purges.WithLabelValues(string(k), string(outcome)).Inc()
	}
	if refusal != nil {
		return refusal
	}
	if len(crossed) > 0 {
		g.record(r, crossed)
	}
	return nil
}

// target is a policy that a purge falls under.
type target struct {
	block string // the part of the configuration that it stands in
	of    *policy.Namespace
	kind  policy.PurgeKind
}

// targets returns the policies that each kind of a request falls under. A tag may
// be anywhere, and a flush of the domain is everywhere.
func targets(p *policy.Set, r Request, kinds []policy.PurgeKind) (all []target) {
	one := func(k policy.PurgeKind, namespace string) {
		all = append(all, target{p.Block(namespace), p.Of(namespace), k})
	}
	for _, k := range kinds {
		switch k {
		case policy.PurgePrefix:
			one(k, bus.NamespaceOf(r.Prefix))
		case policy.PurgeNamespace:
			one(k, r.Namespace)
		default:
			for block, n := range p.All() {
				all = append(all, target{block, n, k})
			}
		}
	}
	// The same refusal for the same request.
	slices.SortStableFunc(all, func(a, b target) int { return cmp.Compare(a.block, b.block) })
	return all
}

// judge returns the first reason against a purge, or whose tenants it crosses.
func (g *Gate) judge(r Request, kinds []policy.PurgeKind) (crossed []target, refusal *RefusedError) {
	p := g.cfg.Policies()
	all := targets(p, r, kinds)
	for _, t := range all {
		if !t.of.Permits(t.kind) {
			return nil, refuse(Denied, "the policy in %s does not permit purges by %s: set purge.%s: allow%s there",
				t.block, t.kind, t.kind, map[bool]string{true: ", or allow_flush: true,"}[t.kind != policy.PurgeTags])
		}
	}
	for _, t := range all {
		if t.of.Tenant == 0 || r.namesTenant(t) {
			continue
		}
		if t.of.Purge.CrossTenant != policy.Allow {
			return nil, refuse(Tenant, "the policy in %s has tenants, and this purge by %s names none: %s; or set purge.cross_tenant: allow there", t.block, t.kind, howTo(t))
		}
		crossed = append(crossed, t)
	}
	for _, t := range all {
		if t.of.WidePurges.Paused {
			return nil, refuse(Paused, "wide purges are paused by the policy in %s: invalidate keys, or ask who paused them (nearside policy get)", t.block)
		}
	}
	return crossed, g.take(p, all)
}

// howTo says how a purge names a tenant.
func howTo(t target) string {
	if t.kind == policy.PurgeTags {
		return fmt.Sprintf("begin each tag with %q and the tenant", TenantTag)
	}
	return fmt.Sprintf("want a prefix that goes up to a ':' behind segment %d of the keys", t.of.Tenant)
}

// namesTenant reports whether what a request purges in a namespace is one
// tenant's.
func (r Request) namesTenant(t target) bool {
	switch t.kind {
	case policy.PurgeTags:
		return !slices.ContainsFunc(r.Tags, func(tag string) bool {
			rest, named := strings.CutPrefix(tag, TenantTag)
			return !named || rest == "" || rest[0] == ':'
		})
	case policy.PurgePrefix:
		segments := strings.Split(r.Prefix, ":") // the last one is not whole
		return len(segments) > t.of.Tenant+1 && segments[t.of.Tenant] != ""
	}
	return false
}

// take uses up one purge in every bucket concerned, or none at all.
func (g *Gate) take(p *policy.Set, all []target) *RefusedError {
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.buckets, func(block string, _ *rate.Limiter) bool {
		return p.Block(strings.TrimPrefix(block, "namespaces.")) != block // it is gone
	})
	now := time.Unix(0, int64(g.cfg.Clock()))
	var taken []*rate.Reservation
	done := make(map[string]bool)
	for _, t := range all {
		w := t.of.WidePurges
		if w.PerMinute == 0 || done[t.block] {
			continue
		}
		done[t.block] = true
		reservation := g.bucket(t.block, w, now).ReserveN(now, 1)
		taken = append(taken, reservation)
		if wait := reservation.DelayFrom(now); wait > 0 {
			for _, r := range slices.Backward(taken) {
				r.CancelAt(now)
			}
			return refuse(Limited, "the policy in %s permits %d wide purges a minute, %d at once: repeat it in %v, or invalidate keys",
				t.block, w.PerMinute, max(1, w.Burst), wait.Round(time.Millisecond))
		}
	}
	return nil
}

// bucket returns the bucket of a policy as it is now, under mu.
func (g *Gate) bucket(block string, w policy.WidePurges, now time.Time) *rate.Limiter {
	limit, burst := rate.Limit(float64(w.PerMinute)/60), max(1, w.Burst)
	b := g.buckets[block]
	if b == nil {
		b = rate.NewLimiter(limit, burst)
		g.buckets[block] = b
	}
	if b.Limit() != limit {
		b.SetLimitAt(now, limit)
	}
	if b.Burst() != burst {
		b.SetBurstAt(now, burst)
	}
	return b
}

func refuse(o Outcome, format string, args ...any) *RefusedError {
	return &RefusedError{o, fmt.Sprintf(format, args...)}
}

// shownTags is how many tags a record names.
const shownTags = 10

// record writes down that tenants are crossed.
func (g *Gate) record(r Request, crossed []target) {
	show := func(name string) string { return fmt.Sprintf("%.100q", name) }
	if slices.ContainsFunc(crossed, func(t target) bool { return t.of.Sensitive }) {
		show = policy.Mask
	}
	var what []string
	for _, tag := range r.Tags[:min(len(r.Tags), shownTags)] {
		what = append(what, "tag "+show(tag))
	}
	if more := len(r.Tags) - shownTags; more > 0 {
		what = append(what, fmt.Sprintf("and %d more tags", more))
	}
	if r.Prefix != "" {
		what = append(what, "prefix "+show(r.Prefix))
	}
	if r.Namespace != "" {
		what = append(what, "the whole namespace")
	}
	if r.Domain {
		what = append(what, "the whole domain")
	}
	namespace := cmp.Or(r.Namespace, policy.AllNamespaces)
	if r.Prefix != "" && len(r.Tags) == 0 {
		namespace = bus.NamespaceOf(r.Prefix)
	}
	g.cfg.Audit.Write(audit.Record{What: audit.CrossTenant, Namespace: namespace, Detail: "purge of " + strings.Join(what, ", "), By: r.By})
}
