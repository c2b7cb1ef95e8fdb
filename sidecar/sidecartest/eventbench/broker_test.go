package eventbench

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/embedded"
	"github.com/nearside-cache/nearside/bus/natsbus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/clock"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// patience is how long anything may take.
const patience = 30 * time.Second

// broker is a server in this process that listens on loopback.
type broker struct {
	url      string
	subjects bus.Subjects
}

func startBroker(b *testing.B) broker {
	srv, err := embedded.Start(embedded.Config{Dir: b.TempDir(), Listen: "127.0.0.1:0"})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, srv.Close()) })
	return broker{url: srv.URL()}.domain(b, "bench")
}

// domain is the same server with another stream.
func (s broker) domain(b *testing.B, name string) broker {
	subjects, err := bus.NewSubjects(name)
	require.NoError(b, err)
	return broker{s.url, subjects}
}

func (s broker) dial(b *testing.B) *nats.Conn {
	nc, err := nats.Connect(s.url)
	require.NoError(b, err)
	b.Cleanup(nc.Close)
	return nc
}

func (s broker) open(b *testing.B) *natsbus.Bus {
	nb, err := natsbus.Open(b.Context(), natsbus.Config{URL: s.url, Stream: natsbus.StreamConfig{Subjects: s.subjects}, CreateStream: true})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, nb.Close()) })
	return nb
}

// tapped is a bus that tells seen of what its cache has applied.
type tapped struct {
	bus.Bus
	seen   func(ds []bus.Delivery)
	pulses time.Duration // as in bus.FollowConfig
}

func (t tapped) Follow(ctx context.Context, h bus.Handler, c bus.FollowConfig) error {
	c.PulseInterval = t.pulses
	return t.Bus.Follow(ctx, tap{h.(bus.BatchHandler), t.seen}, c)
}

type tap struct {
	bus.BatchHandler
	seen func(ds []bus.Delivery)
}

func (t tap) ApplyAll(ds []bus.Delivery) {
	t.BatchHandler.ApplyAll(ds)
	t.seen(ds)
}

// follow starts a cache on b's broker that follows until the benchmark ends.
func follow(b *testing.B, on bus.Bus, memory int64) *cache.Cache {
	c, err := cache.New(cache.Config{
		Memory: memory, MaxValue: 4 << 10, Policies: policy.DefaultSet(), Bus: on,
		Clock: clock.Boot(), PublishTimeout: patience, FirstLife: true,
		Metrics: cache.NewMetrics(prometheus.NewRegistry()), Logger: hclog.NewNullLogger(),
	})
	require.NoError(b, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Follow(ctx) }()
	b.Cleanup(func() {
		stop()
		require.NoError(b, <-ended)
		require.NoError(b, c.Close())
	})
	select {
	case <-c.Ready():
	case <-time.After(patience):
		b.Fatal("the cache does not follow its stream")
	}
	return c
}

// wire is a connection that publishes what is rendered before, so that publishing
// takes as little of the machine as can be.
type wire struct{ net.Conn }

func (s broker) wire(b *testing.B) wire {
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "nats://"))
	require.NoError(b, err)
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(io.Discard, conn) // until it is closed
	}()
	b.Cleanup(func() {
		require.NoError(b, conn.Close())
		<-read
	})
	_, err = conn.Write([]byte("CONNECT {\"verbose\":false,\"headers\":true}\r\n"))
	require.NoError(b, err)
	return wire{conn}
}

// live renders the message at seq as the server republishes it, on subject.
func (s broker) live(dst []byte, subject string, seq uint64, data []byte) []byte {
	stored, err := s.subjects.Event("ns")
	if err != nil {
		panic(err)
	}
	head := fmt.Sprintf("NATS/1.0\r\nNats-Msg-Id: K3VMGC7PZQ5T2XJ6B4WYR%05d\r\nNats-Expected-Stream: %s\r\n"+
		"Nats-Stream: %[2]s\r\nNats-Subject: %s\r\nNats-Sequence: %d\r\nNats-Time-Stamp: %s\r\nNats-Last-Sequence: %d\r\n\r\n",
		seq%100_000, s.subjects.Stream(), stored, seq, time.Now().UTC().Format(time.RFC3339Nano), seq-1)
	dst = fmt.Appendf(dst, "HPUB %s %d %d\r\n%s", subject, len(head), len(head)+len(data), head)
	return append(append(dst, data...), "\r\n"...)
}

// event is an invalidation of one of 10,000 keys.
func event(n uint64) []byte {
	data, err := bus.Encode(bus.Event{Keys: []bus.KeyVersion{{Key: fmt.Sprintf("ns:%08d", n%10_000), Version: n}}, Time: time.Now()})
	if err != nil {
		panic(err)
	}
	return data
}

func quantile(times []time.Duration, q float64) time.Duration {
	slices.Sort(times)
	return times[min(int(q*float64(len(times))), len(times)-1)]
}

func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	return values[len(values)/2]
}

// ratio is the median of those of each round.
func ratio(of, to []float64) float64 {
	all := make([]float64, len(of))
	for i := range of {
		all[i] = of[i] / to[i]
	}
	return median(all)
}

// spent is the processor time of this process so far, in and outside the kernel.
func spent(b *testing.B) time.Duration {
	var u unix.Rusage
	require.NoError(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
