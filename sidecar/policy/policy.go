// Package policy says how a sidecar treats the keys of each namespace.
package policy

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// SetMode says what a plain SET of a Redis client means (C3).
type SetMode string

// Modes of plain SETs.
const (
	// SetFill takes a SET for the end of a reader's own miss: cache-aside code.
	SetFill SetMode = "fill"
	// SetWindow judges every SET as if its reader had missed a fill window ago:
	// safe for warmers, fewer SETs are kept.
	SetWindow SetMode = "window"
	// SetInvalidate takes a SET for a write: it is published, nothing is stored.
	SetInvalidate SetMode = "invalidate"
)

// Class says how fresh plain reads of a namespace must be (C6). A read may ask for
// more or less than its class.
type Class string

// Classes of namespaces.
const (
	// Critical: every plain read sees every write acknowledged before it began. It
	// costs a pulse, shared by those who ask at the same time.
	Critical Class = "critical"
	// Important: a plain read is never staler than 30 s: longer than the election of
	// a stream's leader takes.
	Important Class = "important"
	// BestEffort: a plain read is never staler than 10 min.
	BestEffort Class = "best-effort"
)

var bounds = map[Class]time.Duration{Critical: 30 * time.Second, Important: 30 * time.Second, BestEffort: 10 * time.Minute}

// Namespace is the policy of one namespace. The yaml names are those of the
// configuration file.
type Namespace struct {
	// Class presets how fresh plain reads must be: critical, each sees every write
	// acknowledged before it began; important, none is over 30 s stale; best-effort,
	// none over 10 min. More freshness costs a pulse for each read, or misses sooner
	// when the broker is away.
	Class Class `yaml:"class"`
	// MaxStale is how stale a plain read may be, 0 for the class's own bound. When
	// this sidecar cannot prove that it is not staler, reads miss. A longer one
	// bridges longer outages of the broker; a shorter one than about 1 s makes reads
	// miss whenever a pulse is late.
	MaxStale time.Duration `yaml:"max_stale"`
	// TTL is how long an entry lives that was stored without a TTL of its own.
	// Longer saves loads; it bounds how long a write that nobody published stays
	// unseen. 0 means for ever.
	TTL time.Duration `yaml:"ttl"`
	// MaxTTL caps every TTL, also those that clients ask for. 0 means no cap.
	MaxTTL time.Duration `yaml:"max_ttl"`
	// TTLJitter shortens TTL by up to this fraction, so that entries stored
	// together do not expire together. TTLs that clients ask for are kept exactly.
	TTLJitter float64 `yaml:"ttl_jitter"`
	// Set is what a plain SET means: fill, it ends a reader's own miss, as in
	// cache-aside code; window, it is judged as of one fill_window ago, which is safe
	// for warmers and keeps fewer; invalidate, it is a write, which is published, and
	// nothing is stored.
	Set SetMode `yaml:"set"`
	// ReplicaLag is how far the replicas that readers load from may lag behind
	// their primary; 0 when loads read the primary. It must not exceed the fill
	// window. More makes loads that began shortly after an event be refused.
	ReplicaLag time.Duration `yaml:"replica_lag"`
	// AllowFlush permits the wide purges that purge.prefix, purge.namespace and
	// purge.domain say nothing of: it is short for allowing all three.
	AllowFlush bool `yaml:"allow_flush"`
	// Loader says where values are loaded from; nil: nearside loads nothing.
	Loader *Loader `yaml:"loader"`
	// L2 is the shared tier; nil is none.
	L2 *L2 `yaml:"l2"`
	// Update says what becomes of the values that NEAR.UPDATE sends around.
	Update Update `yaml:"update"`
	// Lease is how readers that miss together wait for one another.
	Lease Rights `yaml:"lease"`
	// Mode is what the cache does with the namespace: enforce serves it; shadow
	// computes everything and serves nothing, so that its hits and its divergences
	// are known before anybody relies on them; off keeps nothing and serves nothing.
	// Invalidations are published and applied in every mode.
	Mode Mode `yaml:"mode"`

	// SoftTTL is the age from which an entry is to be loaded anew; until TTL it may
	// still be served, as far as stale_while_revalidate and stale_if_error permit.
	// 0 means that an entry is as good as new for all of its TTL. Shorter means
	// more loads and younger values.
	SoftTTL time.Duration `yaml:"soft_ttl"`
	// StaleWhileRevalidate is how long past its soft TTL an entry is served while it
	// is loaded anew in the background. It must lie within max_stale or the bound of
	// the class. More hides slower origins.
	StaleWhileRevalidate time.Duration `yaml:"stale_while_revalidate"`
	// StaleIfError is how long past its soft TTL an entry is served when the origin
	// fails. It must lie within max_stale or the bound of the class. More bridges
	// longer outages of the origin.
	StaleIfError time.Duration `yaml:"stale_if_error"`
	// NegativeTTL is how long the origin's word that a key does not exist is kept; 0
	// means not at all. Longer saves loads of absent keys; it bounds how long a
	// creation that nobody published stays unseen.
	NegativeTTL time.Duration `yaml:"negative_ttl"`
	// RefreshAhead is the last part of an entry's TTL, as a fraction of it, in which
	// a read makes the loader load it anew before it expires; 0 means never. More
	// keeps more keys from ever missing, for more loads.
	RefreshAhead float64 `yaml:"refresh_ahead"`
	// AdaptiveTTL lets the TTL of a key follow how often the key is seen to change.
	AdaptiveTTL AdaptiveTTL `yaml:"adaptive_ttl"`
	// MaxValue is the largest value that is kept, such as 64KiB; 0 means what the
	// sidecar's own max_value says, which prevails when it is less. Less keeps a few
	// large values from pushing many small ones out.
	MaxValue Size `yaml:"max_value"`
	// CompressOver is the size from which values are kept compressed (zstd), such as
	// 4KiB; 0 means never. Less saves memory and costs time at every hit.
	CompressOver Size `yaml:"compress_over"`
	// Sensitive keeps the namespace's keys and values out of logs, EXPLAIN and the
	// watch, where a hash stands for a key. Without a max_ttl its TTLs are capped at
	// 5 minutes.
	Sensitive bool `yaml:"sensitive"`
	// Tenant is the number of the segment, counted from 1 after the namespace, that
	// names the tenant of a key: 1 in order:acme:42. Wide purges must then name a
	// tenant: by a prefix that goes up to that segment, or by a tag that begins with
	// "tenant:". 0 means that there are no tenants.
	Tenant int `yaml:"tenant"`
	// Purge says which wide purges this sidecar's clients may publish. A purge by tag
	// may hit any namespace, and a flush hits all: every namespace must allow them.
	Purge Purge `yaml:"purge"`
	// WidePurges bounds how many wide purges this sidecar's clients may publish.
	WidePurges WidePurges `yaml:"wide_purges"`
	// Refresh says which keys are loaded anew though no client asks.
	Refresh Refresh `yaml:"refresh"`
}

