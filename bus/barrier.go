package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// askWait is how long the pulser is given to answer a barrier (B6).
const askWait = 50 * time.Millisecond

var errBarriersClosed = errors.New("bus: closed")

// Peers reaches the other processes of the domain. It is safe for concurrent
// use. An error says that there was no answer.
type Peers interface {
	// Ping returns what the process's clock shows at some moment between the
	// call and its return: the clock of its pulses (B5).
	Ping(ctx context.Context, process string) (time.Duration, error)
	// Barrier has the process publish a pulse after the call, shared with others
	// who ask (Barriers.Serve), and returns its acknowledgement.
	Barrier(ctx context.Context, process string) (Ack, error)
}

// BarriersConfig says how Barriers reaches the stream.
type BarriersConfig struct {
	// Pulser names the process to ask; empty: nobody, or ourselves.
	Pulser func() string
	// Peers asks it; nil: nobody can be asked.
	Peers Peers
	// Publish publishes one pulse without a role, stamped within the call, until
	// it is acknowledged or ctx ends. It tells the Follower what to expect.
	Publish func(ctx context.Context) (Ack, error)
}

// Barriers shares pulses among those who need one published after they asked
// (B6): all callers of a process share one question at a time, and all
// processes that ask the pulser share one pulse at a time. It is safe for
// concurrent use.
type Barriers struct {
	config BarriersConfig
	stop   context.CancelFunc
	asks   batcher // of this process's callers
	pulses batcher // of everybody's
}

// NewBarriers returns Barriers that must be closed.
func NewBarriers(c BarriersConfig) *Barriers {
	ctx, stop := context.WithCancel(context.Background())
	b := &Barriers{config: c, stop: stop}
	b.asks = batcher{life: ctx, run: b.ask}
	b.pulses = batcher{life: ctx, run: c.Publish}
	return b
}

// Do returns the acknowledgement of a pulse that was published after the call:
// everything acknowledged before the call is below it. When ctx ends first, it
// returns an error that wraps ErrNotAcknowledged.
func (b *Barriers) Do(ctx context.Context) (Ack, error) { return b.asks.join(ctx) }

// Serve is Do for another process that asked this one: it asks nobody.
func (b *Barriers) Serve(ctx context.Context) (Ack, error) { return b.pulses.join(ctx) }

// Close ends all that waits, and returns when nothing of it runs any more. It
// may be called more than once.
func (b *Barriers) Close() {
	b.stop()
	b.asks.close()
	b.pulses.close()
}

// ask asks the pulser, and publishes a pulse itself where that fails.
func (b *Barriers) ask(ctx context.Context) (Ack, error) {
	if process := b.config.Pulser(); process != "" && b.config.Peers != nil {
		try, cancel := context.WithTimeout(ctx, askWait)
		ack, err := b.config.Peers.Barrier(try, process)
		cancel()
		if err == nil {
			return ack, nil
		}
	}
	return b.pulses.join(ctx)
}

// batcher calls run for many at a time, one call after the other. Whoever
// arrives while a call is under way shares the next: a batch is closed before
// its call begins.
type batcher struct {
	life  context.Context // of all batches
	run   func(context.Context) (Ack, error)
	group sync.WaitGroup

	mu     sync.Mutex
	next   *callBatch // takes those who arrive; nil = none yet
	busy   bool       // work runs
	closed bool
}

// callBatch is one call and those who wait for it.
type callBatch struct {
	ctx     context.Context // ends when nobody waits any more
	cancel  context.CancelFunc
	waiting int
	done    chan struct{} // closed once ack and err are set
	ack     Ack
	err     error
}

func (b *batcher) join(ctx context.Context) (Ack, error) {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return Ack{}, fmt.Errorf("barrier: %w: %w", ErrNotAcknowledged, errBarriersClosed)
	}
	if b.next == nil {
		b.next = &callBatch{done: make(chan struct{})}
		b.next.ctx, b.next.cancel = context.WithCancel(b.life)
	}
	mine := b.next
	mine.waiting++
	if !b.busy {
		b.busy = true
		b.group.Go(b.work)
	}
	b.mu.Unlock()
	select {
	case <-mine.done:
		return mine.ack, mine.err
	case <-ctx.Done():
		b.leave(mine)
		return Ack{}, fmt.Errorf("barrier: %w: %w", ErrNotAcknowledged, context.Cause(ctx))
	}
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

// work runs batches until there is none.
func (b *batcher) work() {
	for batch := b.take(); batch != nil; batch = b.take() {
		batch.ack, batch.err = b.run(batch.ctx)
		batch.cancel()
		close(batch.done)
	}
}

// take closes the next batch and returns it, nil when nobody waits for one.
func (b *batcher) take() *callBatch {
	b.mu.Lock()
	defer b.mu.Unlock()
	batch := b.next
	b.next = nil
	if batch != nil && batch.waiting == 0 {
		batch.cancel()
		batch = nil
	}
	b.busy = batch != nil
	return batch
}

func (b *batcher) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.group.Wait()
}
