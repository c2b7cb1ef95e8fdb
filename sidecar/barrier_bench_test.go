package sidecar_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/embedded"
	"github.com/nearside-cache/nearside/bus/natsbus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// What BenchmarkStrong does in one run.
const (
	strongRounds  = 10 // of everything, in turn
	strongReaders = 64
	strongReads   = 50 // of each of these readers in a round
)

// BenchmarkStrong compares STRONG reads and barriers with what they rest on: one
// bare publish and its acknowledgement on the same stream. All are measured in
// turn, and the medians reported; ns/op means nothing. There are two domains: in
// one the sidecar that is measured holds the pulser role, in the other one its
// neighbour does.
func BenchmarkStrong(b *testing.B) {
	for _, broker := range []struct {
		name  string
		start func(testing.TB) strongBroker
	}{{"pipe", pipeBroker}, {"tcp", tcpBroker}, {"far", farBroker}, {"r3", clusterBroker}} {
		b.Run(broker.name, func(b *testing.B) {
			at := broker.start(b)
			pairs := []*strongPair{newStrongPair(b, at, "own", true), newStrongPair(b, at, "other", false)}
			b.Run("each", func(b *testing.B) { measureStrong(b, pairs) })
		})
	}
}

func measureStrong(b *testing.B, pairs []*strongPair) {
	for _, p := range pairs {
		p.took = map[string][]time.Duration{}
	}
	for range strongRounds {
		for range max(1, b.N/strongRounds) {
			for _, p := range pairs {
				p.single(b)
			}
		}
		b.StopTimer()
		for _, p := range pairs {
			p.crowd(b)
		}
		b.StartTimer()
	}
	for _, p := range pairs {
		p.report(b)
	}
}

// strongPair is a domain with two sidecars, one of which is measured.
type strongPair struct {
	name  string
	bus   bus.Bus
	bare  jetstream.JetStream
	event string // subject of a bare publish
	body  []byte // of it: as large as a pulse
	lone  *reader
	many  *readers
	turn  int
	took  map[string][]time.Duration // by what was done; per read for the many
}

// newStrongPair starts the pair. own says whether the one that is measured shall
// be the pulser: the first to come takes the role.
func newStrongPair(b *testing.B, at strongBroker, domain string, own bool) *strongPair {
	subjects, err := bus.NewSubjects(domain)
	require.NoError(b, err)
	config, bare := at(b, natsbus.StreamConfig{Subjects: subjects})
	var sides []*sidecartest.Sidecar
	for range 2 {
		nb, err := natsbus.Open(b.Context(), config)
		require.NoError(b, err)
		b.Cleanup(func() { _ = nb.Close() })
		sides = append(sides, sidecartest.Start(b, nb, nil))
		require.Eventually(b, func() bool { return sides[0].Bus.Status().Pulser }, sidecartest.Wait, time.Millisecond)
	}
	if !own {
		slices.Reverse(sides)
	}
	p := &strongPair{name: domain, bus: sides[0].Bus}
	p.event, err = subjects.Event("bare")
	require.NoError(b, err)
	p.bare, err = jetstream.New(bare)
	require.NoError(b, err)
	p.body, err = bus.Encode(bus.Event{Keys: []bus.KeyVersion{{Key: "bare:0123456789012345678901234567890", Version: 1}}})
	require.NoError(b, err)
	c := sides[0].Dial(b)
	lease := c.Do("NEAR.GET", "k")
	require.Equal(b, "STORED", c.Do("NEAR.FILL", "k", lease.Elems[3].Str, "VERSION", "1", "v").Str)
	c.Do("NEAR.GET", "k", "STRONG") // publishes its version (C12)
	p.lone = newReader(b, sides[0].Socket)
	p.many = newReaders(b, sides[0].Socket, strongReaders)
	return p
}

// single does each thing once, with nobody else about, in another order each time.
func (p *strongPair) single(b *testing.B) {
	ctx, ops := b.Context(), []string{"bare", "publish", "barrier", "strong", "any"}
	for i := range ops {
		op := ops[(i+p.turn)%len(ops)]
		p.time(op, 1, func() {
			var err error
			switch op {
			case "bare":
				_, err = p.bare.Publish(ctx, p.event, p.body)
			case "publish":
				_, err = p.bus.Publish(ctx, "other", bus.Event{Keys: []bus.KeyVersion{{Key: "other:1"}}})
			case "barrier":
				_, err = p.bus.Barrier(ctx)
			case "strong":
				p.lone.get(b, question("STRONG"))
			case "any":
				p.lone.get(b, question("ANY"))
			}
			require.NoError(b, err)
		})
	}
	p.turn++
}

// crowd has all readers read at once, STRONG and, for what the sockets can do at
// best, ANY.
func (p *strongPair) crowd(b *testing.B) {
	for _, mode := range []string{"STRONG", "ANY"} {
		p.time(mode, strongReaders*strongReads, func() { p.many.read(b, mode, strongReads) })
	}
}

func (p *strongPair) time(what string, n int, do func()) {
	began := time.Now()
	do()
	p.took[what] = append(p.took[what], time.Since(began)/time.Duration(n))
}

