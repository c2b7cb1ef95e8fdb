package loader

import (
	"context"
	"sync/atomic"

	"github.com/nearside-cache/nearside/sidecar/policy"
)

// gate is what a request must pass on its way to the origin: the breaker, the
// bound on what is under way, the rate.
type gate struct {
	breaker *breaker
	pace    *pace
	slots   chan struct{} // one for each request under way
	line    atomic.Int64  // under way or waiting
	room    int64         // for so many
}

func newGate(p policy.Loader, b *breaker, r *pace) *gate {
	return &gate{breaker: b, pace: r, slots: make(chan struct{}, p.Concurrency), room: int64(p.Concurrency + p.Queue)}
}

// pass waits for leave to send one request. leave must then be called with what
// the breaker is to be told. Nobody waits behind an open breaker: when it opens,
// all who wait are turned away.
func (g *gate) pass(ctx context.Context) (leave func(error), err error) {
	open, broken := g.breaker.open()
	if open {
		return nil, ErrBreakerOpen
	}
	if g.line.Add(1) > g.room {
		g.line.Add(-1)
		return nil, ErrQueueFull
	}
	select {
	case g.slots <- struct{}{}:
	case <-ctx.Done():
		g.line.Add(-1)
		return nil, ctx.Err()
	case <-broken:
		g.line.Add(-1)
		return nil, ErrBreakerOpen
	}
	free := func() {
		<-g.slots
		g.line.Add(-1)
	}
	// Leave comes before the turn: while the origin is tried, those beyond the
	// probes use up nothing of the rate.
	done, err := g.breaker.allow()
	if err != nil {
		free()
		return nil, err
	}
	if err := g.pace.wait(ctx, broken); err != nil {
		done(errNeutral)
		free()
		return nil, err
	}
	return func(err error) {
		done(err)
		free()
	}, nil
}

// underWay and waiting count requests.
func (g *gate) underWay() int { return len(g.slots) }
func (g *gate) waiting() int  { return max(0, int(g.line.Load())-len(g.slots)) }
