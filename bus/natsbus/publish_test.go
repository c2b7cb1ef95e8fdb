package natsbus_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/natsbus"
)

// B8: however often the server goes away below a publish, its event is one.
func TestPublishOverRestartsIsOneEvent(t *testing.T) {
	h := newHarness(t).(*harness)
	a := h.open(t, h.config())
	r, _ := follow(t, a)
	r.waitResumes(t, 1)
	var writers sync.WaitGroup
	stop := make(chan struct{})
	var mu sync.Mutex
	acked := map[string]bus.Position{}
	for w := range 4 {
		writers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprintf("a:%d-%d", w, i)
				p, err := a.Publish(within(t, patience), "a", invalidate(key))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acked[key] = p
				mu.Unlock()
			}
		})
	}
	for range 3 {
		h.Restart(t)
		r.waitApplied(t, func() uint64 { p, _ := a.Publish(within(t, patience), "a", invalidate("a:mark")); return p.Seq }())
	}
	close(stop)
	writers.Wait()
	var last uint64
	for _, p := range acked {
		last = max(last, p.Seq)
	}
	r.waitApplied(t, last)
	r.check(t)
	delete(r.keys, "a:mark")
	require.Len(t, r.keys, len(acked))
	for key, n := range r.keys {
		require.Equal(t, 1, n, key)
	}
}

// silent drops what the server answers, once: the client's publish was stored
// and it does not know.
type silent struct {
	net.Conn
	mu   sync.Mutex
	mute bool
}

func (s *silent) Read(p []byte) (int, error) {
	for {
		n, err := s.Conn.Read(p)
		s.mu.Lock()
		mute := s.mute && strings.Contains(string(p[:n]), `"seq":`)
		s.mute = s.mute && !mute
		s.mu.Unlock()
		if mute {
			_ = s.Close() // half an answer would break the protocol anyway
			continue
		}
		return n, err
	}
}

type silencer struct {
	*link
	mu   sync.Mutex
	mute bool
}

func (s *silencer) InProcessConn() (net.Conn, error) {
	conn, err := s.link.InProcessConn()
	s.mu.Lock()
	defer s.mu.Unlock()
	mute := s.mute
	s.mute = false
	return &silent{Conn: conn, mute: mute}, err
}

// B8: the acknowledgement was lost, not the event; the retry finds it stored.
func TestLostAcknowledgementIsOneEvent(t *testing.T) {
	b := newBroker(t)
	info := b.ensure(t)
	c := b.config()
	c.InProcess = &silencer{link: c.InProcess.(*link), mute: true}
	a := b.open(t, c)
	p, err := a.Publish(within(t, patience), "a", invalidate("a:1"))
	require.NoError(t, err)
	require.Equal(t, info.Origin, p.Seq)
	s, err := a.Log().State(within(t, patience))
	require.NoError(t, err)
	require.Equal(t, info.Origin, s.Last, "stored once")
}

// Nobody waits out a deadline for an answer that went down with its connection.
func TestBrokenConnectionEndsTheWait(t *testing.T) {
	b := newBroker(t)
	b.ensure(t)
	c := b.config()
	c.InProcess = &silencer{link: c.InProcess.(*link), mute: true}
	log := b.open(t, c).Log()
	_, err := log.Append(within(t, patience), b.subjects.Flush(), "id", []byte("{}"))
	require.ErrorIs(t, err, natsbus.ErrNotConnected)
}

func TestPublishWithNATSAway(t *testing.T) {
	b := newBroker(t)
	b.ensure(t)
	a := b.open(t, b.config())
	r, _ := follow(t, a)
	r.waitResumes(t, 1)
	b.down(t)
	began := time.Now()
	_, err := a.Publish(within(t, 200*time.Millisecond), "a", invalidate("a:1"))
	require.ErrorIs(t, err, bus.ErrNotAcknowledged)
	require.Less(t, time.Since(began), time.Second, "bounded by the caller's deadline")
	require.ErrorContains(t, err, "may still appear")
	require.ErrorContains(t, err, "not connected")
	b.start(t, b.dir)
	p, err := a.Publish(within(t, patience), "a", invalidate("a:2"))
	require.NoError(t, err)
	r.waitApplied(t, p.Seq)
	require.Zero(t, r.keys["a:1"], "nothing waited in memory")
}

