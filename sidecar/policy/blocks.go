package policy

import (
	"errors"
	"strconv"
	"time"

	"github.com/docker/go-units"
)

// Mode says what the cache does with a namespace. The empty Mode is Enforce.
type Mode string

// Modes of a namespace.
const (
	// Enforce serves what is held.
	Enforce Mode = "enforce"
	// Shadow computes what would be served, and serves nothing.
	Shadow Mode = "shadow"
	// Off keeps nothing and serves nothing.
	Off Mode = "off"
)

// Words lists what may be said.
func (Mode) Words() []string { return []string{string(Enforce), string(Shadow), string(Off)} }

// Words lists what may be said.
func (SetMode) Words() []string {
	return []string{string(SetFill), string(SetWindow), string(SetInvalidate)}
}

// Words lists what may be said.
func (Class) Words() []string {
	return []string{string(Critical), string(Important), string(BestEffort)}
}

// Permission says whether something may be done. The empty Permission leaves it
// to the default of what it stands for.
type Permission string

// Permissions.
const (
	Allow Permission = "allow"
	Deny  Permission = "deny"
)

// Words lists what may be said.
func (Permission) Words() []string { return []string{string(Allow), string(Deny)} }

// Size is a number of bytes. Its text form is 64KiB, 64k or 65536.
type Size int64

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	n, err := units.RAMInBytes(string(text))
	if err != nil || n < 0 {
		return errors.New("a size such as 64KiB")
	}
	*s = Size(n)
	return nil
}

// String is exact, so that UnmarshalText can read it back.
func (s Size) String() string {
	switch {
	case s > 0 && s%units.MiB == 0:
		return strconv.FormatInt(int64(s/units.MiB), 10) + "MiB"
	case s > 0 && s%units.KiB == 0:
		return strconv.FormatInt(int64(s/units.KiB), 10) + "KiB"
	}
	return strconv.FormatInt(int64(s), 10)
}

// AdaptiveTTL bounds TTLs that follow how often a key is seen to change. Both 0
// means that TTLs do not adapt.
type AdaptiveTTL struct {
	// Min is the TTL of keys that change all the time. Less means more loads of
	// them.
	Min time.Duration `yaml:"min"`
	// Max is the TTL of keys that were never seen to change. More saves loads of
	// them; it bounds how long a write that nobody published stays unseen.
	Max time.Duration `yaml:"max"`
}

// Purge says which wide purges the clients of this sidecar may publish. Those of
// others are always applied.
type Purge struct {
	// Tags permits purges by tag; allowed where nothing is said.
	Tags Permission `yaml:"tags"`
	// Prefix permits purges by prefix; as allow_flush says where nothing is said.
	Prefix Permission `yaml:"prefix"`
	// Namespace permits purges of the whole namespace; as allow_flush says where
	// nothing is said.
	Namespace Permission `yaml:"namespace"`
	// Domain permits FLUSHDB and FLUSHALL, which purge every namespace; as
	// allow_flush says where nothing is said.
	Domain Permission `yaml:"domain"`
	// CrossTenant permits wide purges that name no tenant in a namespace that has
	// tenants; denied where nothing is said. Each leaves an audit record.
	CrossTenant Permission `yaml:"cross_tenant"`
}

// WidePurges bounds the wide purges that the clients of one sidecar publish. A
// purge by tag and a flush count in every namespace that has a bound.
type WidePurges struct {
	// PerMinute is how many may be published a minute; 0 means any number. Each
	// makes readers load everything that it drops, in every pod.
	PerMinute int `yaml:"per_minute"`
	// Burst is how many may come at once; 0 means 1.
	Burst int `yaml:"burst"`
	// Paused refuses all of them. NEAR.POLICY SET purges pause does it for a while.
	Paused bool `yaml:"paused"`
}
