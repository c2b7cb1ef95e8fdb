// Package policy says how a sidecar treats the keys of each namespace.
package policy

import (
	"errors"
	"fmt"
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
	// Class presets MaxStale: critical, important or best-effort.
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
	// Set is what a plain SET means.
	Set SetMode `yaml:"set"`
	// ReplicaLag is how far the replicas that readers load from may lag behind
	// their primary; 0 when loads read the primary. It must not exceed the fill
	// window. More makes loads that began shortly after an event be refused.
	ReplicaLag time.Duration `yaml:"replica_lag"`
	// AllowFlush permits FLUSHDB and FLUSHALL to purge this namespace everywhere.
	AllowFlush bool `yaml:"allow_flush"`
}

// DefaultNamespace is the policy of namespaces that have none of their own.
func DefaultNamespace() Namespace {
	return Namespace{Class: Important, TTL: 10 * time.Minute, TTLJitter: 0.1, Set: SetFill}
}

// Critical reports whether every plain read must be STRONG.
func (n Namespace) Critical() bool { return n.Class == Critical }

// Bound returns how stale a plain read may be.
func (n Namespace) Bound() time.Duration {
	if n.MaxStale > 0 {
		return n.MaxStale
	}
	return bounds[n.Class]
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
}

// DefaultSet returns the policies of a sidecar that was given none.
func DefaultSet() *Set {
	return &Set{Window: DefaultWindow, Default: DefaultNamespace()}
}

// Of returns the policy for a namespace.
func (s *Set) Of(namespace string) Namespace {
	if len(s.Namespaces) > 0 {
		if n, ok := s.Namespaces[namespace]; ok {
			return n
		}
	}
	return s.Default
}

// OfKey returns the policy for a key. It does not allocate.
func (s *Set) OfKey(key string) Namespace {
	if len(s.Namespaces) == 0 {
		return s.Default
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
	faults = append(faults, s.Default.faults("defaults", s.Window)...)
	for _, name := range slices.Sorted(maps.Keys(s.Namespaces)) {
		if name == "" || len(name) > bus.MaxNamespace {
			faults = append(faults, fmt.Errorf("namespaces: %.40q has %d bytes: want 1 to %d", name, len(name), bus.MaxNamespace))
		}
		if strings.Contains(name, ":") {
			faults = append(faults, fmt.Errorf("namespaces: %.40q has a ':' in it: a namespace is what stands before a key's first one", name))
		}
		faults = append(faults, s.Namespaces[name].faults("namespaces."+name, s.Window)...)
	}
	return errors.Join(faults...)
}

func (n Namespace) faults(path string, window time.Duration) []error {
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
	return faults
}