func (p *strongPair) report(b *testing.B) {
	median := func(what string) float64 {
		slices.Sort(p.took[what])
		return float64(p.took[what][len(p.took[what])/2])
	}
	bare, strong := median("bare"), median("strong")
	b.ReportMetric(bare/1e3, p.name+"-bare-µs")
	for _, op := range []string{"publish", "barrier", "strong", "any"} {
		b.ReportMetric(median(op)/bare, p.name+"-"+op+"-x")
	}
	b.ReportMetric(strong/median("STRONG"), p.name+"-64strong-rate-x")
	b.ReportMetric(strong/median("ANY"), p.name+"-64any-rate-x")
}

// question asks for k, and its answer is a hit of answerLines lines.
func question(mode string) []byte {
	return fmt.Appendf(nil, "*3\r\n$8\r\nNEAR.GET\r\n$1\r\nk\r\n$%d\r\n%s\r\n", len(mode), mode)
}

const answerLines = 19

func requireHit(b *testing.B, answer []byte) {
	if !bytes.HasPrefix(answer, []byte("*10\r\n$6\r\nstatus\r\n$3\r\nHIT\r\n")) {
		require.Fail(b, "want a hit", "%q", answer)
	}
}

// reader is a client that does no more than it must, through Go's poller.
type reader struct {
	conn net.Conn
	in   []byte
}

func newReader(b *testing.B, socket string) *reader {
	conn, err := net.Dial("unix", socket)
	require.NoError(b, err)
	b.Cleanup(func() { conn.Close() })
	return &reader{conn: conn, in: make([]byte, 1024)}
}

func (r *reader) get(b *testing.B, question []byte) {
	_, err := r.conn.Write(question)
	require.NoError(b, err)
	n := 0
	for bytes.Count(r.in[:n], []byte("\n")) < answerLines {
		m, err := r.conn.Read(r.in[n:])
		require.NoError(b, err)
		n += m
	}
	requireHit(b, r.in[:n])
}

// readers are clients that one thread drives, as light as can be: they share two
// cores with what they measure.
type readers struct {
	fds   []int
	epoll int
}

func newReaders(b *testing.B, socket string, n int) *readers {
	r := &readers{}
	var err error
	r.epoll, err = unix.EpollCreate1(0)
	require.NoError(b, err)
	for range n {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		require.NoError(b, err)
		require.NoError(b, unix.Connect(fd, &unix.SockaddrUnix{Name: socket}))
		require.NoError(b, unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}))
		r.fds = append(r.fds, fd)
	}
	b.Cleanup(func() {
		for _, fd := range append(r.fds, r.epoll) {
			_ = unix.Close(fd)
		}
	})
	return r
}

// read has each reader read so many times, one after the other. The thread that
// waits for them shall not take a processor from the runtime, as another process
// would not.
func (r *readers) read(b *testing.B, mode string, each int) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.NumCPU() + 1))
	ask, in := question(mode), make([]byte, 1024)
	asked := make(map[int32]int, len(r.fds))
	for _, fd := range r.fds {
		asked[int32(fd)]++
		_, err := unix.Write(fd, ask)
		require.NoError(b, err)
	}
	events := make([]unix.EpollEvent, len(r.fds))
	for left := len(r.fds) * each; left > 0; {
		n, err := unix.EpollWait(r.epoll, events, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		require.NoError(b, err)
		for _, e := range events[:n] {
			got, err := unix.Read(int(e.Fd), in) // whole: it was written at once
			require.NoError(b, err)
			requireHit(b, in[:got])
			left--
			if asked[e.Fd] < each {
				asked[e.Fd]++
				_, err = unix.Write(int(e.Fd), ask)
				require.NoError(b, err)
			}
		}
	}
}

// strongBroker makes a stream and tells how a sidecar attaches to it, and
// connects a bare client in the same way.
type strongBroker func(testing.TB, natsbus.StreamConfig) (natsbus.Config, *nats.Conn)

// pipeBroker is a server in this process, reached without a port.
func pipeBroker(b testing.TB) strongBroker {
	srv, err := embedded.Start(embedded.Config{Dir: b.TempDir()})
	require.NoError(b, err)
	b.Cleanup(func() { _ = srv.Close() })
	return func(b testing.TB, stream natsbus.StreamConfig) (natsbus.Config, *nats.Conn) {
		return natsbus.Config{InProcess: srv, CreateStream: true, Stream: stream}, bareConn(b, "", nats.InProcessServer(srv))
	}
}

// tcpBroker is the same, reached over loopback.
func tcpBroker(b testing.TB) strongBroker {
	srv, err := embedded.Start(embedded.Config{Dir: b.TempDir(), Listen: "127.0.0.1:0"})
	require.NoError(b, err)
	b.Cleanup(func() { _ = srv.Close() })
	return func(b testing.TB, stream natsbus.StreamConfig) (natsbus.Config, *nats.Conn) {
		return natsbus.Config{URL: srv.URL(), CreateStream: true, Stream: stream}, bareConn(b, srv.URL())
	}
}

