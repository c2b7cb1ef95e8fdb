package rights

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what a Table does.
type Metrics struct {
	Granted     prometheus.Counter   // rights given, passed on ones included
	PassedOn    prometheus.Counter   // of these, to who had waited
	Expired     prometheus.Counter   // rights whose time was over before anything came of them
	Waits       prometheus.Counter   // readers that waited for a right
	WaitSeconds prometheus.Histogram // how long they did
	Held        prometheus.Gauge     // rights held now
	Waiting     prometheus.Gauge     // readers that wait now
}

// NewMetrics registers a Table's metrics with r.
func NewMetrics(r prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "nearside", Name: name, Help: help})
		r.MustRegister(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "nearside", Name: name, Help: help})
		r.MustRegister(g)
		return g
	}
	seconds := prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "nearside", Name: "rights_wait_seconds", Help: "How long readers waited for another's load.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16), // 0.5 ms to 16 s
	})
	r.MustRegister(seconds)
	return &Metrics{
		Granted:     counter("rights_granted_total", "Rights to fill given to readers that missed, passed on ones included."),
		PassedOn:    counter("rights_passed_on_total", "Rights to fill passed on to a reader that had waited."),
		Expired:     counter("rights_expired_total", "Rights to fill whose time was over before a value came."),
		Waits:       counter("rights_waits_total", "Readers that waited for another's load."),
		WaitSeconds: seconds,
		Held:        gauge("rights", "Rights to fill that readers hold now."),
		Waiting:     gauge("rights_waiting", "Readers that wait for another's load now."),
	}
}
