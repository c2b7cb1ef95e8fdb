package natsbus_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/natsbus"
)

func TestEventsArriveInOrder(t *testing.T) {
	b := newBroker(t)
	b.ensure(t)
	one, two := b.open(t, b.config()), b.open(t, b.config())
	r1, _ := follow(t, one)
	r2, _ := follow(t, two)
	r1.waitResumes(t, 1)
	r2.waitResumes(t, 1)
	var at bus.Position
	for i := range 100 {
		from := []*natsbus.Bus{one, two}[i%2]
		p, err := from.Publish(within(t, patience), "product", bus.Event{Keys: []bus.KeyVersion{{Key: "product:1", Version: uint64(i + 1)}}})
		require.NoError(t, err)
		require.True(t, p.Covers(at))
		require.False(t, at.Covers(p))
		at = p
	}
	for _, r := range []*recorder{r1, r2} {
		r.waitApplied(t, at.Seq)
		r.check(t)
		require.Len(t, r.applied, 100)
		for i, d := range r.applied {
			require.EqualValues(t, i+1, d.Event.Keys[0].Version)
			require.Equal(t, "product", d.Namespace)
		}
	}
	s := one.Status()
	require.True(t, s.Connected)
	require.NotEmpty(t, s.Server)
	require.Equal(t, "NEARSIDE_TEST", s.Stream)
	require.Zero(t, s.Doubts)
}

// A process that publishes only still gives out positions of the right epoch.
func TestPublishWithoutFollowing(t *testing.T) {
	b := newBroker(t)
	info := b.ensure(t)
	p, err := b.open(t, b.config()).Publish(within(t, patience), "a", invalidate("a:1"))
	require.NoError(t, err)
	require.Equal(t, bus.Position{Epoch: bus.Epoch{Created: info.Created.UnixNano()}, Seq: info.Origin}, p)

	body, err := bus.Encode(bus.Event{Op: bus.OpFork})
	require.NoError(t, err)
	ack, err := b.admin.Publish(context.Background(), b.subjects.Fork(), body)
	require.NoError(t, err)
	p, err = b.open(t, b.config()).Publish(within(t, patience), "a", invalidate("a:1"))
	require.NoError(t, err)
	require.Equal(t, ack.Sequence, p.Epoch.Fork)
}

func TestStreamIsCreatedOnAttaching(t *testing.T) {
	b := newBroker(t)
	c := b.config()
	c.CreateStream = true
	r, _ := follow(t, b.open(t, c))
	r.waitResumes(t, 1)
	info := b.ensure(t)
	require.Empty(t, info.Deviations)
	require.Equal(t, info.Origin, r.resumes[0].Position.Seq)
}

func TestMissingStreamIsAnError(t *testing.T) {
	b := newBroker(t)
	a := b.open(t, b.config())
	_, err := a.Publish(within(t, patience), "a", invalidate("a:1"))
	require.ErrorIs(t, err, bus.ErrUnfit)
	err = a.Follow(within(t, patience), newRecorder(), bus.FollowConfig{})
	require.ErrorIs(t, err, bus.ErrUnfit)
	require.ErrorContains(t, err, "nearside stream ensure")
}

func TestUnfitStreamIsRefused(t *testing.T) {
	b := newBroker(t)
	c := natsbus.StreamConfig{Subjects: b.subjects}.JetStream(time.Now(), 1)
	c.AllowRollup, c.DenyPurge = true, false
	_, err := b.admin.CreateStream(context.Background(), c)
	require.NoError(t, err)
	err = b.open(t, b.config()).Follow(within(t, patience), newRecorder(), bus.FollowConfig{})
	require.ErrorIs(t, err, bus.ErrUnfit)
	require.ErrorContains(t, err, "allow_rollup_hdrs")
	require.ErrorContains(t, err, "deny_purge")
}

// An operator who deletes the stream gets a doubt first and a new stream then.
func TestDeletedStreamIsCreatedAgain(t *testing.T) {
	b := newBroker(t)
	c := b.config()
	c.CreateStream = true
	a := b.open(t, c)
	r, _ := follow(t, a)
	r.waitResumes(t, 1)
	before, err := a.Publish(within(t, patience), "a", invalidate("a:1"))
	require.NoError(t, err)
	r.waitApplied(t, before.Seq)
	require.NoError(t, b.admin.DeleteStream(context.Background(), b.subjects.Stream()))
	after, err := a.Publish(within(t, patience), "a", invalidate("a:2"))
	require.NoError(t, err, "a publish brings the stream back")
	r.waitResumes(t, 2)
	require.Len(t, r.doubts, 1)
	require.Contains(t, []bus.Reason{bus.ReasonDeleted, bus.ReasonRecreated}, r.doubts[0])
	require.Greater(t, after.Seq, before.Seq, "seqs are not reused")
	r.wait(t, "the event", func() bool { return r.resumes[1].Position.Covers(after) || r.keys["a:2"] == 1 })
	require.NotZero(t, r.resumes[1].Blind, "only the first stream that one makes has no history before it")
}

func TestStreamThatStaysDeleted(t *testing.T) {
	b := newBroker(t)
	b.ensure(t)
	a := b.open(t, b.config())
	r, stop := follow(t, a)
	r.waitResumes(t, 1)
	require.NoError(t, b.admin.DeleteStream(context.Background(), b.subjects.Stream()))
	_, err := a.Publish(within(t, 500*time.Millisecond), "a", invalidate("a:1"))
	require.ErrorIs(t, err, bus.ErrNotAcknowledged)
	r.wait(t, "the doubt", func() bool { return len(r.doubts) == 1 })
	require.Equal(t, bus.ReasonDeleted, r.doubts[0])
	_, err = b.admin.Stream(context.Background(), b.subjects.Stream())
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound, "nobody asked for a new one")
	b.ensure(t)
	r.waitResumes(t, 2)
	require.NoError(t, stop())
}

