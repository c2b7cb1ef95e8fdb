package policy

import (
	"fmt"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// L2 says how a namespace uses the shared tier between this sidecar's memory and
// the origin: a bucket of the bus that all sidecars of the domain read and fill.
// Only values with a version go into it. A field that is 0 or empty has its
// default; see WithDefaults.
type L2 struct {
	// Bucket is the bucket's name: 1 to 200 of A-Z, a-z, 0-9, _ and -. Empty: one of
	// its own for the domain and the namespace. Namespaces may share a bucket, and
	// then its bounds.
	Bucket string `yaml:"bucket"`
	// Timeout is how long a read waits for the shared tier before it goes on to the
	// origin. More gives a slow broker a chance; less is what a miss costs at most
	// when the tier is slow. Default 50ms, 1ms to 10s.
	Timeout time.Duration `yaml:"timeout"`
	// LockExpiry is after how long the right to load a key passes on from a sidecar
	// that died, in whole seconds. It should be longer than a load takes: shorter
	// makes two sidecars load, longer has others wait for a dead one. Default 10s, 1s
	// to 10m.
	LockExpiry time.Duration `yaml:"lock_expiry"`
	// Wait is how long a sidecar waits for another one that loads the key before it
	// loads by itself. More spares the origin, less bounds the wait of readers while
	// a load is slow. Default 1s, 1ms to 10m.
	Wait time.Duration `yaml:"wait"`
	// Loaders is how many sidecars may load one key at once. More costs the origin
	// more loads for each change, and one slow sidecar holds up fewer readers.
	// Default 1, at most 16.
	Loaders int `yaml:"loaders"`
	// TTL is how long an entry stays at most in the shared tier, in whole seconds.
	// Longer spares loads; it also bounds how long a write that nobody published
	// stays unseen. Default 10m, 1s to 30 days.
	TTL time.Duration `yaml:"ttl"`
	// History is how far back a starting sidecar reads the events of the stream, so
	// as to judge entries that others stored before: what was stored or vouched for
	// longer ago is not trusted. More makes a restart warmer and longer. It should
	// not exceed the stream's max_age. Default 10m, 0 to 24h; negative reads none.
	History time.Duration `yaml:"history"`
	// Replicas is how many servers hold the bucket. 0: 3 where there are as many,
	// else 1. More survive the loss of more servers, and make writes slower. It
	// matters only when the bucket is made.
	Replicas int `yaml:"replicas"`
	// Storage is file or memory. Memory spares the servers' disks and is empty after
	// a restart of all of them. Default file. It matters only when the bucket is made.
	Storage bus.Storage `yaml:"storage"`
	// MaxBytes bounds the bucket, in bytes; what was stored longest ago gives way.
	// Smaller makes the tier forget sooner. Default 256 MiB, which the servers
	// reserve. It matters only when the
	// bucket is made.
	MaxBytes int64 `yaml:"max_bytes"`
}

// History is how far back a start must read events so as to judge what is in the
// shared tiers.
func (s *Set) History() time.Duration {
	var history time.Duration
	for _, n := range s.All() {
		if n.L2 != nil {
			history = max(history, n.L2.WithDefaults().History)
		}
	}
	return history
}

// Bounds of L2.
const (
	maxL2Timeout = 10 * time.Second
	maxL2Wait    = 10 * time.Minute
	maxL2TTL     = 30 * 24 * time.Hour
	maxL2History = 24 * time.Hour
	maxL2Loaders = 16
	minL2Bytes   = 1 << 20
)

// DefaultL2 is the shared tier of a namespace whose policy asks for one and says
// nothing else.
func DefaultL2() L2 {
	return L2{
		Timeout: 50 * time.Millisecond, LockExpiry: 10 * time.Second, Wait: time.Second, Loaders: 1,
		TTL: 10 * time.Minute, History: 10 * time.Minute, Storage: bus.StorageFile, MaxBytes: 256 << 20,
	}
}

// WithDefaults returns l with the defaults where it says nothing.
func (l L2) WithDefaults() L2 {
	d := DefaultL2()
	fill(&l.Timeout, d.Timeout)
	fill(&l.LockExpiry, d.LockExpiry)
	fill(&l.Wait, d.Wait)
	fill(&l.Loaders, d.Loaders)
	fill(&l.TTL, d.TTL)
	fill(&l.History, d.History)
	fill(&l.Storage, d.Storage)
	fill(&l.MaxBytes, d.MaxBytes)
	return l
}

func fill[T comparable](field *T, value T) {
	var none T
	if *field == none {
		*field = value
	}
}

// BucketConfig is how the bucket is made.
func (l L2) BucketConfig() bus.BucketConfig {
	l = l.WithDefaults()
	return bus.BucketConfig{
		// A claim must be able to outlive every entry.
		TTL: max(l.TTL, l.LockExpiry), MaxBytes: l.MaxBytes, Replicas: l.Replicas, Storage: l.Storage,
	}
}

// faults names what is wrong, each with the setting, what it is and what it may
// be. A nil L2 is one that the policy does not ask for.
func (l *L2) faults(path string) []error {
	if l == nil {
		return nil
	}
	var faults []error
	fault := func(bad bool, field, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf("%s.%s %s", path, field, fmt.Sprintf(format, args...)))
		}
	}
	between := func(field string, is, least, most time.Duration) {
		fault(is < least || is > most, field, "is %v: want %v to %v", is, least, most)
	}
	c := l.WithDefaults()
	fault(l.Bucket != "" && !bus.ValidBucketName(l.Bucket), "bucket", "is %.40q: want 1 to %d of A-Z, a-z, 0-9, _ and -", l.Bucket, bus.MaxBucketName)
	between("timeout", c.Timeout, time.Millisecond, maxL2Timeout)
	between("lock_expiry", c.LockExpiry, time.Second, maxL2Wait)
	between("wait", c.Wait, time.Millisecond, maxL2Wait)
	between("ttl", c.TTL, time.Second, maxL2TTL)
	fault(c.Loaders < 1 || c.Loaders > maxL2Loaders, "loaders", "is %d: want 1 to %d", c.Loaders, maxL2Loaders)
	fault(c.History > maxL2History, "history", "is %v: want at most %v, or a negative one for none", c.History, maxL2History)
	fault(c.Replicas < 0 || c.Replicas > 5, "replicas", "is %d: want 1 to 5, or 0 for as many as the servers allow up to 3", c.Replicas)
	fault(c.Storage != bus.StorageFile && c.Storage != bus.StorageMemory, "storage", "is %q: want %s or %s", c.Storage, bus.StorageFile, bus.StorageMemory)
	fault(c.MaxBytes < minL2Bytes, "max_bytes", "is %d: want %d (1 MiB) or more", c.MaxBytes, minL2Bytes)
	return faults
}
