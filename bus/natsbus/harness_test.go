package natsbus_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/bustest"
	"github.com/nearside-cache/nearside/bus/embedded"
	"github.com/nearside-cache/nearside/bus/natsbus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience   = 10 * time.Second
	liveBuffer = 512
)

var errCut = errors.New("the connection is cut")

// broker is an embedded server whose connections can be cut, and which can be
// stopped and started again on another store.
type broker struct {
	subjects bus.Subjects
	root     string // where its stores are
	dir      string // the one in use
	snapshot string
	stores   int
	admin    jetstream.JetStream

	mu    sync.Mutex
	srv   *embedded.Server // nil while it is down
	links []*link
}

// link is one client's way to the broker.
type link struct {
	broker *broker
	mu     sync.Mutex
	cut    bool
	conns  []net.Conn
}

func (l *link) InProcessConn() (net.Conn, error) {
	l.broker.mu.Lock()
	srv := l.broker.srv
	l.broker.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut || srv == nil {
		return nil, errCut
	}
	conn, err := srv.InProcessConn()
	if err == nil {
		l.conns = append(l.conns, conn)
	}
	return conn, err
}

// set cuts the way and breaks its connections, or opens it again.
func (l *link) set(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut = cut; cut {
		l.sever()
	}
}

// sever breaks the connections there are; l.mu is held.
func (l *link) sever() {
	for _, c := range l.conns {
		_ = c.Close()
	}
	l.conns = nil
}

// newBroker starts a broker without a stream.
func newBroker(t testing.TB) *broker {
	subjects, err := bus.NewSubjects("test")
	require.NoError(t, err)
	b := &broker{subjects: subjects, root: t.TempDir()}
	b.start(t, filepath.Join(b.root, "first"))
	t.Cleanup(func() { b.down(t) })
	nc, err := nats.Connect("", nats.InProcessServer(b.link()), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond),
		nats.ReconnectJitter(0, 0), nats.ReconnectBufSize(-1), nats.IgnoreAuthErrorAbort())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	b.admin, err = jetstream.New(nc)
	require.NoError(t, err)
	return b
}

func (b *broker) link() *link {
	l := &link{broker: b}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.links = append(b.links, l)
	return l
}

func (b *broker) start(t testing.TB, dir string) {
	srv, err := embedded.Start(embedded.Config{Dir: dir})
	require.NoError(t, err)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.srv, b.dir = srv, dir
}

// sever refuses and breaks all connections, which ends all writing, and returns
// the server, which is still up.
func (b *broker) sever() *embedded.Server {
	b.mu.Lock()
	defer b.mu.Unlock()
	srv := b.srv
	b.srv = nil
	for _, l := range b.links {
		l.mu.Lock()
		l.sever()
		l.mu.Unlock()
	}
	return srv
}

func (b *broker) down(t testing.TB) {
	if srv := b.sever(); srv != nil {
		require.NoError(t, srv.Close())
	}
}

// copy returns the directory of a copy of dir. The server may be removing the
// files of a deleted stream meanwhile; then it is done over.
func (b *broker) copy(t testing.TB, dir string) string {
	for range 100 {
		b.stores++
		to := filepath.Join(b.root, strconv.Itoa(b.stores))
		err := os.CopyFS(to, os.DirFS(dir))
		if !errors.Is(err, fs.ErrNotExist) {
			require.NoError(t, err)
			return to
		}
	}
	t.Fatal("the files do not come to rest")
	return ""
}

func (b *broker) config() natsbus.Config {
	return natsbus.Config{
		InProcess:  b.link(),
		Stream:     natsbus.StreamConfig{Subjects: b.subjects},
		LiveBuffer: liveBuffer,
	}
}