func TestPublishRefusedAtOnce(t *testing.T) {
	b := newBroker(t)
	a := b.open(t, b.config())
	made := natsbus.StreamConfig{Subjects: b.subjects}.JetStream(time.Now(), 1)
	made.MaxMsgSize = 1000
	create(t, b, made)
	for name, c := range map[string]struct {
		namespace string
		event     bus.Event
		want      error
	}{
		"too large for the stream": {"a", bus.Event{Op: bus.OpUpdate, Keys: []bus.KeyVersion{{Key: "a:1", Version: 1}}, Value: make([]byte, 2000)}, bus.ErrTooLarge},
		"too large for an event":   {"a", bus.Event{Op: bus.OpUpdate, Keys: []bus.KeyVersion{{Key: "a:1", Version: 1}}, Value: make([]byte, 2<<20)}, bus.ErrTooLarge},
		"no namespace":             {"", invalidate("a:1"), bus.ErrBadNamespace},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := a.Publish(context.Background(), c.namespace, c.event)
			require.ErrorIs(t, err, c.want)
			require.NotErrorIs(t, err, bus.ErrNotAcknowledged)
		})
	}
}

// A subject that another stream owns is a fault that no retry heals.
func TestPublishIntoAnotherStream(t *testing.T) {
	b := newBroker(t)
	b.ensure(t)
	a := b.open(t, b.config())
	_, err := a.Publish(within(t, patience), "a", invalidate("a:1"))
	require.NoError(t, err)
	require.NoError(t, b.admin.DeleteStream(context.Background(), b.subjects.Stream()))
	other := natsbus.StreamConfig{Subjects: b.subjects}.JetStream(time.Now(), 1)
	other.Name = "OTHER"
	create(t, b, other)
	_, err = a.Publish(context.Background(), "a", invalidate("a:1"))
	require.ErrorContains(t, err, "expected stream does not match")
}

// restricted starts a server where user "side" has the given permissions and
// "admin" has all, and makes the stream.
func restricted(t *testing.T, p *server.Permissions) (string, bus.Subjects) {
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: t.TempDir(), JetStreamMaxMemory: 1 << 20, JetStreamMaxStore: 1 << 26,
		Users: []*server.User{{Username: "admin", Password: "a"}, {Username: "side", Password: "s", Permissions: p}},
	})
	require.NoError(t, err)
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	require.True(t, srv.ReadyForConnections(patience))
	subjects, err := bus.NewSubjects("test")
	require.NoError(t, err)
	admin, err := natsbus.Open(context.Background(), natsbus.Config{
		URL: strings.Replace(srv.ClientURL(), "//", "//admin:a@", 1), Stream: natsbus.StreamConfig{Subjects: subjects}, CreateStream: true,
	})
	require.NoError(t, err)
	_, err = admin.Publish(within(t, patience), "a", invalidate("a:1"))
	require.NoError(t, err)
	require.NoError(t, admin.Close())
	return strings.Replace(srv.ClientURL(), "//", "//side:s@", 1), subjects
}

func TestPermissionDenied(t *testing.T) {
	hear := []string{"nearside-live.test.>", "_INBOX.>", "nearside-ask.test.*"}
	all := []string{"nearside.test.>", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.MSG.GET.*", "$JS.API.DIRECT.GET.*"}
	for name, c := range map[string]struct {
		publish, subscribe []string
		follow, send       string // what the error says; empty: none
	}{
		"what a sidecar needs": {all, hear, "", ""},
		"no live subjects":     {all, hear[1:], "subscription to nearside-live.test.>", ""},
		"no questions":         {all, hear[:2], "subscription to nearside-ask.test.", ""},
		"no replies":           {all, []string{hear[0], hear[2]}, "_INBOX.>", "_INBOX.>"},
		"no events":            {append(all[1:], "nearside.test.pulse"), hear, "", "publish to nearside.test.ev.a"},
		"no pulses":            {append(all[1:], "nearside.test.ev.*"), hear, "publish to nearside.test.pulse", ""},
		"no stream info":       {append(all[2:], all[0]), hear, "STREAM.INFO", ""},
		"no reading":           {append(all[3:], all[:2]...), hear, "STREAM.MSG.GET", ""},
		"no direct reading":    {all[:3], hear, "DIRECT.GET", ""},
	} {
		t.Run(name, func(t *testing.T) {
			url, subjects := restricted(t, &server.Permissions{
				Publish:   &server.SubjectPermission{Allow: c.publish},
				Subscribe: &server.SubjectPermission{Allow: c.subscribe},
			})
			a, err := natsbus.Open(context.Background(), natsbus.Config{URL: url, Stream: natsbus.StreamConfig{Subjects: subjects}})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, a.Close()) })
			began := time.Now()
			r, ended := newRecorder(), make(chan error, 1)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			go func() { ended <- a.Follow(ctx, r, bus.FollowConfig{Window: time.Second}) }()
			if c.follow == "" {
				r.waitResumes(t, 1)
				cancel()
				require.NoError(t, <-ended)
			} else {
				err := <-ended
				require.ErrorIs(t, err, natsbus.ErrDenied)
				require.ErrorIs(t, err, bus.ErrUnfit)
				require.ErrorContains(t, err, c.follow)
			}
			_, err = a.Publish(within(t, patience), "a", invalidate("a:1"))
			if c.send != "" {
				require.ErrorIs(t, err, natsbus.ErrDenied)
				require.ErrorContains(t, err, c.send)
			} else if c.follow == "" {
				require.NoError(t, err)
			}
			require.Less(t, time.Since(began), 2*time.Second, "refusals are told at once, not by a deadline")
		})
	}
}

