// Package toggle changes what policies say while a sidecar serves, for a while or
// until it ends: the mode of a namespace, and whether clients may publish wide
// purges. Every change leaves an audit record.
package toggle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/audit"
	"github.com/nearside-cache/nearside/sidecar/clock"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// Setting is what can be toggled. Its text is a metric label.
type Setting string

// Settings.
const (
	Mode   Setting = "mode"   // enforce, shadow or off
	Purges Setting = "purges" // pause or resume
)

// Values of Purges.
const (
	Pause  = "pause"
	Resume = "resume"
)

// Words returns what a setting may be; nil if there is no such setting.
func (s Setting) Words() []string {
	switch s {
	case Mode:
		return policy.Mode("").Words()
	case Purges:
		return []string{Pause, Resume}
	}
	return nil
}

// Bounds of toggles.
const (
	// MinFor and MaxFor bound how long a toggle that ends by itself holds.
	MinFor = time.Second
	MaxFor = 30 * 24 * time.Hour

	maxToggles = 1000 // namespaces with toggles: they take memory
)

// ErrRefused says that a change makes no sense; the error that wraps it says why.
var ErrRefused = errors.New("toggle: refused")

// Change is what a client asks for.
type Change struct {
	Namespace string // or policy.AllNamespaces
	Setting   Setting
	Value     string
	For       time.Duration // after which it is rolled back; 0: never
	By        audit.Who
}

// Toggle is a change in force.
type Toggle struct {
	Namespace string
	Setting   Setting
	Value     string
	Left      time.Duration // until it is rolled back; 0: never
}

// place is what a toggle changes.
type place struct {
	namespace string
	setting   Setting
}

// held is a toggle in force.
type held struct {
	value string
	until time.Duration // moment of the clock; 0: never
}

// Config is what a Board is made of.
type Config struct {
	Policies *policy.Set
	// Apply gets the policies with the toggles on top whenever either changes. It is
	// called with one set after the other, and must not call the Board.
	Apply      func(*policy.Set)
	Clock      clock.Clock
	Audit      *audit.Log
	Registerer prometheus.Registerer
}

// Board holds the toggles of one sidecar. They survive new policies and end with
// the process. It is safe for concurrent use.
type Board struct {
	cfg     Config
	changes *prometheus.CounterVec // by setting and what was done
	wake    chan struct{}          // a toggle may end earlier than Run waits for

	mu      sync.Mutex
	base    *policy.Set // as configured
	toggles map[place]held
}

// New makes a Board without toggles. Apply is not called yet.
func New(c Config) *Board {
	b := &Board{
		cfg: c, base: c.Policies, toggles: make(map[place]held), wake: make(chan struct{}, 1),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "nearside", Name: "toggle_changes_total", Help: "Changes of toggles, by setting and by what was done.",
		}, []string{"setting", "what"}),
	}
	inForce := func(s Setting) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "nearside", Name: "toggles", Help: "Toggles in force, by setting.", ConstLabels: prometheus.Labels{"setting": string(s)},
		}, func() float64 { return float64(b.count(s)) })
	}
	for _, s := range []Setting{Mode, Purges} {
		for _, what := range []string{audit.Toggle, audit.Reset, audit.Rollback} {
			b.changes.WithLabelValues(string(s), what)
		}
		c.Registerer.MustRegister(inForce(s))
	}
	c.Registerer.MustRegister(b.changes)
	return b
}

func (b *Board) count(s Setting) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for p := range b.toggles {
		if p.setting == s {
			n++
		}
	}
	return n
}

// SetPolicies replaces the policies under the toggles.
func (b *Board) SetPolicies(p *policy.Set) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.base = p
	b.apply()
}

// apply hands out the policies with the toggles, under mu.
func (b *Board) apply() { b.cfg.Apply(b.effective()) }

// effective is the policies with the toggles, under mu.
func (b *Board) effective() *policy.Set {
	overrides := make(map[string]policy.Override)
	for p, h := range b.toggles {
		o := overrides[p.namespace]
		switch p.setting {
		case Mode:
			o.Mode = policy.Mode(h.value)
		case Purges:
			paused := h.value == Pause
			o.Paused = &paused
		}
		overrides[p.namespace] = o
	}
	return b.base.With(overrides)
}

