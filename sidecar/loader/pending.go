package loader

import (
	"context"
	"time"
)

// Pending is a load that goes on by itself and that any number of readers may
// wait for. It is safe for concurrent use.
type Pending struct {
	origin *Origin // nil where nothing was begun
	done   chan struct{}
	result Result // when done is closed
	err    error  // when done is closed
}

// Begin begins a load that only the hard timeout and Close end.
func (o *Origin) Begin(r Request) *Pending {
	if !o.acquire() {
		return ended(o.wrap(ErrClosed))
	}
	return o.begin(r)
}

// begin does what Begin does, after acquire.
func (o *Origin) begin(r Request) *Pending {
	p := &Pending{origin: o, done: make(chan struct{})}
	go func() { // Close waits for calls
		defer o.calls.Done()
		p.result, p.err = o.load(context.Background(), r)
		close(p.done)
	}()
	return p
}

func ended(err error) *Pending {
	p := &Pending{done: make(chan struct{}), err: err}
	close(p.done)
	return p
}

// Done is closed when the load has ended.
func (p *Pending) Done() <-chan struct{} { return p.done }

// Result waits for the end of the load and returns what it brought, which all who
// ask share.
func (p *Pending) Result() (Result, error) {
	<-p.done
	return p.result, p.err
}

// Wait waits for the load as long as one reader should: until the soft timeout,
// counted from this call, which gives ErrSlow, or the end of ctx.
func (p *Pending) Wait(ctx context.Context) (Result, error) {
	select {
	case <-p.done:
		return p.result, p.err
	default:
	}
	soft := time.NewTimer(p.origin.policy.SoftTimeout)
	defer soft.Stop()
	select {
	case <-p.done:
		return p.result, p.err
	case <-ctx.Done():
		return Result{}, p.origin.wrap(ctx.Err())
	case <-soft.C:
		p.origin.counts.slow.Add(1)
		p.origin.meters.slow.Inc()
		return Result{}, p.origin.wrap(ErrSlow)
	}
}