func (b *broker) open(t testing.TB, c natsbus.Config) *natsbus.Bus {
	a, err := natsbus.Open(context.Background(), c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	return a
}

func (b *broker) ensure(t testing.TB) natsbus.Info {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	info, _, err := natsbus.Ensure(ctx, b.admin, natsbus.StreamConfig{Subjects: b.subjects})
	require.NoError(t, err)
	return info
}

// harness is the broker with a stream, for bustest.
type harness struct {
	*broker
	origin  uint64
	deleted bool
}

func newHarness(t testing.TB) bustest.Harness {
	b := newBroker(t)
	return &harness{broker: b, origin: b.ensure(t).Origin}
}

func (h *harness) Subjects() bus.Subjects { return h.subjects }

func (h *harness) Attach(t testing.TB) bustest.Attachment {
	a := &attachment{}
	config := h.config().WithTap(a.tap)
	config.CreateStream = h.deleted // those attached before leave it to Recreate
	a.link = config.InProcess.(*link)
	a.Bus = h.open(t, config)
	return a
}

func (h *harness) PublishRaw(ctx context.Context, subject, msgID string, data []byte) (uint64, error) {
	for {
		ack, err := h.admin.Publish(ctx, subject, data, jetstream.WithMsgID(msgID))
		if err == nil {
			return ack.Sequence, nil
		}
		select {
		case <-ctx.Done():
			return 0, err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// stream asks for the stream until it is told, which may take a moment after a
// restart.
func (h *harness) stream(t testing.TB) (stream jetstream.Stream) {
	require.Eventually(t, func() (ok bool) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		var err error
		stream, err = h.admin.Stream(ctx, h.subjects.Stream())
		return err == nil
	}, patience, time.Millisecond)
	return stream
}

// squeeze makes retention act by changing the limits for a moment: the stream
// denies purges.
func (h *harness) squeeze(t testing.TB, change func(*jetstream.StreamConfig), done func(jetstream.StreamState) bool) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stream := h.stream(t)
	was := stream.CachedInfo().Config
	tight := was
	change(&tight)
	_, err := h.admin.UpdateStream(ctx, tight)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		info, err := stream.Info(ctx)
		return err == nil && done(info.State)
	}, patience, time.Millisecond)
	_, err = h.admin.UpdateStream(ctx, was)
	require.NoError(t, err)
}

func (h *harness) Trim(t testing.TB, upTo uint64) {
	keep := int64(h.stream(t).CachedInfo().State.LastSeq - upTo)
	if keep <= 0 {
		h.Purge(t)
		return
	}
	h.squeeze(t, func(c *jetstream.StreamConfig) { c.MaxMsgs = keep },
		func(s jetstream.StreamState) bool { return s.FirstSeq > upTo })
}

func (h *harness) Purge(t testing.TB) {
	h.squeeze(t, func(c *jetstream.StreamConfig) { c.MaxBytes = 1 },
		func(s jetstream.StreamState) bool { return s.Msgs == 0 })
}

func (h *harness) DeleteStream(t testing.TB) {
	h.stream(t)
	require.NoError(t, h.admin.DeleteStream(context.Background(), h.subjects.Stream()))
	h.deleted = true
}

func (h *harness) Recreate(t testing.TB) {
	c := natsbus.StreamConfig{Subjects: h.subjects}.JetStream(time.Now(), 1)
	c.FirstSeq = h.origin
	create(t, h.broker, c)
	h.deleted = false
}

// create makes a stream. The files of one just deleted may be in the way for a
// moment.
func create(t testing.TB, b *broker, c jetstream.StreamConfig) {
	require.Eventually(t, func() bool {
		_, err := b.admin.CreateStream(context.Background(), c)
		return err == nil
	}, patience, time.Millisecond)
}

func (h *harness) Snapshot(t testing.TB) {
	h.snapshot = h.copy(t, h.dir)
}

func (h *harness) Rollback(t testing.TB) {
	h.down(t)
	h.start(t, h.copy(t, h.snapshot))
}

// Restart starts on the files as a kill would leave them: they are copied
// before the server has a chance to tidy up.
func (h *harness) Restart(t testing.TB) {
	srv := h.sever()
	killed := h.copy(t, h.dir)
	require.NoError(t, srv.Close())
	h.start(t, killed)
}

// attachment is a bus with faults of its own.
type attachment struct {
	*natsbus.Bus
	link            *link
	drop, duplicate atomic.Int64
}

func (a *attachment) tap(m bus.Message) []bus.Message {
	if a.drop.Load() > 0 {
		a.drop.Add(-1)
		return nil
	}
	if a.duplicate.Load() > 0 {
		a.duplicate.Add(-1)
		return []bus.Message{m, m}
	}
	return []bus.Message{m}
}

func (a *attachment) DropNext(n int)      { a.drop.Store(int64(n)) }
func (a *attachment) DuplicateNext(n int) { a.duplicate.Store(int64(n)) }

func (a *attachment) Disconnect(t testing.TB) {
	a.link.set(true)
	require.Eventually(t, func() bool { return !a.Status().Connected }, patience, time.Millisecond)
}

func (a *attachment) Reconnect(testing.TB) { a.link.set(false) }

// LiveBuffer is the queue of the subscription, and what its callback holds.
func (a *attachment) LiveBuffer() int { return liveBuffer + bus.ReadyMax }
