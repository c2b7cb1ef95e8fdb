package loader

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/nearside-cache/nearside/sidecar/policy"
)

// slowest is the share of the rate that a slow start begins with.
const slowest = 0.1

// pace spreads requests by a rate, which grows from a tenth after an outage: an
// origin that just came back has cold caches and everybody waiting for it.
type pace struct {
	full  rate.Limit
	burst int
	ramp  time.Duration

	mu      sync.Mutex
	limiter *rate.Limiter
	since   time.Time // of the slow start under way, zero for none
}

func newPace(p policy.Loader) *pace {
	return &pace{full: rate.Limit(p.Rate), burst: p.Burst, ramp: p.SlowStart, limiter: rate.NewLimiter(rate.Limit(p.Rate), p.Burst)}
}

// restart begins a slow start.
func (p *pace) restart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since = time.Now()
	p.adjust(p.since)
}

// adjust sets the rate of now; mu is held.
func (p *pace) adjust(now time.Time) {
	if p.since.IsZero() {
		return
	}
	share := max(slowest, min(1, float64(now.Sub(p.since))/float64(p.ramp)))
	p.limiter.SetLimitAt(now, rate.Limit(share)*p.full)
	p.limiter.SetBurstAt(now, max(1, int(share*float64(p.burst))))
	if share == 1 {
		p.since = time.Time{}
	}
}

// current returns the rate of now, requests per second.
func (p *pace) current() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.adjust(time.Now())
	return float64(p.limiter.Limit())
}

// wait waits for the turn of one request. It fails at once where the turn would
// come after the deadline of ctx, and as soon as broken is closed.
func (p *pace) wait(ctx context.Context, broken <-chan struct{}) error {
	now := time.Now()
	p.mu.Lock()
	p.adjust(now)
	turn := p.limiter.ReserveN(now, 1)
	p.mu.Unlock()
	delay := turn.DelayFrom(now)
	if deadline, ok := ctx.Deadline(); ok && !now.Add(delay).Before(deadline) {
		turn.CancelAt(now)
		return ErrOverRate
	}
	if delay == 0 {
		return nil
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		turn.Cancel()
		return ctx.Err()
	case <-broken:
		turn.Cancel()
		return ErrBreakerOpen
	}
}