// farBroker is the same, one millisecond away there and back: nearly all of the
// time of an acknowledgement then goes by without taking a processor from the
// readers, as where the broker is on machines of its own.
func farBroker(b testing.TB) strongBroker {
	srv, err := embedded.Start(embedded.Config{Dir: b.TempDir(), Listen: "127.0.0.1:0"})
	require.NoError(b, err)
	b.Cleanup(func() { _ = srv.Close() })
	far := farServer{strings.TrimPrefix(srv.URL(), "nats://")}
	return func(b testing.TB, stream natsbus.StreamConfig) (natsbus.Config, *nats.Conn) {
		return natsbus.Config{InProcess: far, CreateStream: true, Stream: stream}, bareConn(b, "", nats.InProcessServer(far))
	}
}

const farAway = time.Millisecond

type farServer struct{ addr string }

func (s farServer) InProcessConn() (net.Conn, error) {
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		return nil, err
	}
	c := &farConn{Conn: conn, chunks: make(chan farChunk, 1024)}
	go c.receive()
	return c, nil
}

// farConn hands out what arrives some time later. One goroutine reads from it.
type farConn struct {
	net.Conn
	chunks chan farChunk
	now    farChunk
}

type farChunk struct {
	at   time.Time
	data []byte
	err  error
}

func (c *farConn) receive() {
	for {
		data := make([]byte, 64<<10)
		n, err := c.Conn.Read(data)
		c.chunks <- farChunk{time.Now().Add(farAway), data[:n], err}
		if err != nil {
			return
		}
	}
}

func (c *farConn) Read(p []byte) (int, error) {
	if len(c.now.data) == 0 && c.now.err == nil {
		c.now = <-c.chunks
		time.Sleep(time.Until(c.now.at))
	}
	n := copy(p, c.now.data)
	if c.now.data = c.now.data[n:]; n > 0 {
		return n, nil
	}
	return 0, c.now.err
}

// clusterBroker is three servers in this process, each stream on all of them, and
// the clients at one that does not lead it, as most are.
func clusterBroker(b testing.TB) strongBroker {
	servers := startCluster(b)
	return func(b testing.TB, stream natsbus.StreamConfig) (natsbus.Config, *nats.Conn) {
		ctx, cancel := context.WithTimeout(b.Context(), sidecartest.Wait)
		defer cancel()
		js, err := jetstream.New(bareConn(b, servers[0].ClientURL()))
		require.NoError(b, err)
		info, _, err := natsbus.Ensure(ctx, js, stream)
		require.NoError(b, err)
		require.Equal(b, 3, info.Replicas)
		at := slices.IndexFunc(servers, func(s *server.Server) bool { return s.Name() != info.Leader })
		url := servers[at].ClientURL()
		return natsbus.Config{URL: url, Stream: stream}, bareConn(b, url)
	}
}

func bareConn(b testing.TB, url string, opts ...nats.Option) *nats.Conn {
	nc, err := nats.Connect(url, opts...)
	require.NoError(b, err)
	b.Cleanup(nc.Close)
	return nc
}

func startCluster(b testing.TB) (servers []*server.Server) {
	var routes []*url.URL
	for range 3 { // a server of a cluster must know the others from the start
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		routes = append(routes, &url.URL{Scheme: "nats", Host: l.Addr().String()})
		require.NoError(b, l.Close())
	}
	for i, route := range routes {
		port, err := strconv.Atoi(route.Port())
		require.NoError(b, err)
		srv, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprint("server", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
			JetStream: true, StoreDir: b.TempDir(), JetStreamMaxMemory: 1 << 20, JetStreamMaxStore: 1 << 30,
			Cluster: server.ClusterOpts{Name: "bench", Host: "127.0.0.1", Port: port}, Routes: routes,
		})
		require.NoError(b, err)
		srv.Start()
		b.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
		require.True(b, srv.ReadyForConnections(sidecartest.Wait))
		servers = append(servers, srv)
	}
	require.Eventually(b, func() bool {
		return slices.ContainsFunc(servers, func(s *server.Server) bool {
			return s.JetStreamIsLeader() && len(s.JetStreamClusterPeers()) == len(routes)
		})
	}, sidecartest.Wait, 10*time.Millisecond, "no meta leader")
	return servers
}

// BenchmarkPurge purges a namespace with few and with many entries: it must take
// the same time.
func BenchmarkPurge(b *testing.B) {
	for _, n := range []int{10, 1_000_000} {
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			c := sidecartest.NewCache(b, sidecartest.NewStream(b), func(c *cache.Config) { c.Memory = 512 << 20 })
			for i := range n {
				key := fmt.Sprint("p:", i)
				c.Set(key, []byte("v"), cache.TTL{})
			}
			b.ResetTimer()
			for range b.N {
				_, err := c.Flush(context.Background(), "p")
				require.NoError(b, err)
			}
			b.StopTimer()
			_, ok := c.Peek("p:1", c.Now())
			require.False(b, ok)
		})
	}
}