func TestStartsWhileNATSIsAway(t *testing.T) {
	b := newBroker(t)
	b.ensure(t)
	b.down(t)
	a := b.open(t, b.config())
	r, _ := follow(t, a)
	require.False(t, a.Status().Connected)
	_, err := a.Publish(within(t, 100*time.Millisecond), "a", invalidate("a:1"))
	require.ErrorIs(t, err, bus.ErrNotAcknowledged)
	b.start(t, b.dir)
	r.waitResumes(t, 1)
	p, err := a.Publish(within(t, patience), "a", invalidate("a:2"))
	require.NoError(t, err)
	r.waitApplied(t, p.Seq)
	r.check(t)
	require.Zero(t, r.keys["a:1"])
}

func TestFollowOnce(t *testing.T) {
	b := newBroker(t)
	b.ensure(t)
	a := b.open(t, b.config())
	r, stop := follow(t, a)
	r.waitResumes(t, 1)
	require.ErrorContains(t, a.Follow(context.Background(), newRecorder(), bus.FollowConfig{}), "once")
	require.NoError(t, stop(), "the end of the context is no error")
}

func TestCloseEndsEverything(t *testing.T) {
	b := newBroker(t)
	b.ensure(t)
	a := b.open(t, b.config())
	r, ended := newRecorder(), make(chan error, 2)
	go func() { ended <- a.Follow(context.Background(), r, bus.FollowConfig{}) }()
	r.waitResumes(t, 1)
	b.down(t)
	go func() {
		_, err := a.Publish(context.Background(), "a", invalidate("a:1"))
		ended <- err
	}()
	require.NoError(t, a.Close())
	require.NoError(t, a.Close())
	for range 2 {
		require.ErrorIs(t, <-ended, natsbus.ErrClosed)
	}
	_, err := a.Publish(context.Background(), "a", invalidate("a:1"))
	require.ErrorIs(t, err, natsbus.ErrClosed)
	require.ErrorIs(t, a.Follow(context.Background(), r, bus.FollowConfig{}), natsbus.ErrClosed)
	require.False(t, a.Status().Connected)
}

func TestOpenRefusesBadConfiguration(t *testing.T) {
	subjects, err := bus.NewSubjects("test")
	require.NoError(t, err)
	stream := natsbus.StreamConfig{Subjects: subjects}
	seed := filepath.Join(t.TempDir(), "seed")
	require.NoError(t, os.WriteFile(seed, []byte("no seed"), 0o600))
	for name, c := range map[string]struct {
		cfg  natsbus.Config
		want string
	}{
		"no url":            {natsbus.Config{Stream: stream}, "no NATS URL"},
		"no domain":         {natsbus.Config{URL: "nats://127.0.0.1:1"}, "no domain"},
		"no credentials":    {natsbus.Config{URL: "nats://127.0.0.1:1", Stream: stream, Credentials: "/nowhere"}, "credentials file"},
		"bad seed":          {natsbus.Config{URL: "nats://127.0.0.1:1", Stream: stream, NKeySeed: seed}, "nkey seed file"},
		"two identities":    {natsbus.Config{URL: "nats://127.0.0.1:1", Stream: stream, NKeySeed: seed, Credentials: seed}, "want one"},
		"no such CA":        {natsbus.Config{URL: "nats://127.0.0.1:1", Stream: stream, CA: "/nowhere"}, "/nowhere"},
		"certificate alone": {natsbus.Config{URL: "nats://127.0.0.1:1", Stream: stream, Cert: seed}, "want both or none"},
		"bad buffer":        {natsbus.Config{URL: "nats://127.0.0.1:1", Stream: stream, LiveBuffer: -1}, "live buffer"},
		"short age":         {natsbus.Config{URL: "nats://127.0.0.1:1", Stream: natsbus.StreamConfig{Subjects: subjects, MaxAge: time.Second}}, "max-age"},
		"replicas":          {natsbus.Config{URL: "nats://127.0.0.1:1", Stream: natsbus.StreamConfig{Subjects: subjects, Replicas: 6}}, "replicas"},
		"max bytes":         {natsbus.Config{URL: "nats://127.0.0.1:1", Stream: natsbus.StreamConfig{Subjects: subjects, MaxBytes: -1}}, "max-bytes"},
		"bad domain prefix": {natsbus.Config{URL: "nats://127.0.0.1:1", Stream: stream, JetStreamDomain: "a b"}, "JetStream domain"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := natsbus.Open(context.Background(), c.cfg)
			require.ErrorContains(t, err, c.want)
		})
	}
	all := natsbus.Config{JetStreamDomain: "a b", LiveBuffer: -1, Stream: natsbus.StreamConfig{Replicas: 6, MaxAge: time.Second, MaxBytes: -1}}.Validate()
	for _, want := range []string{"no NATS URL", "JetStream domain", "live buffer", "no domain", "replicas", "max-age", "max-bytes"} {
		require.ErrorContains(t, all, want, "all faults at once")
	}

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = natsbus.Open(ctx, natsbus.Config{URL: "nats://127.0.0.1:1", Stream: stream})
	require.True(t, errors.Is(err, context.Canceled))
}
