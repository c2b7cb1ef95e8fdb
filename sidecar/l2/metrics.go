package l2

import (
	"maps"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	descUp      = desc("up", "1 while the shared tier's bucket is open and answers.", "namespace")
	descQueued  = desc("queued", "Entries and rights that wait to be written to the shared tier.", "namespace")
	descCalls   = desc("calls_total", "What became of calls of the shared tier.", "namespace", "result")
	descWrites  = desc("writes_total", "What became of entries that were to be stored in the shared tier.", "namespace", "result")
	descVouched = desc("vouched_total", "Entries of the shared tier whose position was raised.", "namespace")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName("nearside", "shared", name), help, labels, nil)
}

// Describe implements prometheus.Collector.
func (s *Set) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descUp, descQueued, descCalls, descWrites, descVouched} {
		out <- d
	}
}

// Collect implements prometheus.Collector, from the Stats of the tiers in use.
func (s *Set) Collect(out chan<- prometheus.Metric) {
	s.mu.RLock()
	tiers := maps.Clone(s.tiers)
	s.mu.RUnlock()
	for namespace, t := range tiers {
		x := t.Stats()
		up := 0.0
		if x.Up {
			up = 1
		}
		out <- prometheus.MustNewConstMetric(descUp, prometheus.GaugeValue, up, namespace)
		out <- prometheus.MustNewConstMetric(descQueued, prometheus.GaugeValue, float64(x.Queued), namespace)
		out <- prometheus.MustNewConstMetric(descVouched, prometheus.CounterValue, float64(x.Vouched), namespace)
		for result, n := range map[string]uint64{
			"hit": x.Hits, "miss": x.Misses, "unreadable": x.Unreadable, "away": x.Away, "acquired": x.Acquired, "refused": x.Refused,
		} {
			out <- prometheus.MustNewConstMetric(descCalls, prometheus.CounterValue, float64(n), namespace, result)
		}
		for result, n := range map[string]uint64{"stored": x.Stored, "not-newer": x.NotNewer, "dropped": x.Dropped} {
			out <- prometheus.MustNewConstMetric(descWrites, prometheus.CounterValue, float64(n), namespace, result)
		}
	}
}
