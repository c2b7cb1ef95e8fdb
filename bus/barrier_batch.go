package bus

import (
	"context"
	"fmt"
	"sync"
)

// batcher calls run for many at a time, one call after the other. Whoever
// arrives while a call is under way shares the next: a batch is closed before
// its call begins (B6). The next call does not wait until what the former one had
// acknowledged is applied.
type batcher struct {
	life    context.Context                                         // of all batches
	run     func(context.Context, int) (_ Ack, shared int, _ error) // for so many processes
	applied func(context.Context, Ack) (Position, error)
	tell    func(Ack)
	group   sync.WaitGroup // of calls

	mu     sync.Mutex
	next   *callBatch // takes those who arrive while busy; nil = none yet
	busy   bool       // run is being called
	closed bool
}

// callBatch is one call and those who wait for it.
type callBatch struct {
	ctx     context.Context // ends when nobody waits any more
	cancel  context.CancelFunc
	waiting int
	foreign int // processes other than this one whose callers are among them
	local   bool

	acked   chan struct{} // closed once the next three are set
	ack     Ack
	shared  int
	refused error

	done     chan struct{} // closed once these are set; they are for local callers
	position Position
	err      error
}

// join has a call begin after it, and returns its batch when it is done, for a
// caller of another process when it is acknowledged.
func (b *batcher) join(ctx context.Context, local bool) (*callBatch, error) {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil, fmt.Errorf("barrier: %w: %w", ErrNotAcknowledged, errBarriersClosed)
	}
	if !b.busy {
		return b.lead(ctx, local)
	}
	if b.next == nil {
		b.next = newBatch()
		b.next.ctx, b.next.cancel = context.WithCancel(b.life)
	}
	batch := b.next
	batch.add(local)
	b.mu.Unlock()
	over := batch.acked
	if local {
		over = batch.done
	}
	select {
	case <-over:
	case <-ctx.Done():
		b.leave(batch)
		return nil, batch.late(ctx)
	}
	if !local {
		b.leave(batch)
	}
	return batch, nil
}

// lead makes the call for the caller alone, who shares with nobody who arrived
// before: that spares changes of goroutine. It unlocks mu.
func (b *batcher) lead(ctx context.Context, local bool) (*callBatch, error) {
	b.busy = true
	b.group.Add(1)
	b.mu.Unlock()
	defer b.group.Done()
	batch := newBatch()
	batch.add(local)
	batch.ctx, batch.cancel = context.WithCancel(ctx)
	defer context.AfterFunc(b.life, batch.cancel)()
	b.call(batch)
	if batch.refused != nil && ctx.Err() != nil {
		return nil, batch.late(ctx)
	}
	return batch, nil
}

func newBatch() *callBatch {
	return &callBatch{acked: make(chan struct{}), done: make(chan struct{})}
}

func (c *callBatch) add(local bool) {
	c.waiting++
	if local {
		c.local = true
	} else {
		c.foreign++
	}
}

// processes is how many share the batch, which is closed.
func (c *callBatch) processes() int {
	if c.local {
		return c.foreign + 1
	}
	return c.foreign
}

// late is what a caller is told whose ctx ended first.
func (c *callBatch) late(ctx context.Context) error {
	select {
	case <-c.acked:
		if c.refused == nil {
			return fmt.Errorf("barrier: %w: seq %d: %w", ErrNotApplied, c.ack.Seq, context.Cause(ctx))
		}
	default:
	}
	return fmt.Errorf("barrier: %w: %w", ErrNotAcknowledged, context.Cause(ctx))
}

func (b *batcher) leave(batch *callBatch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	batch.waiting--
	// Those who arrive may still join the next batch: it is not to be ended.
	if batch.waiting == 0 && batch != b.next {
		batch.cancel()
	}
}

// call makes the call of a closed batch, and has that of the next one begin.
func (b *batcher) call(batch *callBatch) {
	defer batch.cancel()
	batch.ack, batch.shared, batch.refused = b.run(batch.ctx, batch.processes())
	close(batch.acked)
	b.callNext()
	switch {
	case batch.refused != nil:
		batch.err = batch.refused
	case batch.local:
		batch.position, batch.err = b.applied(batch.ctx, batch.ack)
	default:
		b.tell(batch.ack)
	}
	close(batch.done)
}

// callNext closes the next batch, if anybody waits for one.
func (b *batcher) callNext() {
	b.mu.Lock()
	defer b.mu.Unlock()
	batch := b.next
	b.next = nil
	if batch != nil && batch.waiting == 0 {
		batch.cancel()
		batch = nil
	}
	if b.busy = batch != nil; b.busy {
		b.group.Go(func() { b.call(batch) })
	}
}

func (b *batcher) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.group.Wait()
}
