package policy

import (
	"fmt"
	"time"
)

// Rights says how readers that miss the same key of a namespace at the same time
// wait for one another. The zero value is the default: NEAR.GET does, GET does not.
type Rights struct {
	// Off lets nobody wait: every reader that misses loads. Values are kept or
	// refused by the same rules with rights and without.
	Off bool `yaml:"off"`
	// Get makes a plain GET that misses wait, too, while another client of this
	// sidecar loads. It saves the origin the herd after an invalidation. It costs each
	// reader up to Wait where loads do not end in a SET: for keys that do not exist,
	// for instance, or clients that only read.
	Get bool `yaml:"get"`
	// For is how long the right to load lasts, 0 for 2 s. Longer than nearly all loads
	// take: after it the next reader loads as well. An origin that hangs holds up the
	// readers of a key for as long, if their own patience does not end before.
	For time.Duration `yaml:"for"`
	// Wait is how long a reader waits that does not say it itself, 0 for 500 ms. Then
	// it loads, too. Longer spares a slow origin more, and delays readers more.
	Wait time.Duration `yaml:"wait"`
}

// Defaults and bounds of rights.
const (
	defaultTerm     = 2 * time.Second
	defaultPatience = 500 * time.Millisecond
	maxTerm         = time.Minute
)

// Term returns how long a right lasts.
func (r Rights) Term() time.Duration {
	if r.For == 0 {
		return defaultTerm
	}
	return r.For
}

// Patience returns how long a reader waits that does not say it itself.
func (r Rights) Patience() time.Duration {
	if r.Wait == 0 {
		return defaultPatience
	}
	return r.Wait
}

// Plain reports whether plain GETs wait.
func (r Rights) Plain() bool { return r.Get && !r.Off }

// faults names what is wrong with r; set is what a plain SET means beside it.
func (r Rights) faults(path string, set SetMode) []error {
	var faults []error
	if r.For < 0 || r.For > maxTerm {
		faults = append(faults, fmt.Errorf("%s.for is %v: want 0 (%v) to %v", path, r.For, defaultTerm, maxTerm))
	}
	if r.Wait < 0 || r.Wait > maxTerm {
		faults = append(faults, fmt.Errorf("%s.wait is %v: want 0 (%v) to %v", path, r.Wait, defaultPatience, maxTerm))
	}
	if r.Get && set == SetInvalidate {
		faults = append(faults, fmt.Errorf("%s.get is true and set is invalidate: no SET stores what readers would wait for, want one of them changed", path))
	}
	return faults
}