// DefaultNamespace is the policy of namespaces that have none of their own.
func DefaultNamespace() Namespace {
	return Namespace{
		Class: Important, TTL: 10 * time.Minute, TTLJitter: 0.1, Set: SetFill, Mode: Enforce,
	}
}

// Critical reports whether every plain read must be STRONG.
func (n *Namespace) Critical() bool { return n.Class == Critical }

// Bound returns how stale a plain read may be.
func (n *Namespace) Bound() time.Duration {
	if n.MaxStale > 0 {
		return n.MaxStale
	}
	return bounds[n.Class]
}

// Enforces reports whether the namespace is served.
func (n *Namespace) Enforces() bool { return n.Mode != Shadow && n.Mode != Off }

// sensitiveTTL caps the TTLs of a sensitive namespace that has no max_ttl.
const sensitiveTTL = 5 * time.Minute

// TTLCap returns the longest TTL that an entry may have; 0 means no cap.
func (n *Namespace) TTLCap() time.Duration {
	if n.Sensitive && n.MaxTTL == 0 {
		return sensitiveTTL
	}
	return n.MaxTTL
}

// DefaultWindow is the fill window where none is configured.
const DefaultWindow = 10 * time.Second

// Set is the policies of all namespaces. It is immutable once in use.
type Set struct {
	// Window is the fill window (C3): how long after its own miss a reader may
	// SET what it loaded. Longer tolerates slower loads; a SET without a miss is
	// refused for so long after an invalidation.
	Window time.Duration
	// Default is the policy of namespaces without one of their own.
	Default Namespace
	// Namespaces are the others, by name.
	Namespaces map[string]Namespace

	index map[string]*Namespace // of Namespaces, when Indexed
	added map[string]bool       // those of Namespaces that are there for an Override alone
}

// DefaultSet returns the policies of a sidecar that was given none.
func DefaultSet() *Set {
	return &Set{Window: DefaultWindow, Default: DefaultNamespace()}
}

// Indexed returns the same policies, of which Of and OfKey do not allocate. What
// is changed in s afterwards does not count.
func (s *Set) Indexed() *Set {
	indexed := *s
	indexed.index = make(map[string]*Namespace, len(s.Namespaces))
	for name, n := range s.Namespaces {
		indexed.index[name] = &n
	}
	return &indexed
}

