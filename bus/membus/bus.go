package membus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// DefaultLiveBuffer is how many live messages an attachment buffers.
const DefaultLiveBuffer = 4096

// retryPause is between two tries of a publish.
const retryPause = 10 * time.Millisecond

var errClosed = errors.New("membus: closed")

// Options are those of one attachment; zero means the default.
type Options struct {
	LiveBuffer   int    // live messages that wait at most, before they overflow
	RepairLimit  uint64 // see bus.FollowerConfig
	HistoryLimit uint64 // see bus.FollowerConfig
}

// Bus is one attachment to a Stream.
type Bus struct {
	stream   *Stream
	options  Options
	feed     *feed
	acks     *bus.Acks
	barriers *bus.Barriers
	process  string
	closed   context.Context
	close    context.CancelFunc

	bucketFaults bucketFaults

	mu       sync.Mutex
	follower *bus.Follower
}

var _ bus.Bus = (*Bus)(nil)

// Attach returns a new attachment. Where the stream does not exist, it creates
// it.
func (s *Stream) Attach(o Options) *Bus {
	if o.LiveBuffer == 0 {
		o.LiveBuffer = DefaultLiveBuffer
	}
	b := &Bus{stream: s, options: o, feed: newFeed(o.LiveBuffer), acks: bus.NewAcks(), process: rand.Text()}
	b.closed, b.close = context.WithCancel(context.Background())
	b.barriers = bus.NewBarriers(bus.BarriersConfig{
		Process: b.process, Pulser: b.pulser, Peers: peers{b}, Publish: b.publishPulse, Applied: b.applied, Tell: b.tell,
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.exists {
		s.exists, s.store = true, newStore(1)
	}
	s.attached[b] = struct{}{}
	return b
}

// Publish implements bus.Bus. While it retries, its failures are those that the
// faults make.
func (b *Bus) Publish(ctx context.Context, namespace string, e bus.Event) (bus.Position, error) {
	subject, err := b.stream.subjects.For(namespace, e.Op)
	if err != nil {
		return bus.Position{}, err
	}
	data, err := bus.Encode(e)
	if err != nil {
		return bus.Position{}, err
	}
	id := e.ID
	if id == "" {
		id = rand.Text()
	}
	p, err := b.publish(ctx, subject, id, data)
	if err != nil {
		return bus.Position{}, err
	}
	return b.position(ctx, p, bus.Ack{Seq: p.Seq, MsgID: id})
}

// position completes an acknowledgement with the epoch: the follower's, or where
// none runs, p's.
func (b *Bus) position(ctx context.Context, p bus.Position, a bus.Ack) (bus.Position, error) {
	applied, err := b.acks.Position(ctx, a)
	if errors.Is(err, bus.ErrNotFollowing) {
		return p, nil
	}
	return applied, err
}

// publish tries until the message is acknowledged or ctx ends.
func (b *Bus) publish(ctx context.Context, subject, id string, data []byte) (bus.Position, error) {
	for {
		p, err := b.append(ctx, subject, id, data)
		if err == nil {
			return p, nil
		}
		select {
		case <-ctx.Done():
			return bus.Position{}, fmt.Errorf("publish on %s: %w: %w", subject, bus.ErrNotAcknowledged, err)
		case <-b.closed.Done():
			return bus.Position{}, fmt.Errorf("publish on %s: %w: %w", subject, bus.ErrNotAcknowledged, errClosed)
		case <-time.After(retryPause):
		}
	}
}

// append publishes once.
func (b *Bus) append(ctx context.Context, subject, id string, data []byte) (bus.Position, error) {
	if err := errors.Join(ctx.Err(), b.closed.Err()); err != nil {
		return bus.Position{}, err
	}
	return b.feed.publish(func() (bus.Position, error) { return b.stream.append(subject, id, data) })
}

// Follow implements bus.Bus.
func (b *Bus) Follow(ctx context.Context, h bus.Handler, c bus.FollowConfig) error {
	f, err := b.newFollower(h, c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.closed, cancel)()
	defer b.acks.Following()()
	b.feed.set(func(f *feed) { f.following = true })
	defer b.feed.set(func(f *feed) { f.following = false })
	return bus.Drive(ctx, f, bus.Feed{
		Messages: b.feed.messages, Disturbed: b.feed.disturbed, Acked: b.acks.Queue(), Peers: peers{b},
	})
}

func (b *Bus) newFollower(h bus.Handler, c bus.FollowConfig) (*bus.Follower, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.follower != nil {
		return nil, errors.New("membus: Follow was called before")
	}
	start := time.Now()
	f, err := bus.NewFollower(bus.FollowerConfig{
		Subjects: b.stream.subjects, Log: log{b}, Handler: b.barriers.Watch(h), Follow: c, Process: b.process,
		Monotonic:   func() time.Duration { return time.Since(start) },
		RepairLimit: b.options.RepairLimit, HistoryLimit: b.options.HistoryLimit,
	})
	b.follower = f
	return f, err
}

// Status implements bus.Bus.
func (b *Bus) Status() bus.Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := bus.Status{Stream: b.stream.subjects.Stream()}
	b.feed.set(func(f *feed) { s.Connected = !f.away && b.closed.Err() == nil })
	if s.Connected {
		s.Server = "memory"
	}
	if b.follower != nil {
		n := b.follower.Stats()
		s.Gaps, s.Repairs, s.Matches, s.Doubts, s.Forks, s.Pulses = n.Gaps, n.Repairs, n.Matches, n.Doubts, n.Forks, n.Pulses
		s.Pulser = b.follower.HoldsRole()
	}
	return s
}

// Close implements bus.Bus. A Follow that is under way returns.
func (b *Bus) Close() error {
	b.close()
	b.barriers.Close()
	b.stream.mu.Lock()
	defer b.stream.mu.Unlock()
	delete(b.stream.attached, b)
	return nil
}
