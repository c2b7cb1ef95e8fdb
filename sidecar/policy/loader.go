package policy

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nearside-cache/nearside/sidecar/loader/address"
)

// Loader says where the values of a namespace come from, and how much of it the
// origin has to stand. One of URL and Subject is set; of everything else, zero is
// the default that the comment gives. Each sidecar keeps to the limits by itself:
// the origin gets at most their product with the number of sidecars.
type Loader struct {
	// URL is the template of an HTTP GET, such as http://app:8080/cache/{key} or
	// unix:///run/app.sock:/cache/{key}. Places in path and query: {key};
	// {namespace} and {rest}, what stands behind the namespace; {1}, {2} and so on,
	// the parts between colons. They are escaped.
	URL string `yaml:"url"`
	// Socket is the path of a Unix socket to connect to instead of the URL's host.
	Socket string `yaml:"socket"`
	// Subject is the template of a NATS request, such as cache.load.{namespace}.{rest}.
	Subject string `yaml:"subject"`
	// Headers are sent with every request. ${NAME} in a value stands for that
	// environment variable of the sidecar, which must be set.
	Headers map[string]string `yaml:"headers"`

	// VersionHeader names the response header that holds the version, for URL: a
	// decimal number. An answer without it is refused.
	VersionHeader string `yaml:"version_header"`
	// VersionField is the path to the version in a JSON body, such as meta.version,
	// where no header has it.
	VersionField string `yaml:"version_field"`
	// TagsHeader names the response header that holds the tags, for URL, separated
	// by commas or spaces. Without it entries have no tags.
	TagsHeader string `yaml:"tags_header"`
	// MaxAge takes the TTL from Cache-Control, for URL; else the policy's counts.
	MaxAge bool `yaml:"max_age"`
	// MaxBody is the longest value in bytes that is read, 0 for what is stored at
	// most. A longer one is refused while it is read.
	MaxBody int `yaml:"max_body"`

	// SoftTimeout is how long a reader waits for a load before it goes on without
	// it (1 s); the load goes on too. Less answers sooner in a brown-out, with
	// something stale or with a miss.
	SoftTimeout time.Duration `yaml:"soft_timeout"`
	// MinTimeout and MaxTimeout bound the time of one try (100 ms, 2 s). Within
	// them it is twice the 99th percentile of the last ones. A lower minimum gives
	// up sooner on a request that hangs; too low, tries are wasted on an origin that
	// is merely slow for a moment.
	MinTimeout time.Duration `yaml:"min_timeout"`
	// MaxTimeout is the other bound of MinTimeout.
	MaxTimeout time.Duration `yaml:"max_timeout"`
	// HardTimeout ends a load with all its tries and pauses (5 s).
	HardTimeout time.Duration `yaml:"hard_timeout"`

	// Tries is how often one load asks at most (3). More hides more of an origin's
	// hiccups and costs it more while it is in trouble.
	Tries int `yaml:"tries"`
	// Backoff is the longest first pause between two tries (50 ms). It doubles up
	// to MaxBackoff (1 s); of each a random part is waited (full jitter).
	Backoff time.Duration `yaml:"backoff"`
	// MaxBackoff is the longest pause between two tries, whatever Backoff says (1 s).
	MaxBackoff time.Duration `yaml:"max_backoff"`

	// Concurrency is how many requests are under way at most (16). More warms up
	// faster and may overwhelm the origin.
	Concurrency int `yaml:"concurrency"`
	// Queue is how many more may wait for that (8 for each of Concurrency). What
	// is beyond fails at once.
	Queue int `yaml:"queue"`
	// Rate is how many requests are begun in a second at most (1000), and Burst how
	// many of them at once (a tenth of it).
	Rate float64 `yaml:"rate"`
	// Burst is how many requests may be begun at once (a tenth of Rate).
	Burst int `yaml:"burst"`

	// BreakerFailures is after how many failures in a row the circuit breaker opens
	// (5). It also opens when half of the last 20 failed. While it is open nothing
	// is asked. Fewer spares a failing origin sooner, and opens for less.
	BreakerFailures int `yaml:"breaker_failures"`
	// BreakerOpen is how long it stays open at least (5 s; up to a fifth more, so
	// that sidecars do not try again together).
	BreakerOpen time.Duration `yaml:"breaker_open"`
	// BreakerProbes is how many requests then try whether the origin is back (3).
	// All must succeed.
	BreakerProbes int `yaml:"breaker_probes"`
	// SlowStart is how long Rate then takes to grow from a tenth to all of it
	// (10 s). Longer is gentler to an origin with cold caches.
	SlowStart time.Duration `yaml:"slow_start"`
}

