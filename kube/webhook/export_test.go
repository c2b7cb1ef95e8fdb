package webhook

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/nearside-cache/nearside/kube/inject"
)

// For tests of the pure parts.
var (
	Difference = difference
	Decode     = decode
	Admit      = admit
)

// NewHandler returns the handler of reviews, and its metrics.
func NewHandler(s inject.Settings) (http.Handler, *prometheus.Registry) {
	r := prometheus.NewRegistry()
	var p atomic.Pointer[inject.Settings]
	p.Store(&s)
	return newHandler(&p, newMetrics(r), hclog.NewNullLogger()), r
}

// Chain is the certificates without a cluster.
type Chain struct{ c *chain }

// ReadChain is readChain.
func ReadChain(data map[string][]byte) (Chain, error) {
	c, err := readChain(data)
	return Chain{c}, err
}

// Advance is chain.advance.
func (c Chain) Advance(now time.Time, l Lives, names []string, published bool) ([]string, error) {
	return c.c.advance(now, l, names, published)
}

// Data is chain.data.
func (c Chain) Data() (map[string][]byte, error) { return c.c.data() }

// Keeper is what looks after the certificates of one replica.
type Keeper struct{ k *keeper }

// NewKeeper returns one of its own.
func NewKeeper(c Config) *Keeper {
	m := newMetrics(prometheus.NewRegistry())
	return &Keeper{c.keeper(&identity{metrics: m}, m)}
}

// Run is keeper.run.
func (k *Keeper) Run(ctx context.Context) { k.k.run(ctx) }

// Ready is identity.ready.
func (k *Keeper) Ready() error { return k.k.identity.ready(time.Now()) }

// Failures is how many rounds failed.
func (k *Keeper) Failures() int { return int(testutil.ToFloat64(k.k.metrics.failures)) }

// Served is the certificate that is served, as PEM.
func (k *Keeper) Served() []byte {
	c, err := k.k.identity.get(nil)
	if err != nil {
		return nil
	}
	return certPEM(c.Leaf)
}