// Of returns the policy for a namespace. It must not be changed.
func (s *Set) Of(namespace string) *Namespace {
	if s.index != nil {
		if n := s.index[namespace]; n != nil {
			return n
		}
		return &s.Default
	}
	if n, ok := s.Namespaces[namespace]; ok {
		return &n
	}
	return &s.Default
}

// OfKey returns the policy for a key. It must not be changed.
func (s *Set) OfKey(key string) *Namespace {
	if len(s.Namespaces) == 0 {
		return &s.Default
	}
	return s.Of(bus.NamespaceOf(key))
}

// ReplicaLag returns the largest of all namespaces.
func (s *Set) ReplicaLag() time.Duration {
	lag := s.Default.ReplicaLag
	for _, n := range s.Namespaces {
		lag = max(lag, n.ReplicaLag)
	}
	return lag
}

// All yields every policy with the part of the configuration that it stands in.
// They must not be changed.
func (s *Set) All() iter.Seq2[string, *Namespace] {
	return func(yield func(string, *Namespace) bool) {
		if !yield(s.Block(""), &s.Default) {
			return
		}
		for name := range s.Namespaces {
			if !yield(s.Block(name), s.Of(name)) {
				return
			}
		}
	}
}

// Limits of a policy.
const (
	minWindow     = 100 * time.Millisecond
	maxWindow     = 10 * time.Minute
	maxNamespaces = 10_000
)

// Validate reports all faults at once, joined; each names the setting, what it
// is and what it may be.
func (s *Set) Validate() error {
	var faults []error
	if s.Window < minWindow || s.Window > maxWindow {
		faults = append(faults, fmt.Errorf("fill_window is %v: want %v to %v", s.Window, minWindow, maxWindow))
	}
	if len(s.Namespaces) > maxNamespaces {
		faults = append(faults, fmt.Errorf("namespaces has %d entries: want at most %d", len(s.Namespaces), maxNamespaces))
	}
	inherited := make(map[string]bool) // faults of defaults, which are told once
	for _, fault := range s.Default.faults("defaults", s.Window) {
		faults = append(faults, fault)
		inherited[strings.TrimPrefix(fault.Error(), "defaults.")] = true
	}
	for _, name := range slices.Sorted(maps.Keys(s.Namespaces)) {
		if name == "" || len(name) > bus.MaxNamespace {
			faults = append(faults, fmt.Errorf("namespaces: %.40q has %d bytes: want 1 to %d", name, len(name), bus.MaxNamespace))
		}
		if strings.Contains(name, ":") {
			faults = append(faults, fmt.Errorf("namespaces: %.40q has a ':' in it: a namespace is what stands before a key's first one", name))
		}
		path := "namespaces." + name
		for _, fault := range s.Of(name).faults(path, s.Window) {
			if !inherited[strings.TrimPrefix(fault.Error(), path+".")] {
				faults = append(faults, fault)
			}
		}
	}
	return errors.Join(faults...)
}

// faults returns what is wrong with the policy that stands at path.
func (n *Namespace) faults(path string, window time.Duration) []error {
	var faults []error
	fault := func(field, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s.%s %s", path, field, fmt.Sprintf(format, args...)))
	}
	if n.TTL < 0 {
		fault("ttl", "is %v: want 0 (for ever) or more", n.TTL)
	}
	if n.MaxTTL < 0 {
		fault("max_ttl", "is %v: want 0 (no cap) or more", n.MaxTTL)
	}
	if !(n.TTLJitter >= 0 && n.TTLJitter <= 0.9) {
		fault("ttl_jitter", "is %v: want 0 to 0.9", n.TTLJitter)
	}
	if n.ReplicaLag < 0 || n.ReplicaLag > window {
		fault("replica_lag", "is %v: want 0 to fill_window (%v)", n.ReplicaLag, window)
	}
	if _, known := bounds[n.Class]; !known {
		fault("class", "is %q: want critical, important or best-effort", n.Class)
	}
	if n.MaxStale < 0 {
		fault("max_stale", "is %v: want 0 (the class's bound) or more", n.MaxStale)
	}
	switch n.Set {
	case SetFill, SetWindow, SetInvalidate:
	default:
		fault("set", "is %q: want fill, window or invalidate", n.Set)
	}
	faults = append(faults, n.Loader.faults(path+".loader")...)
	faults = append(faults, n.L2.faults(path+".l2")...)
	faults = append(faults, n.Lease.faults(path+".lease", n.Set)...)
	faults = append(faults, n.Refresh.faults(path+".refresh")...)
	faults = append(faults, n.faultsOfLoading(path)...)
	faults = append(faults, n.faultsOfKeeping(path)...)
	return append(faults, n.faultsOfPurges(path)...)
}
