package bus

import (
	"context"
	"errors"
	"sync/atomic"
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
	// who ask (Barriers.Serve), and returns its acknowledgement and how many
	// processes shared it, this one included.
	Barrier(ctx context.Context, process string) (ack Ack, shared int, err error)
}

// BarriersConfig says how Barriers reaches the stream. All but Peers is required.
type BarriersConfig struct {
	// Process is the id of this process in its pulses.
	Process string
	// Pulser names the process to ask; empty: nobody, or ourselves.
	Pulser func() string
	// Peers asks it; nil: nobody can be asked.
	Peers Peers
	// Publish publishes one pulse without a role, stamped within the call, until
	// it is acknowledged or ctx ends. There is one call at a time.
	Publish func(ctx context.Context) (Ack, error)
	// Applied waits until what was acknowledged was applied here, or ctx ends;
	// see Acks.Position.
	Applied func(ctx context.Context, ack Ack) (Position, error)
	// Tell has the Follower expect an acknowledged pulse that nobody here waits
	// for.
	Tell func(ack Ack)
}

// Barriers shares pulses among those who need one published after they asked
// (B6). All callers of a process share one pulse at a time. Processes publish
// pulses of their own while few are needed in the domain, and else share those of
// the pulser, whom they ask (ADR 0007). It is safe for concurrent use.
type Barriers struct {
	config BarriersConfig
	stop   context.CancelFunc
	asks   batcher // of this process's callers: the pulser's pulses
	pulses batcher // of everybody's callers: our own
	others demand

	newest atomic.Pointer[appliedPulse]
}

// appliedPulse is a barrier or start pulse that the handler has applied.
type appliedPulse struct {
	id string
	at Position
}

// NewBarriers returns Barriers that must be closed.
func NewBarriers(c BarriersConfig) *Barriers {
	ctx, stop := context.WithCancel(context.Background())
	b := &Barriers{config: c, stop: stop}
	b.asks = batcher{life: ctx, run: b.ask, applied: b.applied, tell: c.Tell}
	b.pulses = batcher{life: ctx, run: b.publish, applied: b.applied, tell: c.Tell}
	return b
}

// Watch returns a Handler that h is behind, and from which Barriers learns what
// goes on in the stream. The Follower is to be given it. It is a BatchHandler if h is.
func (b *Barriers) Watch(h Handler) Handler {
	if all, ok := h.(BatchHandler); ok {
		return watchedAll{all, b}
	}
	return watched{h, b}
}

type watched struct {
	Handler
	barriers *Barriers
}

func (w watched) Apply(d Delivery) {
	w.Handler.Apply(d)
	w.barriers.heard(&d)
}

type watchedAll struct {
	BatchHandler
	barriers *Barriers
}

func (w watchedAll) ApplyAll(ds []Delivery) {
	w.BatchHandler.ApplyAll(ds)
	for i := range ds {
		w.barriers.heard(&ds[i])
	}
}

// heard is told what the handler has applied.
func (b *Barriers) heard(d *Delivery) {
	if p := &d.Event.Pulse; d.Event.Op == OpPulse && d.Err == nil && !p.Role {
		b.newest.Store(&appliedPulse{id: d.Event.ID, at: d.Position})
		if p.Process != b.config.Process {
			b.others.add(1, time.Now())
		}
	}
}

// Do returns the position of a pulse that was published after the call, once it
// is applied here: everything acknowledged before the call is below it. Errors are
// those of Publish and Applied; when ctx ends before the acknowledgement, they
// wrap ErrNotAcknowledged.
func (b *Barriers) Do(ctx context.Context) (Position, error) {
	by := &b.pulses
	if b.config.Peers != nil && b.config.Pulser() != "" && b.others.high(time.Now()) {
		by = &b.asks
	}
	batch, err := by.join(ctx, true)
	if err != nil {
		return Position{}, err
	}
	return batch.position, batch.err
}

// Serve is Do for another process that asked this one: it asks nobody, and returns
// when the pulse is acknowledged. shared is how many processes share it.
func (b *Barriers) Serve(ctx context.Context) (ack Ack, shared int, err error) {
	batch, err := b.pulses.join(ctx, false)
	if err != nil {
		return Ack{}, 0, err
	}
	return batch.ack, batch.shared, batch.refused
}

// Close ends all that waits, and returns when nothing of it runs any more. It
// may be called more than once.
func (b *Barriers) Close() {
	b.stop()
	b.asks.close()
	b.pulses.close()
}

func (b *Barriers) publish(ctx context.Context, processes int) (Ack, int, error) {
	ack, err := b.config.Publish(ctx)
	return ack, processes, err
}

// ask asks the pulser, and publishes a pulse itself where that fails.
func (b *Barriers) ask(ctx context.Context, _ int) (Ack, int, error) {
	if process := b.config.Pulser(); process != "" {
		try, cancel := context.WithTimeout(ctx, askWait)
		ack, shared, err := b.config.Peers.Barrier(try, process)
		cancel()
		if err == nil {
			// It stands for one pulse of each of the others, and is, or will be, taken
			// for one of another's when it is applied.
			b.others.add(max(shared, 1)-2, time.Now())
			return ack, shared, nil
		}
	}
	return b.Serve(ctx)
}

// applied waits until ack is applied here. Most often it is by now, because the
// stream hands a message out before it acknowledges it; and a message of that id
// at that seq is that very pulse (B3).
func (b *Barriers) applied(ctx context.Context, ack Ack) (Position, error) {
	if p := b.newest.Load(); p != nil && p.id == ack.MsgID && p.at.Seq == ack.Seq {
		return p.at, nil
	}
	return b.config.Applied(ctx, ack)
}
