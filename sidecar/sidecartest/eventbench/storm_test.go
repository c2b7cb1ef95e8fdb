package eventbench

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// What BenchmarkStorm does: readers that read at a pace, each with a connection of its
// own, and events that come in bursts.
const (
	stormRounds  = 5
	stormTakes   = 2 * time.Second // a round of one arm
	stormReaders = 8
	stormEvery   = 4 * time.Millisecond // between two reads of a reader
	stormKeys    = 1000
	stormRate    = 50_000 // events a second
	stormBurst   = time.Millisecond
)

// BenchmarkStorm is what a GET hit takes while nothing else happens, and while the
// sidecar applies 50,000 events a second of other keys. Beside it the same of Redis,
// whose machine receives as many bare messages meanwhile: a storm costs processor time,
// whoever is asked.
func BenchmarkStorm(b *testing.B) {
	s := startBroker(b)
	on := s.open(b)
	side := sidecartest.Start(b, tapped{on, func([]bus.Delivery) {}, -1}, func(c *sidecar.Config) {
		c.Policies.Default.MaxStale = time.Hour // there are no pulses
	})
	near := stormArm(b, s, side.Socket, "nearside-live.bench.ev.ns")
	near.seq = side.Applied().Seq
	arms := map[string]*storm{"nearside": near}
	if server, err := exec.LookPath("redis-server"); err == nil {
		_, err := s.dial(b).Subscribe("bare.ev.ns", func(*nats.Msg) {})
		require.NoError(b, err)
		arms["redis"] = stormArm(b, s, startRedis(b, server), "bare.ev.ns")
	}
	for b.Loop() {
		for range stormRounds {
			for _, a := range arms {
				a.quiet = append(a.quiet, a.read(b))
				a.storm = append(a.storm, a.during(b))
			}
		}
	}
	for name, a := range arms {
		b.ReportMetric(median(a.quiet), name+"-quiet-p99-µs")
		b.ReportMetric(median(a.storm), name+"-storm-p99-µs")
		b.ReportMetric(ratio(a.storm, a.quiet), name+"-ratio")
		b.ReportMetric(median(a.rates), name+"-events/s")
	}
	require.Equal(b, near.seq, side.Applied().Seq)
	require.Zero(b, on.Status().Doubts)
}

// storm is one arm: who is read, and where events go meanwhile.
type storm struct {
	broker       broker
	subject      string
	wire         wire
	seq          uint64
	readers      []net.Conn
	quiet, storm []float64 // p99 of each round, in microseconds
	rates        []float64
}

func stormArm(b *testing.B, s broker, socket, subject string) *storm {
	a := &storm{broker: s, subject: subject, wire: s.wire(b)}
	for range stormReaders {
		conn, err := net.Dial("unix", socket)
		require.NoError(b, err)
		b.Cleanup(func() { require.NoError(b, conn.Close()) })
		a.readers = append(a.readers, conn)
	}
	answers := bufio.NewReader(a.readers[0])
	for i := range stormKeys {
		_, err := fmt.Fprintf(a.readers[0], "*3\r\n$3\r\nSET\r\n$10\r\nread:%05d\r\n$100\r\n%0100d\r\n", i, i)
		require.NoError(b, err)
		line, err := answers.ReadString('\n')
		require.NoError(b, err)
		require.Equal(b, "+OK\r\n", line)
	}
	return a
}

// read has all readers read for a round and returns their p99.
func (a *storm) read(b *testing.B) float64 {
	runtime.GC() // of what was rendered
	var all sync.WaitGroup
	took := make([][]time.Duration, len(a.readers))
	for i, conn := range a.readers {
		all.Go(func() {
			every := time.NewTicker(stormEvery)
			defer every.Stop()
			answer := make([]byte, len("$100\r\n")+100+2)
			for n := range int(stormTakes / stormEvery) {
				<-every.C
				began := time.Now()
				_, err := fmt.Fprintf(conn, "*2\r\n$3\r\nGET\r\n$10\r\nread:%05d\r\n", (i*131+n)%stormKeys)
				_, failed := io.ReadFull(conn, answer)
				if err != nil || failed != nil {
					b.Errorf("GET: %v, %v", err, failed)
					return
				}
				took[i] = append(took[i], time.Since(began))
			}
		})
	}
	all.Wait()
	var every []time.Duration
	for _, t := range took {
		every = append(every, t...)
	}
	return float64(quantile(every, 0.99)) / 1000
}

// during is read while events come.
func (a *storm) during(b *testing.B) (p99 float64) {
	const burst = int(stormRate * stormBurst / time.Second)
	bursts := make([][]byte, stormTakes/stormBurst)
	for i := range bursts {
		for range burst {
			a.seq++
			bursts[i] = a.broker.live(bursts[i], a.subject, a.seq, event(a.seq))
		}
	}
	var all sync.WaitGroup
	all.Go(func() {
		began := time.Now()
		every := time.NewTicker(stormBurst)
		defer every.Stop()
		for i := range bursts {
			for time.Since(began) < time.Duration(i)*stormBurst { // a late tick is made up for
				<-every.C
			}
			if _, err := a.wire.Write(bursts[i]); err != nil {
				b.Error(err)
				return
			}
		}
		a.rates = append(a.rates, float64(len(bursts)*burst)/time.Since(began).Seconds())
	})
	p99 = a.read(b)
	all.Wait()
	return p99
}

// startRedis runs a Redis without persistence on a socket until the benchmark ends.
func startRedis(b *testing.B, server string) (socket string) {
	socket = filepath.Join(sidecartest.Dir(b), "redis.sock")
	cmd := exec.Command(server, "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no")
	require.NoError(b, cmd.Start())
	b.Cleanup(func() {
		require.NoError(b, cmd.Process.Kill())
		_ = cmd.Wait() // it says that it was killed
	})
	require.Eventually(b, func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, patience, 10*time.Millisecond)
	return socket
}
