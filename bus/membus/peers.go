package membus

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// peers reaches the other attachments of a stream. Both sides must be connected
// and the other one must follow.
type peers struct{ b *Bus }

var _ bus.Peers = peers{}

// Ping implements bus.Peers.
func (p peers) Ping(ctx context.Context, process string) (time.Duration, error) {
	_, follower, err := p.find(ctx, process)
	if err != nil {
		return 0, err
	}
	return follower.Clock(), nil
}

// Barrier implements bus.Peers.
func (p peers) Barrier(ctx context.Context, process string) (bus.Ack, int, error) {
	other, _, err := p.find(ctx, process)
	if err != nil {
		return bus.Ack{}, 0, err
	}
	return other.barriers.Serve(ctx)
}

func (p peers) find(ctx context.Context, process string) (*Bus, *bus.Follower, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if !p.b.feed.connected() {
		return nil, nil, errAway
	}
	p.b.stream.mu.Lock()
	var other *Bus
	for b := range p.b.stream.attached {
		if b.process == process {
			other = b
		}
	}
	p.b.stream.mu.Unlock()
	if other != nil && other.feed.connected() {
		if f := other.following(); f != nil {
			return other, f, nil
		}
	}
	return nil, nil, fmt.Errorf("membus: process %s does not answer", process)
}

// Barrier implements bus.Bus.
func (b *Bus) Barrier(ctx context.Context) (bus.Position, error) { return b.barriers.Do(ctx) }

// publishPulse publishes one pulse without a role.
func (b *Bus) publishPulse(ctx context.Context) (bus.Ack, error) {
	e := bus.Event{Op: bus.OpPulse}
	if f := b.following(); f != nil {
		e = f.Pulse()
	}
	data, err := bus.Encode(e)
	if err != nil {
		return bus.Ack{}, err
	}
	a := bus.Ack{MsgID: rand.Text()}
	p, err := b.publish(ctx, b.stream.subjects.Pulse(), a.MsgID, data)
	if err != nil {
		return bus.Ack{}, err
	}
	a.Seq = p.Seq
	return a, nil
}

// applied waits until the follower has applied what was acknowledged.
func (b *Bus) applied(ctx context.Context, a bus.Ack) (bus.Position, error) {
	return b.position(ctx, b.stream.position(a.Seq), a)
}

// tell has the follower expect a. One too far behind to be told matches its log.
func (b *Bus) tell(a bus.Ack) {
	if !b.acks.Tell(a) {
		b.feed.disturb()
	}
}

// pulser names the process that others hold for the pulser.
func (b *Bus) pulser() string {
	if f := b.following(); f != nil {
		return f.Pulser()
	}
	return ""
}

// following returns the follower, nil before Follow.
func (b *Bus) following() *bus.Follower {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.follower
}
