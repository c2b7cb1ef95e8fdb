package eventbench

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
)

// What BenchmarkReceive sends: the sender is at most ahead chunks ahead of the receiver,
// so that nothing is dropped.
const (
	receiveRounds = 7
	receiveChunk  = 1000
	receiveChunks = 150 // of a round
	receiveAhead  = 20
)

// arm receives messages on a subject, and tells of each chunk.
type arm struct {
	subject string
	chunks  chan struct{}
	seq     uint64
	rates   []float64
	cpu     []float64 // of this process for one message, in microseconds
}

func newArm(subject string) *arm {
	return &arm{subject: subject, chunks: make(chan struct{}, receiveChunks)}
}

// counts returns what is to be told of each message.
func (a *arm) counts() func(n int) {
	had := 0
	return func(n int) {
		for had += n; had >= receiveChunk; had -= receiveChunk {
			a.chunks <- struct{}{}
		}
	}
}

// round sends and receives one round.
func (a *arm) round(b *testing.B, s broker, w wire) {
	rendered := make([][]byte, receiveChunks)
	for i := range rendered {
		for range receiveChunk {
			a.seq++
			rendered[i] = s.live(rendered[i], a.subject, a.seq, event(a.seq))
		}
	}
	late := time.After(patience)
	wait := func() {
		select {
		case <-a.chunks:
		case <-late:
			b.Fatal("not all was received")
		}
	}
	began, before := time.Now(), spent(b)
	for i, chunk := range rendered {
		if i >= receiveAhead {
			wait()
		}
		_, err := w.Write(chunk)
		require.NoError(b, err)
	}
	for range receiveAhead {
		wait()
	}
	const n = receiveChunks * receiveChunk
	a.rates = append(a.rates, n/time.Since(began).Seconds())
	a.cpu = append(a.cpu, (spent(b)-before).Seconds()*1e6/n)
}

// BenchmarkReceive is how many events a second a cache applies, beside a bare core
// subscription that gets the same bytes and does nothing with them.
func BenchmarkReceive(b *testing.B) {
	s := startBroker(b)
	bare := newArm("bare.ev.ns")
	count := bare.counts()
	nc := s.dial(b)
	_, err := nc.Subscribe(bare.subject, func(*nats.Msg) { count(1) })
	require.NoError(b, err)
	require.NoError(b, nc.Flush())

	side := newArm("nearside-live.bench.ev.ns")
	on, applied := s.open(b), side.counts()
	c := follow(b, tapped{on, func(ds []bus.Delivery) { applied(len(ds)) }, -1}, 64<<20)
	side.seq = c.Applied().Seq
	w := s.wire(b)
	for b.Loop() {
		for range receiveRounds {
			bare.round(b, s, w)
			side.round(b, s, w)
		}
	}
	require.Zero(b, on.Status().Doubts)
	b.ReportMetric(median(bare.rates), "bare/s")
	b.ReportMetric(median(side.rates), "applied/s")
	b.ReportMetric(median(bare.cpu), "bare-cpu-µs")
	b.ReportMetric(median(side.cpu), "applied-cpu-µs")
	b.ReportMetric(ratio(side.rates, bare.rates), "ratio")
}
