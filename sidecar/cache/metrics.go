package cache

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/refresh"
	"github.com/nearside-cache/nearside/sidecar/rights"
)

// Metrics counts what a Cache does. All labels come from closed lists.
type Metrics struct {
	Hits          prometheus.Counter     // reads answered from memory
	Misses        prometheus.Counter     // reads that found nothing servable, by any command
	Bypassed      prometheus.Counter     // entries not served because freshness could not be proven
	Fills         *prometheus.CounterVec // by verdict
	Evictions     prometheus.Counter     // entries given up to make room
	Publishes     prometheus.Counter     // events handed to the stream
	PublishErrors prometheus.Counter     // of these, not acknowledged
	Events        prometheus.Counter     // applied, pulses aside
	Malformed     prometheus.Counter     // of these, could not be decoded
	Doubts        *prometheus.CounterVec // by reason
	Lag           prometheus.Histogram   // from the stream's storing an event to applying it
	EventLag      prometheus.Histogram   // from the writer's time of an event to applying it
	StaleHits     prometheus.Counter     // of the hits, past their soft TTL
	NegativeHits  prometheus.Counter     // reads answered that the source has no value
	Loads         *prometheus.CounterVec // by what became of them
	Shared        *prometheus.CounterVec // entries of the shared tier, by verdict
	NotShared     prometheus.Counter     // values that the shared tier did not take
	Rights        *rights.Metrics
	Refresh       *refresh.Metrics
	Shadow        *ShadowMetrics // of namespaces in shadow mode
}

// NewMetrics registers a Cache's metrics with r.
func NewMetrics(r prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "nearside", Name: name, Help: help})
		r.MustRegister(c)
		return c
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "nearside", Name: name, Help: help}, []string{label})
		r.MustRegister(c)
		return c
	}
	histogram := func(name, help string) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "nearside", Name: name, Help: help,
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 18), // 0.1 ms to 13 s
		})
		r.MustRegister(h)
		return h
	}
	m := &Metrics{
		Hits:          counter("hits_total", "Reads answered from memory."),
		Misses:        counter("misses_total", "Reads that found nothing that may be served."),
		Bypassed:      counter("bypassed_total", "Entries not served because it could not be proven that they are fresh enough."),
		Fills:         vec("fills_total", "Values offered for storing, by what was decided.", "verdict"),
		Evictions:     counter("evictions_total", "Entries given up to make room."),
		Publishes:     counter("publishes_total", "Events handed to the stream."),
		PublishErrors: counter("publish_errors_total", "Events that the stream did not acknowledge in time."),
		Events:        counter("events_applied_total", "Events applied, pulses aside."),
		Malformed:     counter("events_malformed_total", "Events that could not be decoded and flushed what they may have named."),
		Doubts:        vec("doubts_total", "Times continuity could not be proven, by reason.", "reason"),
		Lag:           histogram("stream_lag_seconds", "Time from the stream's storing an event until it was applied here."),
		EventLag:      histogram("invalidation_lag_seconds", "Time from the writer's time of an event until it was applied here."),
		StaleHits:     counter("stale_hits_total", "Of the hits, those past their soft TTL."),
		NegativeHits:  counter("negative_hits_total", "Reads answered from memory that the source has no value."),
		Loads:         vec("loads_total", "Loads through a loader, by what was decided on what they brought, or failed.", "verdict"),
		Shared:        vec("shared_reads_total", "Entries found in the shared tier, by what was decided.", "verdict"),
		NotShared:     counter("shared_refused_total", "Values loaded that the shared tier did not take."),
		Rights:        rights.NewMetrics(r),
		Refresh:       refresh.NewMetrics(r),
		Shadow:        newShadowMetrics(r),
	}
	for _, v := range coherence.Verdicts() {
		for _, of := range []*prometheus.CounterVec{m.Fills, m.Loads, m.Shared} {
			of.WithLabelValues(v.String())
		}
	}
	m.Loads.WithLabelValues(loadFailed)
	for _, reason := range bus.Reasons() {
		m.Doubts.WithLabelValues(reason.String())
	}
	return m
}

// counts reads the totals back from the counters.
func (m *Metrics) counts() Counts {
	n := Counts{
		Hits: total(m.Hits), Misses: total(m.Misses), Events: total(m.Events),
		Publishes: total(m.Publishes), PublishErrors: total(m.PublishErrors),
	}
	for _, v := range coherence.Verdicts() {
		if t := total(m.Fills.WithLabelValues(v.String())); v == coherence.Stored {
			n.Stored = t
		} else {
			n.Rejected += t
		}
	}
	return n
}

func total(c prometheus.Counter) uint64 {
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		return 0 // a counter of our own always writes
	}
	return uint64(m.GetCounter().GetValue())
}

func (m *Metrics) fill(v coherence.Verdict) { m.Fills.WithLabelValues(v.String()).Inc() }

// loadFailed counts the loads that brought nothing.
const loadFailed = "failed"

func (m *Metrics) load(v coherence.Verdict) { m.Loads.WithLabelValues(v.String()).Inc() }

func (m *Metrics) shared(v coherence.Verdict) { m.Shared.WithLabelValues(v.String()).Inc() }

func (m *Metrics) doubt(r bus.Reason) { m.Doubts.WithLabelValues(r.String()).Inc() }

func (m *Metrics) applied(d *bus.Delivery, at time.Time) {
	m.Events.Inc()
	m.Lag.Observe(max(0, at.Sub(d.Time).Seconds()))
	if !d.Event.Time.IsZero() {
		m.EventLag.Observe(max(0, at.Sub(d.Event.Time).Seconds()))
	}
}