// WithDefaults returns l with the defaults in place of zeros, MaxBody aside. A
// default gives way to what is set beside it: where HardTimeout is 1 s, MaxTimeout
// is no longer than that.
func (l Loader) WithDefaults() Loader {
	l.HardTimeout = cmp.Or(l.HardTimeout, max(5*time.Second, l.MaxTimeout))
	l.MaxTimeout = cmp.Or(l.MaxTimeout, min(max(2*time.Second, l.MinTimeout), l.HardTimeout))
	l.MinTimeout = cmp.Or(l.MinTimeout, min(100*time.Millisecond, l.MaxTimeout))
	l.SoftTimeout = cmp.Or(l.SoftTimeout, time.Second)
	l.Tries = cmp.Or(l.Tries, 3)
	l.MaxBackoff = cmp.Or(l.MaxBackoff, max(time.Second, l.Backoff))
	l.Backoff = cmp.Or(l.Backoff, min(50*time.Millisecond, l.MaxBackoff))
	l.Concurrency = cmp.Or(l.Concurrency, 16)
	l.Queue = cmp.Or(l.Queue, 8*l.Concurrency)
	l.Rate = cmp.Or(l.Rate, 1000)
	l.Burst = cmp.Or(l.Burst, max(1, int(l.Rate/10)))
	l.BreakerFailures = cmp.Or(l.BreakerFailures, 5)
	l.BreakerOpen = cmp.Or(l.BreakerOpen, 5*time.Second)
	l.BreakerProbes = cmp.Or(l.BreakerProbes, 3)
	l.SlowStart = cmp.Or(l.SlowStart, 10*time.Second)
	return l
}

// Limits of a loader.
const (
	minLoadTime    = time.Millisecond
	maxLoadTime    = 10 * time.Minute
	maxTries       = 20
	maxConcurrency = 10_000
	maxQueue       = 1_000_000
	maxRate        = 1_000_000
	maxBody        = 512 << 20
	maxHeaders     = 64
)

var (
	headerName  = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$")
	fieldPath   = regexp.MustCompile(`^[^.]+(\.[^.]+)*$`)
	variable    = regexp.MustCompile(`\$\{([^}]*)\}?`)
	variableRef = regexp.MustCompile(`^\$\{[A-Za-z_][A-Za-z0-9_]*\}$`)
	ownHeaders  = []string{"accept-encoding", "connection", "content-length", "if-none-match", "te", "trailer", "transfer-encoding", "upgrade", "x-nearside-at-least"}
)

// faults returns what is wrong with the loader at path of the configuration. A
// nil one has no faults. Values of headers are not repeated.
func (l *Loader) faults(path string) []error {
	if l == nil {
		return nil
	}
	f := loaderFaults{path: path}
	f.place(l)
	f.headers(l.Headers)
	f.answer(l)
	d := l.WithDefaults()
	f.times(d)
	f.limits(d)
	return f.found
}

type loaderFaults struct {
	path  string
	found []error
}

func (f *loaderFaults) add(field, format string, args ...any) {
	f.found = append(f.found, fmt.Errorf("%s.%s %w", f.path, field, fmt.Errorf(format, args...)))
}

// place checks where is asked. What serves several namespaces must name theirs.
func (f *loaderFaults) place(l *Loader) {
	var named bool
	var err error
	field := "url"
	switch {
	case (l.URL == "") == (l.Subject == ""):
		f.add("url", "and subject are both set or both empty: want one of them")
		return
	case l.URL != "":
		var w address.Web
		w, err = address.ParseWeb(l.URL, l.Socket)
		named = w.NamesNamespace()
	default:
		field = "subject"
		var s address.Subject
		s, err = address.ParseSubject(l.Subject)
		named = s.NamesNamespace()
	}
	if err != nil {
		f.add(field, "cannot be used: %w", err)
	} else if !named && strings.HasPrefix(f.path, "defaults.") {
		f.add(field, "is for all namespaces without a policy of their own: want {key}, {namespace} or {1} in it")
	}
}

func (f *loaderFaults) headers(headers map[string]string) {
	if len(headers) > maxHeaders {
		f.add("headers", "are %d: want at most %d", len(headers), maxHeaders)
	}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		if !headerName.MatchString(name) {
			f.add("headers", "%.40q is no name of a header", name)
		}
		if slices.Contains(ownHeaders, strings.ToLower(name)) || strings.HasPrefix(strings.ToLower(name), "nearside-") {
			f.add("headers", "%s is set by nearside itself: leave it out", name)
		}
		for _, ref := range variable.FindAllString(headers[name], -1) {
			if !variableRef.MatchString(ref) {
				f.add("headers", "%s has a ${ that names no environment variable: want one such as ${NAME}", name)
			}
		}
	}
}

