package eventbench

import (
	"bufio"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

const (
	delRounds = 5
	delTakes  = time.Second // a round of one arm
)

// BenchmarkDels is how many DELs a second so many clients of one sidecar get done, each
// with a connection of its own and without pipelining. Beside it the stream's own pace:
// as many events, acknowledged, by a bare publisher that has as many in flight as there
// are clients.
func BenchmarkDels(b *testing.B) {
	for _, clients := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			s := startBroker(b)
			side := sidecartest.Start(b, s.open(b), nil)
			bare := bareInFlight(b, s.domain(b, "bare"), clients)
			var dels, acks []float64
			for b.Loop() {
				for range delRounds {
					acks = append(acks, bare())
					dels = append(dels, delsOf(b, side.Socket, clients))
				}
			}
			b.ReportMetric(median(acks), "bare/s")
			b.ReportMetric(median(dels), "dels/s")
			b.ReportMetric(ratio(dels, acks), "ratio")
		})
	}
}

// bareInFlight returns what publishes for a round, and the events acknowledged a second.
func bareInFlight(b *testing.B, s broker, inFlight int) func() float64 {
	_ = s.open(b)
	js, err := jetstream.New(s.dial(b), jetstream.WithPublishAsyncMaxPending(inFlight))
	require.NoError(b, err)
	_, err = js.CreateOrUpdateStream(b.Context(), jetstream.StreamConfig{
		Name: s.subjects.Stream(), Subjects: []string{s.subjects.All()}, AllowDirect: true,
		RePublish: &jetstream.RePublish{Source: s.subjects.All(), Destination: s.subjects.Live()},
	})
	require.NoError(b, err)
	subject, err := s.subjects.Event("ns")
	require.NoError(b, err)
	return func() float64 {
		n, began := 0, time.Now()
		for ; time.Since(began) < delTakes; n++ {
			_, err := js.PublishAsync(subject, event(uint64(n)), jetstream.WithMsgID(fmt.Sprint(began.UnixNano(), n)), jetstream.WithStallWait(patience))
			require.NoError(b, err)
		}
		<-js.PublishAsyncComplete()
		return float64(n) / time.Since(began).Seconds()
	}
}

func delsOf(b *testing.B, socket string, clients int) float64 {
	var all sync.WaitGroup
	var n atomic.Int64
	began := time.Now()
	for i := range clients {
		conn, err := net.Dial("unix", socket)
		require.NoError(b, err)
		all.Go(func() {
			defer conn.Close()
			answers := bufio.NewReader(conn)
			for j := 0; time.Since(began) < delTakes; j++ {
				key := fmt.Sprintf("ns:%03d:%06d", i, j%1000)
				_, err := fmt.Fprintf(conn, "*2\r\n$3\r\nDEL\r\n$%d\r\n%s\r\n", len(key), key)
				line, failed := answers.ReadString('\n')
				if err != nil || failed != nil || line[0] != ':' {
					b.Errorf("DEL: %v, %v, %q", err, failed, line)
					return
				}
				n.Add(1)
			}
		})
	}
	all.Wait()
	return float64(n.Load()) / time.Since(began).Seconds()
}
