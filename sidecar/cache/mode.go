package cache

import (
	"bytes"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// ShadowMetrics counts what namespaces in shadow mode would do.
type ShadowMetrics struct {
	Reads       *prometheus.CounterVec // by what would be answered
	Compared    prometheus.Counter     // values loaded for a key of which one was held
	Divergences prometheus.Counter     // of these, other than the one held
}

// Outcomes of reads in shadow mode.
const (
	shadowHit    = "hit"
	shadowMiss   = "miss"
	shadowBypass = "bypass" // held, but it cannot be proven fresh enough
)

func newShadowMetrics(r prometheus.Registerer) *ShadowMetrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "nearside", Name: name, Help: help})
	}
	m := &ShadowMetrics{
		Reads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "nearside", Name: "shadow_reads_total", Help: "Reads of namespaces in shadow mode, by what would be answered.",
		}, []string{"outcome"}),
		Compared:    counter("shadow_compared_total", "Values loaded in shadow mode for a key that would have been a hit."),
		Divergences: counter("shadow_divergences_total", "Of the values compared, those other than the one that would have been served."),
	}
	for _, outcome := range []string{shadowHit, shadowMiss, shadowBypass} {
		m.Reads.WithLabelValues(outcome)
	}
	r.MustRegister(m.Reads, m.Compared, m.Divergences)
	return m
}

// shadow counts what a read would be answered, in a namespace that serves
// nothing.
func (c *Cache) shadow(key string, p *policy.Namespace, now time.Duration) {
	if p.Mode != policy.Shadow {
		return
	}
	fresh, outcome := c.Fresh(), shadowMiss
	if _, m, ok := c.store.Get(key, nil); ok && c.servable(key, m, now) {
		outcome = shadowHit
		if now-fresh > p.Bound() {
			outcome = shadowBypass
		}
	}
	c.metrics.Shadow.Reads.WithLabelValues(outcome).Inc()
}

// withheld answers a read under a mode where nothing is served: a miss at once,
// for there is nothing to wait for.
func (c *Cache) withheld(key string, p *policy.Namespace, m Mode) Answer {
	now := c.now()
	c.shadow(key, p, now)
	applied := c.Applied()
	fresh := c.Fresh()
	a := Answer{Status: Miss, Age: ageOf(fresh, now), AsOf: fresh, Token: Token{Position: applied}}
	if m.Kind == AtLeast && !applied.Satisfies(m.AtLeast.Position) {
		a.Token = m.AtLeast // never an older one than the reader has
	}
	a.Lease = c.Lease(key, m.Kind == Strong)
	return a
}

// refuses reports whether the namespace keeps no fills now, and why. It is called
// under mu.
func (c *Cache) refuses(p *policy.Namespace, now time.Duration) (coherence.Verdict, bool) {
	switch {
	case p.Mode == policy.Off:
		return coherence.Off, true
	case c.core.Ready() && c.State(p, now) == Bypass:
		return coherence.Bypass, true
	}
	return coherence.Stored, false
}

// compare is called under mu with a value that takes the place of the resident
// one, and returns when the new entry expires. In shadow mode the client loaded
// it only because a hit was withheld: no event came since its miss, so a value
// other than the resident one is a write that is not, or not yet, published. One
// that is the same leaves the expiry as it was, or nothing would ever expire.
func (c *Cache) compare(key string, value []byte, p *policy.Namespace, expires, now time.Duration) time.Duration {
	if p.Mode != policy.Shadow {
		return expires
	}
	held, m, ok := c.stored(key)
	if !ok || !c.servable(key, m, now) {
		return expires
	}
	c.metrics.Shadow.Compared.Inc()
	if bytes.Equal(held, value) {
		return m.Expires
	}
	c.metrics.Shadow.Divergences.Inc()
	c.log.Debug("shadow: a loaded value is other than the one that would have been served", "key", c.Policies().Shown(key), "position_seq", m.Seq)
	return expires
}