func (f *loaderFaults) answer(l *Loader) {
	for _, h := range []struct{ field, name string }{{"version_header", l.VersionHeader}, {"tags_header", l.TagsHeader}} {
		if h.name != "" && !headerName.MatchString(h.name) {
			f.add(h.field, "is %.40q: want the name of a header", h.name)
		}
		if h.name != "" && l.Subject != "" {
			f.add(h.field, "is for url: what answers on a subject uses the names in docs/loaders.md")
		}
	}
	if l.MaxAge && l.Subject != "" {
		f.add("max_age", "is for url: what answers on a subject says Nearside-TTL")
	}
	if l.Socket != "" && l.Subject != "" {
		f.add("socket", "is for url")
	}
	if l.VersionField != "" && !fieldPath.MatchString(l.VersionField) {
		f.add("version_field", "is %.40q: want names with dots between them, such as meta.version", l.VersionField)
	}
	if l.MaxBody < 0 || l.MaxBody > maxBody {
		f.add("max_body", "is %d: want 0 (what is stored at most) to %d bytes", l.MaxBody, maxBody)
	}
}

func (f *loaderFaults) times(l Loader) {
	for _, t := range []struct {
		field string
		d     time.Duration
	}{
		{"soft_timeout", l.SoftTimeout}, {"min_timeout", l.MinTimeout}, {"max_timeout", l.MaxTimeout}, {"hard_timeout", l.HardTimeout},
		{"backoff", l.Backoff}, {"max_backoff", l.MaxBackoff}, {"breaker_open", l.BreakerOpen}, {"slow_start", l.SlowStart},
	} {
		if t.d < minLoadTime || t.d > maxLoadTime {
			f.add(t.field, "is %v: want %v to %v, or 0 for the default", t.d, minLoadTime, maxLoadTime)
		}
	}
	if l.MinTimeout > l.MaxTimeout {
		f.add("min_timeout", "is %v: want at most max_timeout (%v)", l.MinTimeout, l.MaxTimeout)
	}
	if l.MaxTimeout > l.HardTimeout {
		f.add("max_timeout", "is %v: want at most hard_timeout (%v)", l.MaxTimeout, l.HardTimeout)
	}
	if l.Backoff > l.MaxBackoff {
		f.add("backoff", "is %v: want at most max_backoff (%v)", l.Backoff, l.MaxBackoff)
	}
}

func (f *loaderFaults) limits(l Loader) {
	for _, n := range []struct {
		field string
		n, to int
	}{
		{"tries", l.Tries, maxTries}, {"concurrency", l.Concurrency, maxConcurrency}, {"queue", l.Queue, maxQueue},
		{"burst", l.Burst, maxRate}, {"breaker_failures", l.BreakerFailures, maxConcurrency}, {"breaker_probes", l.BreakerProbes, maxConcurrency},
	} {
		if n.n < 1 || n.n > n.to {
			f.add(n.field, "is %d: want 1 to %d, or 0 for the default", n.n, n.to)
		}
	}
	if !(l.Rate >= 0.01 && l.Rate <= maxRate) {
		f.add("rate", "is %v: want 0.01 to %d a second, or 0 for the default", l.Rate, maxRate)
	}
}

// ErrUnresolved says that a header of a loader cannot be sent.
var ErrUnresolved = errors.New("policy: header of a loader cannot be sent")

// ResolveHeaders returns the headers with the environment's values in place of
// ${NAME}. These are secrets: errors name headers and variables, never values, and
// the result must not be logged. All faults are reported, joined, as ErrUnresolved.
func (l Loader) ResolveHeaders(lookup func(string) (string, bool)) (map[string]string, error) {
	resolved := make(map[string]string, len(l.Headers))
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(l.Headers)) {
		value := variable.ReplaceAllStringFunc(l.Headers[name], func(ref string) string {
			env := variable.FindStringSubmatch(ref)[1]
			value, ok := lookup(env)
			if !ok {
				faults = append(faults, fmt.Errorf("%w: %s needs the environment variable %s, which is not set", ErrUnresolved, name, env))
			}
			return value
		})
		if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
			faults = append(faults, fmt.Errorf("%w: the value of %s has a line break or another control character", ErrUnresolved, name))
		}
		resolved[name] = value
	}
	return resolved, errors.Join(faults...)
}
