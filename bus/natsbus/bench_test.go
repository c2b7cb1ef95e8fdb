package natsbus_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/embedded"
	"github.com/nearside-cache/nearside/bus/natsbus"
)

// counter is a Handler that only counts, and tells when it has seen as many
// events as expected.
type counter struct {
	resumed chan struct{}
	seen    atomic.Int64
	expect  int64
	all     chan struct{}
	doubts  atomic.Int64
}

func newCounter(expect int) *counter {
	return &counter{resumed: make(chan struct{}, 16), expect: int64(expect), all: make(chan struct{}, 1)}
}

func (c *counter) Apply(d bus.Delivery) {
	if d.Event.Op != bus.OpPulse && c.seen.Add(1) == c.expect {
		c.all <- struct{}{}
	}
}
func (c *counter) Doubt(bus.Reason)  { c.doubts.Add(1) }
func (c *counter) Resume(bus.Resume) { c.resumed <- struct{}{} }

// newTCPBroker listens on loopback, as a broker of a fleet does.
func newTCPBroker(b *testing.B) (string, bus.Subjects) {
	srv, err := embedded.Start(embedded.Config{Dir: b.TempDir(), Listen: "127.0.0.1:0"})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, srv.Close()) })
	subjects, err := bus.NewSubjects("test")
	require.NoError(b, err)
	return srv.URL(), subjects
}

func dial(b *testing.B, url string) *nats.Conn {
	nc, err := nats.Connect(url)
	require.NoError(b, err)
	b.Cleanup(nc.Close)
	return nc
}

// BenchmarkPublishToApplied is the time from Publish until it has returned and
// the event was applied by the same sidecar, which is what a DEL takes.
func BenchmarkPublishToApplied(b *testing.B) {
	url, subjects := newTCPBroker(b)
	a, err := natsbus.Open(context.Background(), natsbus.Config{URL: url, Stream: natsbus.StreamConfig{Subjects: subjects}, CreateStream: true})
	require.NoError(b, err)
	defer func() { require.NoError(b, a.Close()) }()
	r, stop := follow(b, a)
	r.waitResumes(b, 1)
	for b.Loop() {
		p, err := a.Publish(context.Background(), "a", invalidate("a:1"))
		require.NoError(b, err)
		r.waitApplied(b, p.Seq)
	}
	require.NoError(b, stop())
}

// BenchmarkPubAck is the bare publish beside it.
func BenchmarkPubAck(b *testing.B) {
	url, subjects := newTCPBroker(b)
	js, err := jetstream.New(dial(b, url))
	require.NoError(b, err)
	_, _, err = natsbus.Ensure(context.Background(), js, natsbus.StreamConfig{Subjects: subjects})
	require.NoError(b, err)
	data, err := bus.Encode(invalidate("a:1"))
	require.NoError(b, err)
	for b.Loop() {
		_, err := js.Publish(context.Background(), "nearside.test.ev.a", data)
		require.NoError(b, err)
	}
}

// BenchmarkApply is how many events a sidecar applies, beside a bare core
// subscriber to the same republished messages. Both are fed in bursts by a
// publisher that does not wait for single acknowledgements.
func BenchmarkApply(b *testing.B) {
	const burst = 20_000
	for _, sidecar := range []bool{true, false} {
		b.Run(fmt.Sprintf("sidecar=%v", sidecar), func(b *testing.B) {
			url, subjects := newTCPBroker(b)
			nc := dial(b, url)
			js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(1024))
			require.NoError(b, err)
			_, _, err = natsbus.Ensure(context.Background(), js, natsbus.StreamConfig{Subjects: subjects})
			require.NoError(b, err)
			data, err := bus.Encode(invalidate("a:1"))
			require.NoError(b, err)
			c := newCounter(burst)
			if sidecar {
				a, err := natsbus.Open(context.Background(), natsbus.Config{URL: url, Stream: natsbus.StreamConfig{Subjects: subjects}})
				require.NoError(b, err)
				ctx, cancel := context.WithCancel(context.Background())
				ended := make(chan error, 1)
				go func() { ended <- a.Follow(ctx, c, bus.FollowConfig{}) }()
				<-c.resumed
				defer func() {
					cancel()
					require.NoError(b, <-ended)
					require.Zero(b, a.Status().Doubts)
					require.NoError(b, a.Close())
				}()
			} else {
				bare := dial(b, url)
				_, err := bare.Subscribe(subjects.Live(), func(*nats.Msg) { c.Apply(bus.Delivery{}) })
				require.NoError(b, err)
				require.NoError(b, bare.Flush())
			}
			began, total := time.Now(), 0
			for b.Loop() {
				c.seen.Store(0)
				for range burst {
					_, err := js.PublishAsync("nearside.test.ev.a", data, jetstream.WithStallWait(patience))
					require.NoError(b, err)
				}
				<-c.all
				total += burst
			}
			b.ReportMetric(float64(total)/time.Since(began).Seconds(), "events/s")
		})
	}
}
