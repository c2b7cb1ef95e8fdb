// Package natsbus is the bus on NATS JetStream. The stream is the order; its
// messages are republished by the server and taken from one core subscription
// (B1), and whatever that loses is read from the stream (B2). There is no
// consumer anywhere (B9).
package natsbus

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/time/rate"

	"github.com/nearside-cache/nearside/bus"
)

// ErrClosed says that the bus was closed.
var ErrClosed = errors.New("natsbus: closed")

const (
	// logEvery is how often one kind of trouble that others can cause is logged.
	logEvery = 10 * time.Second
)

// Bus is one attachment to a domain's stream. See bus.Bus.
type Bus struct {
	config  Config
	log     hclog.Logger
	nc      *nats.Conn
	stream  *streamLog
	waits   *waits
	attempt *attempt

	disturbed chan struct{} // capacity 1
	connects  chan struct{} // capacity 1: connected, again or for the first time
	acks      *bus.Acks
	barriers  *bus.Barriers
	follower  atomic.Pointer[bus.Follower]
	followed  atomic.Bool   // Follow was called
	serving   chan struct{} // bounds the barriers that others wait for
	pulseAcks ackInbox      // of publishPulse

	stop   context.CancelCauseFunc // ends every Publish and Follow
	ctx    context.Context
	calls  sync.WaitGroup // Follows and Publishes under way
	closed chan struct{}  // the connection's last callback has run
	mu     sync.Mutex     // guards calls against Close

	foreign, errs, trouble rate.Sometimes // one line each, now and then
	foreigns               atomic.Uint64
}

var _ bus.Bus = (*Bus)(nil)

// Open attaches to the broker. It returns when the first attempt to connect is
// over, whether that succeeded or not; the bus goes on trying for as long as it
// is open. Errors are those of the configuration.
func Open(ctx context.Context, c Config) (*Bus, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("natsbus: open: %w", err)
	}
	if err := c.complete(); err != nil {
		return nil, err
	}
	opts, err := c.options()
	if err != nil {
		return nil, err
	}
	b := &Bus{
		config:    c,
		log:       c.Logger,
		disturbed: make(chan struct{}, 1),
		connects:  make(chan struct{}, 1),
		acks:      bus.NewAcks(),
		serving:   make(chan struct{}, maxServed),
		closed:    make(chan struct{}),
		attempt:   newAttempt(),
		foreign:   rate.Sometimes{First: 1, Interval: logEvery},
		errs:      rate.Sometimes{First: 1, Interval: logEvery},
		trouble:   rate.Sometimes{First: 1, Interval: logEvery},
	}
	prefix := c.InboxPrefix
	if prefix == "" {
		prefix = nats.InboxPrefix[:len(nats.InboxPrefix)-1] // without its dot
	}
	b.waits = newWaits(prefix)
	b.ctx, b.stop = context.WithCancelCause(context.Background())
	if b.nc, err = nats.Connect(c.URL, append(opts, b.handlers()...)...); err != nil {
		return nil, fmt.Errorf("natsbus: connect: %w", err)
	}
	if b.stream, err = newStreamLog(b.nc, c, b.waits, b.attempt); err != nil {
		b.nc.Close()
		return nil, err
	}
	b.barriers = bus.NewBarriers(bus.BarriersConfig{
		Process: c.Process, Pulser: b.pulser, Peers: b.peers(), Publish: b.publishPulse, Applied: b.position, Tell: b.tell,
	})
	return b, nil
}

func newStreamLog(nc *nats.Conn, c Config, w *waits, a *attempt) (*streamLog, error) {
	api, opened := "$JS.API.", jetstream.New
	if c.JetStreamDomain != "" {
		api = "$JS." + c.JetStreamDomain + ".API."
		opened = func(nc *nats.Conn, opts ...jetstream.JetStreamOpt) (jetstream.JetStream, error) {
			return jetstream.NewWithDomain(nc, c.JetStreamDomain, opts...)
		}
	}
	js, err := opened(nc)
	if err != nil {
		return nil, fmt.Errorf("natsbus: JetStream domain %q: %w", c.JetStreamDomain, err)
	}
	return &streamLog{nc: nc, js: js, api: api, stream: c.Stream, create: c.CreateStream, waits: w, attempt: a}, nil
}

// handlers turns what happens to the connection into Disturbed and log lines.
func (b *Bus) handlers() []nats.Option {
	up := func(nc *nats.Conn) {
		b.attempt.ended(nil)
		b.log.Info("connected to NATS", "server", nc.ConnectedUrlRedacted())
		signal(b.disturbed)
		signal(b.connects)
	}
	return []nats.Option{
		nats.ConnectHandler(up),
		nats.ReconnectHandler(up),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			b.attempt.ended(cmp.Or(err, nats.ErrDisconnected))
			b.waits.disconnected()
			if b.ctx.Err() == nil {
				b.log.Warn("disconnected from NATS, trying again", "error", err)
			}
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			b.attempt.ended(err)
			b.errs.Do(func() { b.log.Warn("cannot connect to NATS, trying again", "error", err) })
		}),
		nats.ErrorHandler(b.failed),
		nats.ClosedHandler(func(*nats.Conn) { close(b.closed) }),
	}
}

// failed takes what the connection cannot report to any one caller.
func (b *Bus) failed(_ *nats.Conn, _ *nats.Subscription, err error) {
	b.waits.report(err)
	if errors.Is(err, nats.ErrSlowConsumer) {
		signal(b.disturbed)
	}
	b.errs.Do(func() { b.log.Warn("NATS reported an error", "error", err) })
}

// signal sends without blocking: one pending signal says it all.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// newID returns 128 random bits as text, for message ids and processes.
func newID() string { return rand.Text() }

// begin registers a call, so that Close waits for it. Its context ends with the
// caller's and with the bus.
func (b *Bus) begin(ctx context.Context) (_ context.Context, done func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx.Err() != nil {
		return nil, nil, ErrClosed
	}
	b.calls.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(b.ctx, func() { cancel(ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
		b.calls.Done()
	}, nil
}

// Log returns the stream as a bus.Log, for tools.
func (b *Bus) Log() bus.Log { return b.stream }

// Status implements bus.Bus.
func (b *Bus) Status() bus.Status {
	s := bus.Status{Connected: b.nc.IsConnected(), Stream: b.config.Stream.Subjects.Stream()}
	if s.Connected {
		s.Server = b.nc.ConnectedUrlRedacted()
	}
	if f := b.follower.Load(); f != nil {
		n := f.Stats()
		s.Gaps, s.Repairs, s.Matches, s.Doubts, s.Forks, s.Pulses = n.Gaps, n.Repairs, n.Matches, n.Doubts, n.Forks, n.Pulses
		s.Pulser = f.HoldsRole()
	}
	return s
}

// Close implements bus.Bus. It ends Follow and every Publish and returns when
// nothing of the bus runs any more.
func (b *Bus) Close() error {
	b.mu.Lock()
	b.stop(ErrClosed)
	b.mu.Unlock()
	b.barriers.Close()
	b.calls.Wait()
	b.nc.Close()
	<-b.closed
	return nil
}
