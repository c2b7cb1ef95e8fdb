package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxSegment is the highest number of a tenant's segment.
const maxSegment = 16

// faultList collects what is wrong with the settings at a path.
type faultList struct {
	path string
	all  []error
}

func (f *faultList) add(field, format string, args ...any) {
	f.all = append(f.all, fmt.Errorf("%s.%s %s", f.path, field, fmt.Sprintf(format, args...)))
}

// word checks a setting that is one of some words, or empty for its default.
func (f *faultList) word(field, is string, words []string) {
	if is != "" && !slices.Contains(words, is) {
		last := len(words) - 1
		f.add(field, "is %q: want %s or %s", is, strings.Join(words[:last], ", "), words[last])
	}
}

// atLeastZero checks a setting that must not be negative.
func atLeastZero[T int | Size | time.Duration](f *faultList, field string, is T, zero string) {
	if is < 0 {
		f.add(field, "is %v: want 0 (%s) or more", is, zero)
	}
}

// faultsOfLoading checks when values are loaded anew, and what is served
// meanwhile.
func (n *Namespace) faultsOfLoading(path string) []error {
	f := faultList{path: path}
	atLeastZero(&f, "soft_ttl", n.SoftTTL, "none")
	if n.TTL > 0 && n.SoftTTL > n.TTL {
		f.add("soft_ttl", "is %v: want at most ttl (%v), when the entry is gone", n.SoftTTL, n.TTL)
	}
	n.stale(&f, "stale_while_revalidate", n.StaleWhileRevalidate)
	n.stale(&f, "stale_if_error", n.StaleIfError)
	atLeastZero(&f, "negative_ttl", n.NegativeTTL, "none is kept")
	if most := n.TTLCap(); most > 0 && n.NegativeTTL > most {
		f.add("negative_ttl", "is %v: want at most max_ttl (%v)", n.NegativeTTL, most)
	}
	if !(n.RefreshAhead >= 0 && n.RefreshAhead <= 0.9) {
		f.add("refresh_ahead", "is %v: want 0 to 0.9", n.RefreshAhead)
	}
	a := n.AdaptiveTTL
	atLeastZero(&f, "adaptive_ttl.min", a.Min, "none")
	atLeastZero(&f, "adaptive_ttl.max", a.Max, "none")
	if (a.Min == 0) != (a.Max == 0) || a.Min > a.Max {
		f.add("adaptive_ttl", "is %v to %v: want both, the smaller one as min, or none", a.Min, a.Max)
	}
	if most := n.TTLCap(); most > 0 && a.Max > most {
		f.add("adaptive_ttl.max", "is %v: want at most max_ttl (%v)", a.Max, most)
	}
	return f.all
}

// stale checks how long an entry may be served past its soft TTL. Bounded means
// bounded: never for longer than a read may be stale.
func (n *Namespace) stale(f *faultList, field string, d time.Duration) {
	bound := n.Bound()
	switch {
	case d < 0:
		f.add(field, "is %v: want 0 (never) or more", d)
	case d > 0 && n.Critical():
		f.add(field, "is %v: want 0, for reads of class critical are never stale", d)
	case d > bound:
		f.add(field, "is %v: want at most %v, as stale as reads may be by max_stale or class", d, bound)
	case d > 0 && n.SoftTTL == 0:
		f.add(field, "is %v: want a soft_ttl with it, from which it counts", d)
	}
}

// faultsOfKeeping checks what is kept, and how.
func (n *Namespace) faultsOfKeeping(path string) []error {
	f := faultList{path: path}
	f.word("mode", string(n.Mode), n.Mode.Words())
	f.word("update.store", string(n.Update.Store), n.Update.Store.Words())
	atLeastZero(&f, "max_value", n.MaxValue, "the sidecar's")
	atLeastZero(&f, "compress_over", n.CompressOver, "never")
	return f.all
}

// faultsOfPurges checks what clients may purge.
func (n *Namespace) faultsOfPurges(path string) []error {
	f := faultList{path: path}
	if n.Tenant < 0 || n.Tenant > maxSegment {
		f.add("tenant", "is %d: want 0 (no tenants) to %d", n.Tenant, maxSegment)
	}
	for _, p := range []struct {
		field string
		is    Permission
	}{
		{"purge.tags", n.Purge.Tags}, {"purge.prefix", n.Purge.Prefix}, {"purge.namespace", n.Purge.Namespace},
		{"purge.domain", n.Purge.Domain}, {"purge.cross_tenant", n.Purge.CrossTenant},
	} {
		f.word(p.field, string(p.is), p.is.Words())
	}
	if n.Purge.CrossTenant == Allow && n.Tenant == 0 {
		f.add("purge.cross_tenant", "is allow: want tenant with it, for there are no tenants to cross")
	}
	atLeastZero(&f, "wide_purges.per_minute", n.WidePurges.PerMinute, "any number")
	atLeastZero(&f, "wide_purges.burst", n.WidePurges.Burst, "1")
	return f.all
}
