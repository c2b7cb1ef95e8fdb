package natsbus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/nearside-cache/nearside/bus"
)

const (
	// flushTimeout bounds one wait for the server to confirm the subscription.
	flushTimeout = 2 * time.Second
)

// errTwice says that Follow was called a second time.
var errTwice = errors.New("natsbus: Follow may be called once")

// Follow implements bus.Bus.
func (b *Bus) Follow(ctx context.Context, h bus.Handler, c bus.FollowConfig) error {
	ctx, done, err := b.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	if !b.followed.CompareAndSwap(false, true) {
		return errTwice
	}
	f, err := bus.NewFollower(bus.FollowerConfig{
		Subjects:  b.config.Stream.Subjects,
		Log:       b.stream,
		Handler:   b.barriers.Watch(h),
		Follow:    c,
		Process:   b.config.Process,
		Monotonic: b.config.Monotonic,
	})
	if err != nil {
		return fmt.Errorf("natsbus: follow: %w", err)
	}
	live, ask := b.config.Stream.Subjects.Live(), b.config.Stream.Subjects.Ask(b.config.Process)
	ctx, stop := b.waits.subscription(ctx, live, ask)
	defer stop()
	driver := bus.NewDriver(f, bus.Feed{
		Disturbed: b.disturbed, Acked: b.acks.Queue(), Peers: b.peers(), Failed: b.retried,
	})
	unsubscribe, err := b.subscribe(ctx, live, driver.Receive)
	if err != nil {
		return err
	}
	defer unsubscribe()
	b.follower.Store(f)
	silence, err := b.answer(ask, f)
	if err != nil {
		return err
	}
	defer silence()
	defer b.acks.Following()()
	if b.flush(ctx) {
		err = driver.Run(ctx)
	}
	if why := context.Cause(ctx); errors.Is(why, ErrDenied) || errors.Is(why, ErrClosed) {
		return why
	}
	return err
}

// retried logs a failure of the follower, which goes on trying.
func (b *Bus) retried(err error) {
	b.trouble.Do(func() { b.log.Warn("cannot follow the stream at the moment, trying again", "error", err) })
}

// subscribe takes the republished events (B1). The subscription's queue is
// bounded in events and bytes; what it drops is noticed by its counter.
func (b *Bus) subscribe(ctx context.Context, live string, take func([]bus.Message)) (unsubscribe func(), err error) {
	ended := make(chan struct{})
	sub, err := b.nc.Subscribe(live, b.receiver(ctx, take))
	if err != nil {
		return nil, fmt.Errorf("natsbus: subscribe %s: %w", live, err)
	}
	sub.SetClosedHandler(func(string) { close(ended) })
	// What leads the stream is worth knowing (B3), but not being told is no
	// fault: the permission for it is rarely given.
	elected := "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED." + b.config.Stream.Subjects.Stream()
	advisories, failed := b.nc.Subscribe(elected, func(*nats.Msg) { signal(b.disturbed) })
	unsubscribe = func() {
		if advisories != nil {
			_ = advisories.Unsubscribe() // fails only when the connection is closed
		}
		_ = sub.Unsubscribe() // as above
		<-ended
	}
	if err := errors.Join(failed, sub.SetPendingLimits(b.config.LiveBuffer, liveBufferBytes)); err != nil {
		unsubscribe()
		return nil, fmt.Errorf("natsbus: subscribe %s: %w", live, err)
	}
	return unsubscribe, nil
}

// receiver returns the callback of the live subscription. It hands over what lies ready
// together; the rest is in the subscription's queue.
func (b *Bus) receiver(ctx context.Context, take func([]bus.Message)) nats.MsgHandler {
	name, dropped := b.config.Stream.Subjects.Stream(), 0
	ready := make([]bus.Message, 0, bus.ReadyMax)
	return func(msg *nats.Msg) {
		if n, err := msg.Sub.Dropped(); err == nil && n != dropped {
			dropped = n
			signal(b.disturbed)
		}
		ready = b.accept(ready, msg, name)
		// The message that this call is for counts as pending still.
		waiting, _, err := msg.Sub.Pending()
		if len(ready) == 0 || len(ready) < bus.ReadyMax && err == nil && waiting > 1 {
			return
		}
		if ctx.Err() == nil {
			take(ready)
		}
		clear(ready)
		ready = ready[:0]
	}
}

// accept appends what msg is, of the stream of this name, to ready.
func (b *Bus) accept(ready []bus.Message, msg *nats.Msg, name string) []bus.Message {
	m, err := parse(msg)
	if stream := last(msg.Header, headerStream); err == nil && stream != name {
		err = fmt.Errorf("natsbus: it is of stream %.64q", stream)
	}
	switch {
	case err != nil:
		// Nobody but the server may publish here, so this is either a forgery or
		// an event with broken headers. The former is nothing; the latter leaves
		// a gap, which is found like any other.
		n := b.foreigns.Add(1)
		b.foreign.Do(func() {
			b.log.Warn("ignored a message on the live subjects that is not the stream's: only the server may have permission to publish there", "subject", msg.Subject, "error", err, "total", n)
		})
		return ready
	case b.config.tap != nil:
		return append(ready, b.config.tap(m)...)
	default:
		return append(ready, m)
	}
}

// flush waits until the server knows the subscription, so that nothing stored
// from then on is missed. It returns false when ctx ends first.
func (b *Bus) flush(ctx context.Context) bool {
	for ctx.Err() == nil {
		try, cancel := context.WithTimeout(ctx, flushTimeout)
		err := b.nc.FlushWithContext(try)
		cancel()
		if err == nil {
			return true
		}
		select {
		case <-b.connects:
		case <-ctx.Done():
		case <-time.After(flushTimeout):
		}
	}
	return false
}
