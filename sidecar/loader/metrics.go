package loader

import (
	"context"
	"errors"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// outcomes are all values of the label: what became of a load.
var outcomes = []string{
	"loaded", "not_modified", "negative", "failed", "timeout", "breaker_open", "over_rate", "queue_full",
	"too_old", "too_large", "bad_answer", "bad_key", "canceled", "closed",
}

func outcomeOf(r Result, err error) string {
	for _, o := range []struct {
		err  error
		name string
	}{
		{ErrTimeout, "timeout"}, {ErrBreakerOpen, "breaker_open"}, {ErrOverRate, "over_rate"}, {ErrQueueFull, "queue_full"},
		{ErrClosed, "closed"}, {ErrTooOld, "too_old"}, {ErrTooLarge, "too_large"}, {ErrBadAnswer, "bad_answer"}, {ErrBadKey, "bad_key"},
		{ErrFailed, "failed"}, {context.Canceled, "canceled"}, {context.DeadlineExceeded, "canceled"},
	} {
		if errors.Is(err, o.err) {
			return o.name
		}
	}
	switch {
	case err != nil:
		return "failed"
	case r.Negative:
		return "negative"
	case r.NotModified:
		return "not_modified"
	default:
		return "loaded"
	}
}

// Metrics counts what loaders do. The label namespace takes its values from the
// policy only, outcome from a closed list.
type Metrics struct {
	Results  *prometheus.CounterVec   // loads that ended, by namespace and outcome
	Requests *prometheus.CounterVec   // requests sent to the origin, by namespace
	Slow     *prometheus.CounterVec   // readers that went on without a load, by namespace
	Time     *prometheus.HistogramVec // of loads, with all tries and pauses, by namespace
	InFlight *prometheus.GaugeVec     // requests under way, by namespace
	Timeout  *prometheus.GaugeVec     // timeout of one try, by namespace
	Breaker  *prometheus.GaugeVec     // 0 closed, 1 half-open, 2 open, by namespace
}

// NewMetrics registers the metrics of all loaders with r.
func NewMetrics(r prometheus.Registerer) *Metrics {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "nearside", Subsystem: "load", Name: name, Help: help}
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts(opts(name, help)), append([]string{"namespace"}, labels...))
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts(opts(name, help)), []string{"namespace"})
	}
	m := &Metrics{
		Results:  counter("results_total", "Loads that ended, by what became of them.", "outcome"),
		Requests: counter("requests_total", "Requests sent to the origin, retries included."),
		Slow:     counter("slow_total", "Readers that went on without a load at the soft timeout."),
		Time: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "nearside", Subsystem: "load", Name: "duration_seconds", Help: "Time of loads, with all tries, pauses and waiting.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16), // 0.5 ms to 16 s
		}, []string{"namespace"}),
		InFlight: gauge("requests_in_flight", "Requests to the origin under way."),
		Timeout:  gauge("timeout_seconds", "The present timeout of one try."),
		Breaker:  gauge("breaker_state", "The circuit breaker: 0 closed, 1 half-open, 2 open."),
	}
	r.MustRegister(m.Results, m.Requests, m.Slow, m.Time, m.InFlight, m.Timeout, m.Breaker)
	return m
}

// meters are the Metrics of one namespace.
type meters struct {
	results                    map[string]prometheus.Counter
	requests, slow             prometheus.Counter
	time                       prometheus.Observer
	inFlight, timeout, breaker prometheus.Gauge
}

func (m *Metrics) of(namespace string) meters {
	ns := label(namespace)
	all := meters{
		results: make(map[string]prometheus.Counter), requests: m.Requests.WithLabelValues(ns), slow: m.Slow.WithLabelValues(ns),
		time: m.Time.WithLabelValues(ns), inFlight: m.InFlight.WithLabelValues(ns),
		timeout: m.Timeout.WithLabelValues(ns), breaker: m.Breaker.WithLabelValues(ns),
	}
	for _, o := range outcomes {
		all.results[o] = m.Results.WithLabelValues(ns, o)
	}
	return all
}

// forget drops the series of a namespace that has no loader any more.
func (m *Metrics) forget(namespace string) {
	ns := prometheus.Labels{"namespace": label(namespace)}
	for _, v := range []interface{ DeletePartialMatch(prometheus.Labels) int }{m.Results, m.Requests, m.Slow, m.Time, m.InFlight, m.Timeout, m.Breaker} {
		v.DeletePartialMatch(ns)
	}
}

func label(namespace string) string { return strings.ToValidUTF8(namespace, "�") }
