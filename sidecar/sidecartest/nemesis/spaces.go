package nemesis

import (
	"fmt"
	"strings"
	"time"
)

// space is a namespace whose keys the sidecars load from the origin themselves. Its
// keys are also deleted and made again.
type space struct {
	name  string
	class string
	bound time.Duration // of plain reads, in the policy or by the class; 0: they are STRONG

	versioned bool // the origin says versions
	absences  bool // with its 404, too
	tagged    bool // the origin says a tag, one for each key; then nobody SETs, which says none
	shared    bool // by the tier of all sidecars

	soft       time.Duration // soft TTL
	revalidate time.Duration // stale-while-revalidate
	onError    time.Duration // stale-if-error
	negative   time.Duration // TTL of absences
	more       string        // lines of the policy that no check needs to know of
}

// spaces differ in what of a policy they use. A STALE answer in the first one is of
// stale-while-revalidate, in the second one of stale-if-error.
var spaces = []space{
	{
		name: "load", class: "important", bound: 3 * time.Second, versioned: true,
		soft: 500 * time.Millisecond, revalidate: time.Second, negative: time.Second,
		more: "max_stale: 3s\n    refresh_ahead: 0.2\n    refresh: {window: 200ms, every: 2s, top: 4}",
	},
	{
		name: "share", class: "important", bound: 30 * time.Second, versioned: true, absences: true, tagged: true, shared: true,
		soft: 500 * time.Millisecond, onError: 4 * time.Second, negative: time.Second,
		more: "allow_flush: true\n    refresh: {window: 200ms}",
	},
	{
		name: "crit", class: "critical", versioned: true, absences: true, shared: true,
		soft: time.Second, negative: 2 * time.Second,
		more: "refresh: {window: 100ms}",
	},
	{
		name: "bare", class: "best-effort", bound: 10 * time.Minute,
		soft: time.Second, revalidate: 500 * time.Millisecond, onError: time.Second, negative: 500 * time.Millisecond,
		more: "adaptive_ttl: {min: 300ms, max: 1s}\n    compress_over: 50\n    lease: {get: true}",
	},
}

const (
	spaceKeys     = 6                // of each space
	entryTTL      = 10 * time.Second // of loaded entries
	loadTimeout   = time.Second      // of one try
	versionHeader = "X-Version"
	tagsHeader    = "Cache-Tag"
)

// spaceOf returns the space of a key, nil for what sidecars do not load.
func spaceOf(key string) *space {
	for i := range spaces {
		if strings.HasPrefix(key, spaces[i].name+":") {
			return &spaces[i]
		}
	}
	return nil
}

// loadedNames are the keys of all spaces. The first ones, which are used most, are of
// all of them.
func loadedNames() (all []string) {
	for i := range spaceKeys {
		for _, s := range spaces {
			all = append(all, fmt.Sprintf("%s:%d", s.name, i))
		}
	}
	return all
}

// keys of the space.
func (s *space) keys() (all []string) {
	for i := range spaceKeys {
		all = append(all, fmt.Sprintf("%s:%d", s.name, i))
	}
	return all
}

// versioned reports whether all values of a key that sidecars keep have versions.
func versioned(key string) bool {
	s := spaceOf(key)
	return isNear(key) || s != nil && s.versioned
}

// tagOf is the tag with which the origin answers for a key.
func tagOf(key string) string { return "of-" + key }

// policy is the space's block in a sidecar's configuration. origin is the URL of the
// sidecar's own way to the origin.
func (s *space) policy(origin string) string {
	lines := []string{
		"class: " + s.class, "ttl: " + entryTTL.String(), s.more,
		"soft_ttl: " + s.soft.String(), "negative_ttl: " + s.negative.String(),
		"stale_while_revalidate: " + s.revalidate.String(), "stale_if_error: " + s.onError.String(),
		"loader:", "  url: " + origin + "/{key}",
		"  soft_timeout: 300ms", "  min_timeout: 100ms", "  max_timeout: " + loadTimeout.String(), "  hard_timeout: 2s",
		"  backoff: 20ms", "  breaker_open: 300ms", "  slow_start: 500ms",
	}
	if s.versioned {
		lines = append(lines, "  version_header: "+versionHeader)
	}
	if s.tagged {
		lines = append(lines, "  tags_header: "+tagsHeader)
	}
	if s.shared {
		lines = append(lines, "l2: {timeout: 100ms, lock_expiry: 2s, wait: 300ms, ttl: 30s, history: 30s, max_bytes: 1048576}")
	}
	return "  " + s.name + ":\n    " + strings.Join(lines, "\n    ") + "\n"
}

// policies is the configuration of a sidecar. A Redis client's GET cannot say how
// stale it may be: its namespace does. And a plain SET must be judged within the fill
// window of its miss, however long its sidecar was paused in between (C3); longer
// pauses wait for such loads.
func policies(origin string) string {
	var b strings.Builder
	b.WriteString("fill_window: 15s\nnamespaces:\n  plain: {max_stale: 2s}\n  page: {allow_flush: true}\n")
	for i := range spaces {
		b.WriteString(spaces[i].policy(origin))
	}
	return b.String()
}

// plainBound is how stale a plain read of a plain or a loaded key may be; 0: it is
// STRONG.
func plainBound(key string) time.Duration {
	if s := spaceOf(key); s != nil {
		return s.bound
	}
	return 2 * time.Second
}
