package policy

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/nearside-cache/nearside/api"
	"github.com/nearside-cache/nearside/bus"
)

// Refresh says which keys of a namespace with a loader are loaded anew though no
// client asks, and when. Zero is the default that each comment gives.
type Refresh struct {
	// Window is the time over which the loads after one REFRESH event are spread, by
	// key and at random for each sidecar (1 s). Longer spares the origin; until its
	// moment a key misses.
	Window time.Duration `yaml:"window"`
	// Recent is how lately an entry that a REFRESH event drops must have been read to
	// be loaded anew (5 min); others are only dropped. Longer keeps rarely read keys
	// warm, for more loads.
	Recent time.Duration `yaml:"recent"`
	// Every is the period in which Keys and the Top hottest ones are loaded anew, each
	// once, spread over it; the first time within Window of the start. 0 means never.
	// Shorter means younger values and more loads: of so many keys in every period,
	// in every pod.
	Every time.Duration `yaml:"every"`
	// Keys are loaded anew in every period, whether anybody reads them or not. They
	// are whole keys of this namespace; defaults can have none.
	Keys []string `yaml:"keys"`
	// Top is how many of the keys that are read most are loaded anew in every period
	// (none). A sidecar knows some 1000, of all namespaces together.
	Top int `yaml:"top"`
	// Workers is how many such loads of this namespace are under way at once (4), of
	// all that the sidecar has for them. More is done sooner and leaves less of the
	// origin to readers that wait.
	Workers int `yaml:"workers"`
}

// WithDefaults returns r with the defaults in place of zeros.
func (r Refresh) WithDefaults() Refresh {
	r.Window = cmp.Or(r.Window, time.Second)
	r.Recent = cmp.Or(r.Recent, 5*time.Minute)
	r.Workers = cmp.Or(r.Workers, 4)
	return r
}

// Limits of a refresh.
const (
	maxRefreshWindow  = time.Hour
	maxRefreshRecent  = 24 * time.Hour
	minRefreshEvery   = time.Second
	maxRefreshKeys    = 10_000
	maxRefreshTop     = 1000
	maxRefreshWorkers = 1000
)

// faults reports everything that is wrong with r, which stands at path.
func (r Refresh) faults(path string) []error {
	var faults []error
	fault := func(field, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s.%s %s", path, field, fmt.Sprintf(format, args...)))
	}
	if r.Window < 0 || r.Window > maxRefreshWindow {
		fault("window", "is %v: want 0 (1s) to %v", r.Window, maxRefreshWindow)
	}
	if r.Recent < 0 || r.Recent > maxRefreshRecent {
		fault("recent", "is %v: want 0 (5m) to %v", r.Recent, maxRefreshRecent)
	}
	if r.Every != 0 && r.Every < minRefreshEvery {
		fault("every", "is %v: want 0 (never) or %v or more", r.Every, minRefreshEvery)
	}
	if r.Top < 0 || r.Top > maxRefreshTop {
		fault("top", "is %d: want 0 (none) to %d", r.Top, maxRefreshTop)
	}
	if r.Workers < 0 || r.Workers > maxRefreshWorkers {
		fault("workers", "is %d: want 0 (4) to %d", r.Workers, maxRefreshWorkers)
	}
	some := r.Top != 0 || len(r.Keys) > 0
	if r.Every == 0 && some {
		fault("every", "is not set: want the period of keys and top, such as 5m, or no keys and top: 0")
	}
	if r.Every != 0 && !some {
		fault("every", "is %v, of nothing: want keys, top or both beside it", r.Every)
	}
	return append(faults, r.keyFaults(path)...)
}

// keyFaults reports what is wrong with Keys.
func (r Refresh) keyFaults(path string) []error {
	namespace, own := strings.CutPrefix(strings.TrimSuffix(path, ".refresh"), "namespaces.")
	switch {
	case len(r.Keys) > 0 && !own:
		return []error{fmt.Errorf("%s.keys has %d entries: want each in the block of its namespace", path, len(r.Keys))}
	case len(r.Keys) > maxRefreshKeys:
		return []error{fmt.Errorf("%s.keys has %d entries: want at most %d", path, len(r.Keys), maxRefreshKeys)}
	}
	var faults []error
	for i, key := range r.Keys {
		switch of := bus.NamespaceOf(key); {
		case key == "" || len(key) > api.MaxKey:
			faults = append(faults, fmt.Errorf("%s.keys[%d] has %d bytes: want 1 to %d", path, i, len(key), api.MaxKey))
		case of != namespace:
			faults = append(faults, fmt.Errorf("%s.keys[%d] is %.100q, of namespace %.100s: want whole keys of %s", path, i, key, of, namespace))
		}
	}
	return faults
}
