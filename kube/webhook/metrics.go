package webhook

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the injector's, besides those of the process.
type metrics struct {
	// admissions counts answered and refused requests, by result.
	admissions *prometheus.CounterVec
	// seconds is how long requests took, the reading of their body included.
	seconds prometheus.Histogram
	// expires is when the certificate that is served expires; 0: there is none.
	expires prometheus.Gauge
	// renewals counts steps of certificates that this replica wrote.
	renewals prometheus.Counter
	// failures counts rounds of keeping the certificates that failed.
	failures prometheus.Counter
	// reloads counts new settings and certificates from files, by what became of them.
	reloads *prometheus.CounterVec
}

// Outcomes of reading files again: labels of nearside_injector_reloads_total.
const (
	reloadApplied = "applied"
	reloadRefused = "refused"
)

func newMetrics(r prometheus.Registerer) *metrics {
	name := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "nearside", Subsystem: "injector", Name: name, Help: help}
	}
	m := &metrics{
		admissions: prometheus.NewCounterVec(prometheus.CounterOpts(name("admissions_total", "Requests answered, by result.")), []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "nearside", Subsystem: "injector", Name: "admission_seconds", Help: "How long requests took.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, 1, 5},
		}),
		expires:  prometheus.NewGauge(prometheus.GaugeOpts(name("certificate_expiry_timestamp_seconds", "When the certificate that is served expires, in seconds since 1970; 0: none is served."))),
		renewals: prometheus.NewCounter(prometheus.CounterOpts(name("certificate_steps_total", "Steps of renewing certificates that this replica wrote."))),
		failures: prometheus.NewCounter(prometheus.CounterOpts(name("certificate_failures_total", "Rounds of looking after the certificates that failed."))),
		reloads:  prometheus.NewCounterVec(prometheus.CounterOpts(name("reloads_total", "Files read again, by what became of them.")), []string{"file", "outcome"}),
	}
	for _, result := range results {
		m.admissions.WithLabelValues(result)
	}
	for _, file := range []string{fileSettings, fileCertificate} {
		for _, outcome := range []string{reloadApplied, reloadRefused} {
			m.reloads.WithLabelValues(file, outcome)
		}
	}
	r.MustRegister(m.admissions, m.seconds, m.expires, m.renewals, m.failures, m.reloads)
	return m
}

func (m *metrics) took(since time.Time) { m.seconds.Observe(time.Since(since).Seconds()) }