// Set makes a change. An error wraps ErrRefused, and nothing has changed.
func (b *Board) Set(c Change) error {
	if err := c.check(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	at := place{c.Namespace, c.Setting}
	if _, ok := b.toggles[at]; !ok && len(b.toggles) >= maxToggles {
		return fmt.Errorf("%w: there are %d toggles, and no room for more: reset some", ErrRefused, maxToggles)
	}
	before, h, record := b.value(at), held{value: c.Value}, audit.Record{}
	if c.For > 0 {
		h.until = b.cfg.Clock() + c.For
		until := time.Now().Add(c.For).UTC()
		record.Until = &until
	}
	b.toggles[at] = h
	b.apply()
	b.note(record, audit.Toggle, at, before, c.By)
	select {
	case b.wake <- struct{}{}:
	default:
	}
	return nil
}

func (c Change) check() error {
	if n := len(c.Namespace); n == 0 || n > bus.MaxNamespace || strings.Contains(c.Namespace, ":") {
		return fmt.Errorf("%w: namespace %.40q: want 1 to %d bytes without a ':', or %s for all", ErrRefused, c.Namespace, bus.MaxNamespace, policy.AllNamespaces)
	}
	words := c.Setting.Words()
	if words == nil {
		return fmt.Errorf("%w: setting %.40q: want %s or %s", ErrRefused, c.Setting, Mode, Purges)
	}
	if !slices.Contains(words, c.Value) {
		return fmt.Errorf("%w: %s is %.40q: want one of %s", ErrRefused, c.Setting, c.Value, strings.Join(words, ", "))
	}
	if c.For != 0 && (c.For < MinFor || c.For > MaxFor) {
		return fmt.Errorf("%w: for %v: want %v to %v", ErrRefused, c.For, MinFor, MaxFor)
	}
	return nil
}

// Reset gives a namespace back to its policy. It returns how many toggles that
// ended.
func (b *Board) Reset(namespace string, by audit.Who) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.end(audit.Reset, by, func(p place, _ held) bool { return p.namespace == namespace })
}

// end ends the toggles that match, under mu.
func (b *Board) end(what string, by audit.Who, match func(place, held) bool) (n int) {
	before := make(map[place]string)
	for p, h := range b.toggles {
		if match(p, h) {
			before[p] = b.value(p)
		}
	}
	for p := range before {
		delete(b.toggles, p)
	}
	if len(before) == 0 {
		return 0
	}
	b.apply()
	for p, was := range before {
		b.note(audit.Record{}, what, p, was, by)
	}
	return len(before)
}

// value returns what holds at a place, under mu.
func (b *Board) value(at place) string {
	p := b.effective()
	n := &p.Default
	if at.namespace != policy.AllNamespaces {
		n = p.Of(at.namespace)
	}
	if at.setting == Purges {
		return map[bool]string{true: Pause, false: Resume}[n.WidePurges.Paused]
	}
	if n.Enforces() {
		return string(policy.Enforce)
	}
	return string(n.Mode)
}

// note writes down what was done at a place, under mu.
func (b *Board) note(r audit.Record, what string, at place, before string, by audit.Who) {
	r.What, r.Namespace, r.Setting, r.By = what, at.namespace, string(at.setting), by
	r.Before, r.After = before, b.value(at)
	b.cfg.Audit.Write(r)
	b.changes.WithLabelValues(string(at.setting), what).Inc()
}

// Toggles returns what is in force, by namespace and setting.
func (b *Board) Toggles() []Toggle {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []Toggle
	now := b.cfg.Clock()
	for _, p := range slices.SortedFunc(maps.Keys(b.toggles), func(x, y place) int {
		return strings.Compare(x.namespace+":"+string(x.setting), y.namespace+":"+string(y.setting))
	}) {
		h := b.toggles[p]
		t := Toggle{Namespace: p.namespace, Setting: p.setting, Value: h.value}
		if h.until > 0 {
			t.Left = max(1, h.until-now)
		}
		all = append(all, t)
	}
	return all
}

// longestWait bounds how late a rollback is after the machine was suspended,
// which timers do not notice.
const longestWait = time.Minute

// Run rolls toggles back when their time has come, until ctx ends.
func (b *Board) Run(ctx context.Context) error {
	timer := time.NewTimer(longestWait)
	defer timer.Stop()
	for {
		timer.Reset(b.rollBack())
		select {
		case <-timer.C:
		case <-b.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// rollBack ends the toggles whose time has come, and returns when to look again.
func (b *Board) rollBack() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.cfg.Clock()
	b.end(audit.Rollback, audit.Itself, func(_ place, h held) bool { return h.until > 0 && h.until <= now })
	wait := longestWait
	for _, h := range b.toggles {
		if h.until > 0 {
			wait = min(wait, h.until-now)
		}
	}
	return wait
}
