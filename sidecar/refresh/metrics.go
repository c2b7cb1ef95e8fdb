package refresh

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what a Queue does.
type Metrics struct {
	Queued  prometheus.Counter // keys taken in, those aside that were queued already
	Started prometheus.Counter // of these, loads begun
	Dropped prometheus.Counter // keys given up for want of room
	Failed  prometheus.Counter // loads that ended with an error, the sidecar's own end aside
	Length  prometheus.Gauge   // keys queued now
}

// NewMetrics registers a Queue's metrics with r.
func NewMetrics(r prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "nearside", Subsystem: "refresh", Name: name, Help: help})
	}
	m := &Metrics{
		Queued:  counter("queued_total", "Keys queued to be loaded anew."),
		Started: counter("started_total", "Loads begun of queued keys."),
		Dropped: counter("dropped_total", "Keys not loaded anew because the queue was full."),
		Failed:  counter("failed_total", "Loads of queued keys that failed."),
		Length: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "nearside", Subsystem: "refresh", Name: "queue", Help: "Keys queued to be loaded anew.",
		}),
	}
	r.MustRegister(m.Queued, m.Started, m.Dropped, m.Failed, m.Length)
	return m
}
