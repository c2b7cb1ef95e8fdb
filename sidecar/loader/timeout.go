package loader

import (
	"slices"
	"sync"
	"time"

	"github.com/nearside-cache/nearside/sidecar/policy"
)

const (
	samples    = 512 // of which the quantile is taken
	fewSamples = 20  // below so many nothing is known
	recompute  = 16  // samples between two looks at the quantile
	quantile   = 0.99
	padding    = 2
)

// timeouts finds the timeout of one try from what the last ones took:
//
//	timeout = padding × the 99th percentile of the last 512, within the policy's bounds
//
// That is the rule of Amazon's Builders' Library ("Timeouts, retries, and backoff
// with jitter"): choose the rate of false timeouts that is acceptable and take
// that percentile of the latency, with padding where percentiles lie close
// together, so that a small rise does not time everything out.
//
// A try that was cut off took longer than is known. It counts as what it took
// until then, which the padding doubles, and as in RFC 6298 (5.5) the timeout
// doubles at once, until an answer comes: an origin that became slower is found
// again within a few tries.
type timeouts struct {
	least, most time.Duration

	mu    sync.Mutex
	ring  [samples]time.Duration
	seen  int           // samples ever
	basis time.Duration // by the quantile; 0: nothing is known
	floor time.Duration // by timeouts since the last answer
}

func newTimeouts(p policy.Loader) *timeouts {
	return &timeouts{least: p.MinTimeout, most: p.MaxTimeout}
}

func (t *timeouts) current() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.basis == 0 {
		return t.most
	}
	return min(t.most, max(t.least, t.basis, t.floor))
}

// answered takes what a try took that was answered.
func (t *timeouts) answered(took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.floor = 0
	t.add(took)
}

// cut takes the timeout that cut a try off.
func (t *timeouts) cut(timeout time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.floor = max(t.floor, min(t.most, 2*timeout))
	t.add(timeout)
}

func (t *timeouts) add(took time.Duration) {
	t.ring[t.seen%samples] = max(took, 1)
	t.seen++
	if t.seen < fewSamples || t.seen > fewSamples && t.seen%recompute != 0 {
		return
	}
	sorted := t.ring
	known := sorted[:min(t.seen, samples)]
	slices.Sort(known)
	t.basis = padding * known[int(quantile*float64(len(known)))]
}
