package eventbench

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
)

// fanoutRounds is how often each arm is measured, in turn.
const fanoutRounds = 7

// BenchmarkFanout is the time from publishing an event until the last of so many caches
// has applied it. Beside it that until the last of as many bare core subscriptions has
// a message of as many bytes; and that until as many bare core subscriptions have an
// event from a stream, of which there is one sidecar only, the publisher. Each has a
// connection of its own; all are in this process, and so is the broker.
func BenchmarkFanout(b *testing.B) {
	for _, f := range []struct{ sides, rate, events int }{{1, 200, 400}, {10, 200, 400}, {100, 200, 400}} {
		b.Run(fmt.Sprintf("sides=%d", f.sides), func(b *testing.B) {
			s := startBroker(b)
			bare, stream, side := bareFanout(b, s, f.sides), streamFanout(b, s.domain(b, "bare"), f.sides), sidecarFanout(b, s, f.sides)
			for b.Loop() {
				for range fanoutRounds {
					for _, a := range []*fanout{bare, stream, side} {
						a.round(b, f.rate, f.events)
					}
				}
			}
			for name, a := range map[string]*fanout{"bare": bare, "stream": stream, "applied": side} {
				b.ReportMetric(median(a.p50), name+"-p50-ms")
				b.ReportMetric(median(a.p99), name+"-p99-ms")
				b.ReportMetric(median(a.cpu), name+"-cpu-µs")
			}
			b.ReportMetric(ratio(side.p50, bare.p50), "ratio-p50")
			b.ReportMetric(ratio(side.p99, bare.p99), "ratio-p99")
			b.ReportMetric(ratio(side.cpu, bare.cpu), "ratio-cpu")
			b.ReportMetric(ratio(side.p50, stream.p50), "stream-ratio-p50")
			b.ReportMetric(ratio(side.p99, stream.p99), "stream-ratio-p99")
		})
	}
}

// fanout publishes events by number, and is told by everybody who has got one.
type fanout struct {
	sides    int
	publish  func(n int) error
	p50, p99 []float64 // of each round, in milliseconds
	cpu      []float64 // of this process for one event and side, in microseconds

	events []flight
	done   sync.WaitGroup
}

// flight is one event.
type flight struct {
	began time.Time
	got   atomic.Int64
	took  time.Duration
}

// got is told by one of the sides that it has got the event of key.
func (f *fanout) got(key string) {
	n, err := strconv.Atoi(key[len("ns:"):])
	if err != nil {
		panic(err)
	}
	if e := &f.events[n]; e.got.Add(1) == int64(f.sides) {
		e.took = time.Since(e.began)
		f.done.Done()
	}
}

func (f *fanout) round(b *testing.B, rate, events int) {
	f.events = make([]flight, events)
	f.done.Add(events)
	errs := make(chan error, events)
	before := spent(b)
	every := time.NewTicker(time.Second / time.Duration(rate))
	defer every.Stop()
	for n := range events {
		<-every.C
		f.events[n].began = time.Now()
		go func() { errs <- f.publish(n) }()
	}
	for range events {
		require.NoError(b, <-errs)
	}
	f.done.Wait()
	f.cpu = append(f.cpu, (spent(b)-before).Seconds()*1e6/float64(events*f.sides))
	took := make([]time.Duration, events)
	for n := range f.events {
		took[n] = f.events[n].took
	}
	f.p50 = append(f.p50, quantile(took, 0.5).Seconds()*1000)
	f.p99 = append(f.p99, quantile(took, 0.99).Seconds()*1000)
}

func numbered(n int) bus.Event {
	return bus.Event{Keys: []bus.KeyVersion{{Key: fmt.Sprintf("ns:%08d", n)}}, Time: time.Now()}
}

// subscribe has so many connections, each with a subscription that tells f of events.
func (f *fanout) subscribe(b *testing.B, s broker, subject string) {
	for range f.sides {
		nc := s.dial(b)
		_, err := nc.Subscribe(subject, func(m *nats.Msg) {
			if e, err := bus.Decode(bus.KindEvent, m.Data); err == nil && len(e.Keys) == 1 {
				f.got(e.Keys[0].Key)
			}
		})
		require.NoError(b, err)
		require.NoError(b, nc.Flush())
	}
}

func bareFanout(b *testing.B, s broker, sides int) *fanout {
	f := &fanout{sides: sides}
	f.subscribe(b, s, "bare")
	w := s.wire(b)
	f.publish = func(n int) error {
		data, err := bus.Encode(numbered(n))
		if err == nil {
			_, err = w.Write(s.live(nil, "bare", uint64(n)+1, data))
		}
		return err
	}
	return f
}

func streamFanout(b *testing.B, s broker, sides int) *fanout {
	f := &fanout{sides: sides}
	on := s.open(b)
	follow(b, tapped{on, func([]bus.Delivery) {}, 0}, 4<<20)
	f.subscribe(b, s, s.subjects.Live())
	f.publish = publisher(on)
	return f
}

func sidecarFanout(b *testing.B, s broker, sides int) *fanout {
	f := &fanout{sides: sides}
	seen := func(ds []bus.Delivery) {
		for i := range ds {
			if e := &ds[i].Event; e.Op == bus.OpInvalidate {
				f.got(e.Keys[0].Key)
			}
		}
	}
	for i := range sides {
		on := s.open(b)
		follow(b, tapped{on, seen, 0}, 4<<20)
		if i == 0 {
			f.publish = publisher(on)
		}
	}
	return f
}

func publisher(on bus.Bus) func(n int) error {
	return func(n int) error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err := on.Publish(ctx, "ns", numbered(n))
		return err
	}
}
