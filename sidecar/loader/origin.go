package loader

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"

	"github.com/nearside-cache/nearside/api"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// Deps is what loaders need of their sidecar. All may be left out.
type Deps struct {
	// Requester asks on subjects; nil: policies with a subject are refused.
	Requester bus.Requester
	// Lookup finds environment variables; nil is os.LookupEnv.
	Lookup func(string) (string, bool)
	// MaxValue is the longest value in bytes that can be stored; 0 is
	// api.DefaultMaxValue. Longer ones are not read.
	MaxValue int
	// UserAgent is what origins see; empty is "nearside".
	UserAgent string
	// Dial connects to origins; nil is a net.Dialer.
	Dial    func(ctx context.Context, network, address string) (net.Conn, error)
	Metrics *Metrics     // nil: nobody looks
	Logger  hclog.Logger // nil: none
}

func (d Deps) complete() Deps {
	if d.Lookup == nil {
		d.Lookup = os.LookupEnv
	}
	if d.MaxValue == 0 {
		d.MaxValue = api.DefaultMaxValue
	}
	if d.UserAgent == "" {
		d.UserAgent = "nearside"
	}
	if d.Dial == nil {
		d.Dial = new(net.Dialer).DialContext
	}
	if d.Metrics == nil {
		d.Metrics = NewMetrics(prometheus.NewRegistry())
	}
	if d.Logger == nil {
		d.Logger = hclog.NewNullLogger()
	}
	return d
}

// asker asks over one kind of connection.
type asker interface {
	// fits returns ErrBadKey for a key that has no address.
	fits(key string) error
	// ask sends one request and reads its answer, which ends when ctx does.
	ask(ctx context.Context, r Request) (Result, error)
	close()
}

// Origin is where the values of one namespace come from. It is safe for
// concurrent use.
type Origin struct {
	namespace string
	name      string // without secrets
	policy    policy.Loader
	asker     asker
	breaker   *breaker
	pace      *pace
	gate      *gate
	timeouts  *timeouts
	meters    meters
	log       hclog.Logger

	counts counts
	last   atomic.Pointer[failure]

	ctx  context.Context // ends with Close
	stop context.CancelCauseFunc

	mu     sync.Mutex
	closed bool           // nothing begins any more
	calls  sync.WaitGroup // loads under way
}

var _ Loader = (*Origin)(nil)

// New makes the origin of a namespace from a policy without faults. Errors are
// those of what the policy needs here: an environment variable, a bus.
func New(namespace string, p policy.Loader, d Deps) (*Origin, error) {
	d, p = d.complete(), p.WithDefaults()
	o := &Origin{
		namespace: namespace, policy: p, pace: newPace(p), timeouts: newTimeouts(p), log: d.Logger,
	}
	if err := o.connect(p, d); err != nil {
		return nil, fmt.Errorf("loader of %s: %w", namespace, err)
	}
	o.meters = d.Metrics.of(namespace)
	o.breaker = newBreaker(p, o.changed)
	o.gate = newGate(p, o.breaker, o.pace)
	o.report()
	o.ctx, o.stop = context.WithCancelCause(context.Background())
	return o, nil
}

func (o *Origin) connect(p policy.Loader, d Deps) error {
	headers, err := p.ResolveHeaders(d.Lookup)
	if err != nil {
		return err
	}
	if p.MaxBody == 0 || p.MaxBody > d.MaxValue {
		p.MaxBody = d.MaxValue
	}
	if p.Subject != "" {
		s, err := newAsked(p, headers, d)
		if err != nil {
			return err
		}
		o.asker, o.name = s, s.at.String()
		return nil
	}
	w, err := newWeb(p, headers, d)
	if err != nil {
		return err
	}
	o.asker, o.name = w, w.at.String()
	return nil
}

// report sets the gauges to what is now.
func (o *Origin) report() {
	o.meters.timeout.Set(o.timeouts.current().Seconds())
	o.meters.breaker.Set(float64(o.breaker.two.State()))
}

// changed is told of the breaker's changes. One that was replaced has nothing to
// say any more.
func (o *Origin) changed(to gobreaker.State) {
	o.mu.Lock()
	closed := o.closed
	o.mu.Unlock()
	if closed {
		return
	}
	o.meters.breaker.Set(float64(to))
	switch to {
	case gobreaker.StateOpen:
		o.log.Warn("the origin fails and is left alone for a while", "namespace", o.namespace, "origin", o.name, "for", o.breaker.openIn, "error", o.lastFailure())
	case gobreaker.StateClosed:
		o.pace.restart()
		o.log.Info("the origin answers again", "namespace", o.namespace, "origin", o.name)
	}
}

// acquire registers a load; calls.Done ends it. It does not block.
func (o *Origin) acquire() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return false
	}
	o.calls.Add(1)
	return true
}

// Load implements Loader. All of it takes HardTimeout at most. The end of ctx
// says nothing of the origin; who cannot wait should Begin, so that what the
// origin did is not for nothing.
func (o *Origin) Load(ctx context.Context, r Request) (Result, error) {
	if !o.acquire() {
		return Result{}, o.wrap(ErrClosed)
	}
	defer o.calls.Done()
	return o.load(ctx, r)
}

// load does what Load does, between acquire and calls.Done.
func (o *Origin) load(ctx context.Context, r Request) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(o.ctx, func() { cancel(ErrClosed) })()
	ctx, expire := context.WithTimeoutCause(ctx, o.policy.HardTimeout, errHard)
	defer expire()
	began := time.Now()
	result, err := o.fitting(ctx, r)
	o.meters.time.Observe(time.Since(began).Seconds())
	outcome := outcomeOf(result, err)
	o.meters.results[outcome].Inc()
	o.counts.add(outcome)
	if err != nil {
		return Result{}, o.wrap(err)
	}
	return result, nil
}

// fitting loads what has an address. What has none needs no leave to ask, and says
// nothing of the origin.
func (o *Origin) fitting(ctx context.Context, r Request) (Result, error) {
	if err := o.asker.fits(r.Key); err != nil {
		return Result{}, err
	}
	return o.tries(ctx, r)
}

func (o *Origin) wrap(err error) error {
	return fmt.Errorf("load %s from %s: %w", o.namespace, o.name, err)
}

// Close ends all loads and returns when none is under way. It may be called more
// than once.
func (o *Origin) Close() error {
	o.stop(ErrClosed)
	o.retire()
	return nil
}

// retire lets no load begin and returns when the last one has ended.
func (o *Origin) retire() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.calls.Wait()
	o.stop(ErrClosed)
	o.asker.close()
}

// errHard is the cause of a context that the hard timeout ended.
var errHard = errors.New("hard timeout")