func TestWrongPassword(t *testing.T) {
	url, subjects := restricted(t, nil)
	a, err := natsbus.Open(context.Background(), natsbus.Config{URL: strings.Replace(url, "side:s", "side:wrong", 1), Stream: natsbus.StreamConfig{Subjects: subjects}})
	require.NoError(t, err)
	defer func() { require.NoError(t, a.Close()) }()
	_, err = a.Publish(within(t, 500*time.Millisecond), "a", invalidate("a:1"))
	require.ErrorIs(t, err, bus.ErrNotAcknowledged)
	require.ErrorContains(t, err, "Authorization Violation")
	require.False(t, a.Status().Connected)
	require.Empty(t, a.Status().Server)
}

// Whoever may publish on the live subjects, against all advice, can send
// anything there (B1). What is not this stream's is ignored; what pretends to be
// is found out by log matching.
func TestForgeriesOnTheLiveSubjects(t *testing.T) {
	set := func(key, value string) func(nats.Header) {
		return func(h nats.Header) { h[key] = []string{value} }
	}
	for name, c := range map[string]struct {
		above  int // which seq is forged, from the one applied last
		change func(nats.Header)
		doubts []bus.Reason
	}{
		"another stream's":           {1, set("Nats-Stream", "NEARSIDE_OTHER"), nil},
		"without a seq":              {1, func(h nats.Header) { delete(h, "Nats-Sequence") }, nil},
		"without a time":             {1, set("Nats-Time-Stamp", "now"), nil},
		"without a subject":          {1, func(h nats.Header) { delete(h, "Nats-Subject") }, nil},
		"other content for one seq":  {0, func(nats.Header) {}, nil},
		"the very next seq":          {1, func(nats.Header) {}, []bus.Reason{bus.ReasonForked}},
		"a gap where there is none":  {1000, func(nats.Header) {}, []bus.Reason{bus.ReasonRolledBack}},
		"a gap that cannot be fixed": {1 << 40, func(nats.Header) {}, []bus.Reason{bus.ReasonTooFar}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBroker(t)
			b.ensure(t)
			a := b.open(t, b.config())
			r, _ := follow(t, a)
			r.waitResumes(t, 1)
			first, err := a.Publish(within(t, patience), "a", invalidate("a:1"))
			require.NoError(t, err)
			r.waitApplied(t, first.Seq)
			h := stored(first.Seq + uint64(c.above)).Header
			h["Nats-Time-Stamp"] = []string{time.Now().UTC().Format(time.RFC3339Nano)}
			c.change(h)
			forged := &nats.Msg{Subject: "nearside-live.test.ev.a", Header: h, Data: []byte(`{"keys":[{"key":"a:forged"}]}`)}
			require.NoError(t, b.admin.Conn().PublishMsg(forged))
			require.NoError(t, b.admin.Conn().Flush())
			second, err := a.Publish(within(t, patience), "a", invalidate("a:2"))
			require.NoError(t, err)
			r.waitResumes(t, 1+len(c.doubts))
			r.waitApplied(t, second.Seq)
			last, err := a.Publish(within(t, patience), "a", invalidate("a:3"))
			require.NoError(t, err)
			r.waitApplied(t, last.Seq)
			r.check(t, c.doubts...)
			require.Less(t, last.Seq, first.Seq+20, "no storm of pulses")
		})
	}
}
