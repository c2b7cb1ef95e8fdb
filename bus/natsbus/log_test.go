package natsbus_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/natsbus"
)

// put stores a message and returns its seq.
func put(t testing.TB, b *broker, m *nats.Msg, opts ...jetstream.PublishOpt) uint64 {
	ack, err := b.admin.PublishMsg(within(t, patience), m, opts...)
	require.NoError(t, err)
	return ack.Sequence
}

func TestLogReads(t *testing.T) {
	b := newBroker(t)
	info := b.ensure(t)
	log := b.open(t, b.config()).Log()
	ctx := within(t, patience)

	s, err := log.State(ctx)
	require.NoError(t, err)
	require.Equal(t, bus.LogState{Created: info.Created, First: info.Origin, Last: info.Origin - 1}, s)
	_, err = log.At(ctx, info.Origin)
	require.ErrorIs(t, err, bus.ErrNotFound)
	none, err := log.Range(ctx, info.Origin, 10)
	require.NoError(t, err)
	require.Empty(t, none)
	none, err = log.Since(ctx, time.Now().Add(-time.Hour), 10)
	require.NoError(t, err)
	require.Empty(t, none)
	_, err = log.Last(ctx, b.subjects.Fork())
	require.ErrorIs(t, err, bus.ErrNotFound)

	subject, err := b.subjects.Event("a")
	require.NoError(t, err)
	for i := range 5 {
		seq, err := log.Append(ctx, subject, fmt.Sprintf("id%d", i), []byte{byte(i)})
		require.NoError(t, err)
		require.Equal(t, info.Origin+uint64(i), seq)
	}
	again, err := log.Append(ctx, subject, "id3", []byte("another body"))
	require.NoError(t, err)
	require.Equal(t, info.Origin+3, again, "one id is one event")
	forked, err := log.Append(ctx, b.subjects.Fork(), "fork", []byte("f"))
	require.NoError(t, err)
	fork, err := log.Last(ctx, b.subjects.Fork())
	require.NoError(t, err)
	require.Equal(t, forked, fork.Seq)

	all, err := log.Range(ctx, info.Origin, 100)
	require.NoError(t, err)
	require.Len(t, all, 6)
	for i, m := range all {
		require.Equal(t, info.Origin+uint64(i), m.Seq)
		at, err := log.At(ctx, m.Seq)
		require.NoError(t, err)
		require.Equal(t, at.Digest(), m.Digest(), "leader and replicas tell the same")
		require.Equal(t, at.MsgID, m.MsgID)
	}
	require.Equal(t, subject, all[2].Subject)
	require.Equal(t, "id2", all[2].MsgID)
	some, err := log.Range(ctx, info.Origin+1, 2)
	require.NoError(t, err)
	require.Equal(t, all[1:3], some)
	since, err := log.Since(ctx, all[3].Time, 2)
	require.NoError(t, err)
	require.Equal(t, all[3:5], since)
}

// Following does not make a stream in place of a deleted one before it was told.
func TestAbsenceIsToldBeforeItIsMended(t *testing.T) {
	b := newBroker(t)
	c := b.config()
	c.CreateStream = true
	log := b.open(t, c).Log()
	ctx := within(t, patience)
	_, err := log.State(ctx)
	require.NoError(t, err)
	require.NoError(t, b.admin.DeleteStream(ctx, b.subjects.Stream()))
	_, err = log.State(ctx)
	require.ErrorIs(t, err, bus.ErrNotFound)
	require.Eventually(t, func() bool {
		_, err = log.State(ctx)
		return err == nil
	}, patience, time.Millisecond)
}

// A batch ends by its size long before it fills the memory.
func TestRangeIsBoundedInBytes(t *testing.T) {
	b := newBroker(t)
	info := b.ensure(t)
	log := b.open(t, b.config()).Log()
	subject, err := b.subjects.Event("a")
	require.NoError(t, err)
	for range 12 {
		put(t, b, &nats.Msg{Subject: subject, Data: make([]byte, 1<<19)})
	}
	msgs, err := log.Range(within(t, patience), info.Origin, 100)
	require.NoError(t, err)
	require.Len(t, msgs, 8)
	rest, err := log.Range(within(t, patience), msgs[7].Seq+1, 100)
	require.NoError(t, err)
	require.Len(t, rest, 4)
}

// forgeries are headers by which a publisher could pretend to be the server.
func forgeries(subject string) map[string]nats.Header {
	return map[string]nats.Header{
		"server headers": {
			"Nats-Sequence": {"999"}, "Nats-Stream": {"OTHER"}, "Nats-Subject": {"nearside.test.fork"},
			"Nats-Time-Stamp": {"2001-01-01T00:00:00Z"}, "Nats-Last-Sequence": {"998"}, "Nats-Num-Pending": {"0"},
		},
		"not found":   {"Status": {"404"}, "Description": {"Message Not Found"}},
		"end":         {"Status": {"204"}, "Description": {"EOB"}, "Nats-Num-Pending": {"0"}},
		"nobody":      {"Status": {"503"}},
		"bad request": {"Status": {"408"}},
		"all of it":   {"Status": {"404"}, "Nats-Sequence": {"1"}, "Nats-Stream": {"NEARSIDE_TEST"}},
		"two ids":     {"Nats-Msg-Id": {"one", "two"}},
		"other case":  {"nats-sequence": {"7"}, "status": {"404"}},
	}
}

// B1: only the last value of a header is the server's, in reads and in the live
// feed, and no stored message is a status.
func TestForgedHeaders(t *testing.T) {
	b := newBroker(t)
	b.ensure(t)
	a := b.open(t, b.config())
	log := a.Log()
	r, _ := follow(t, a)
	r.waitResumes(t, 1)
	subject, err := b.subjects.Event("a")
	require.NoError(t, err)
	for name, h := range forgeries(subject) {
		t.Run(name, func(t *testing.T) {
			seq := put(t, b, &nats.Msg{Subject: subject, Header: h})
			after := put(t, b, &nats.Msg{Subject: subject, Data: []byte("{}")})
			at, err := log.At(within(t, patience), seq)
			require.NoError(t, err)
			msgs, err := log.Range(within(t, patience), seq, 10)
			require.NoError(t, err)
			require.Len(t, msgs, 2, "the forgery neither ends the batch nor stops it")
			require.Equal(t, at.Seq, msgs[0].Seq)
			require.Equal(t, at.Digest(), msgs[0].Digest())
			require.Equal(t, subject, msgs[0].Subject)
			since, err := log.Since(within(t, patience), at.Time, 1)
			require.NoError(t, err)
			require.Len(t, since, 1)
			require.Equal(t, seq, since[0].Seq)
			r.waitApplied(t, after)
		})
	}
	r.check(t)
	require.Zero(t, a.Status().Gaps, "the live feed was read aright")
}

// rawPublish sends a header block that nats.go would not send.
func rawPublish(t testing.TB, b *broker, subject, block, body string) {
	conn, err := b.link().InProcessConn()
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	text := fmt.Sprintf("CONNECT {\"verbose\":false,\"headers\":true}\r\nHPUB %s %d %d\r\n%s%s\r\nPING\r\n", subject, len(block), len(block)+len(body), block, body)
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write([]byte(text))
		sent <- err
	}()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
	for seen, buf := "", make([]byte, 4096); !strings.Contains(seen, "PONG"); {
		n, err := conn.Read(buf)
		require.NoError(t, err, seen)
		seen += string(buf[:n])
	}
	require.NoError(t, <-sent)
}

// A header block that hides the server's headers, or cannot be read at all, is
// fetched from the leader, whose answers are not in headers.
func TestBrokenHeaders(t *testing.T) {
	forged := "Nats-Sequence: 5\r\nNats-Stream: NEARSIDE_TEST\r\nNats-Subject: nearside.test.ev.b\r\nNats-Time-Stamp: 2001-01-01T00:00:00Z\r\n"
	for name, block := range map[string]string{
		"ends early":           "NATS/1.0\r\nA: b\r\n\r\nC: d\r\n\r\n",
		"ends early, forged":   "NATS/1.0\r\n" + forged + "\r\nC: d\r\n\r\n",
		"ends early, a status": "NATS/1.0\r\nStatus: 404\r\n\r\nC: d\r\n\r\n",
		"status line":          "NATS/1.0 404 Not Found\r\n\r\n",
		"no colon":             "NATS/1.0\r\nnonsense\r\n\r\n",
		"no end":               "NATS/1.0\r\nA: b",
	} {
		t.Run(name, func(t *testing.T) {
			b := newBroker(t)
			b.ensure(t)
			a := b.open(t, b.config())
			r, _ := follow(t, a)
			r.waitResumes(t, 1)
			subject, err := b.subjects.Event("a")
			require.NoError(t, err)
			rawPublish(t, b, subject, block, `{"keys":[{"key":"a:1"}]}`)
			after := put(t, b, &nats.Msg{Subject: subject, Data: []byte(`{"keys":[{"key":"a:2"}]}`)})
			r.waitApplied(t, after)
			r.check(t)
			require.Equal(t, map[string]int{"a:1": 1, "a:2": 1}, r.keys)

			log := a.Log()
			at, err := log.At(within(t, patience), after-1)
			require.NoError(t, err)
			since, err := log.Since(within(t, patience), at.Time, 10)
			require.NoError(t, err)
			require.NotEmpty(t, since)
			require.Equal(t, at.Digest(), since[0].Digest())
		})
	}
}

// fakeServer answers direct gets in place of a stream's servers.
func fakeServer(t testing.TB, b *broker, answers ...*nats.Msg) {
	sub, err := b.admin.Conn().Subscribe("$JS.fake.API.DIRECT.GET."+b.subjects.Stream(), func(m *nats.Msg) {
		for _, a := range answers {
			a.Subject = m.Reply
			_ = b.admin.Conn().PublishMsg(a)
		}
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	require.NoError(t, b.admin.Conn().Flush())
}

func stored(seq uint64) *nats.Msg {
	return &nats.Msg{Header: nats.Header{
		"Nats-Stream": {"NEARSIDE_TEST"}, "Nats-Subject": {"nearside.test.ev.a"},
		"Nats-Sequence": {fmt.Sprint(seq)}, "Nats-Time-Stamp": {"2026-01-01T00:00:00Z"},
	}}
}

func statusOf(code string) *nats.Msg { return &nats.Msg{Header: nats.Header{"Status": {code}}} }

// What replicas and other servers may answer.
func TestRangeAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answers []*nats.Msg
		want    []uint64
		err     string
	}{
		"a replica that lags":    {[]*nats.Msg{stored(5), statusOf("204")}, []uint64{5}, ""},
		"one that has nothing":   {[]*nats.Msg{statusOf("404")}, nil, ""},
		"a hole":                 {[]*nats.Msg{stored(5), stored(8), statusOf("204")}, []uint64{5, 8}, ""},
		"a hole in front":        {[]*nats.Msg{stored(7), statusOf("204")}, []uint64{7}, ""},
		"what was not asked for": {[]*nats.Msg{stored(4), statusOf("204")}, nil, ""},
		"out of order":           {[]*nats.Msg{stored(6), stored(5), statusOf("204")}, []uint64{6}, ""},
		"more than asked for":    {[]*nats.Msg{stored(5), stored(6), stored(7), stored(8), statusOf("204")}, []uint64{5, 6, 7}, ""},
		"bad request":            {[]*nats.Msg{statusOf("408")}, nil, "status 408"},
		"too much":               {[]*nats.Msg{statusOf("413")}, nil, "status 413"},
		"nobody":                 {[]*nats.Msg{statusOf("503")}, nil, "no responders"},
		"no end":                 {[]*nats.Msg{stored(5)}, nil, "deadline exceeded"},
		"no answer":              {nil, nil, "deadline exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBroker(t)
			fakeServer(t, b, c.answers...)
			config := b.config()
			config.JetStreamDomain = "fake"
			log := b.open(t, config).Log()
			ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
			defer cancel()
			msgs, err := log.Range(ctx, 5, 3)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			var seqs []uint64
			for _, m := range msgs {
				seqs = append(seqs, m.Seq)
			}
			require.Equal(t, c.want, seqs)
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add("Nats-Sequence", "1", "Nats-Stream", "S", []byte("x"))
	f.Add("Status", "404", "Nats-Time-Stamp", "2026-01-01T00:00:00Z", []byte(nil))
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string, data []byte) {
		m := stored(77)
		m.Data = data
		// Whatever a publisher puts in front, the server's own values count.
		for _, kv := range [][2]string{{k1, v1}, {k2, v2}} {
			m.Header[kv[0]] = append([]string{kv[1]}, m.Header[kv[0]]...)
		}
		if got, err := natsbus.Parse(m); err == nil {
			require.EqualValues(t, 77, got.Seq)
			require.Equal(t, "nearside.test.ev.a", got.Subject)
		}
		require.Zero(t, natsbus.Status(m))
	})
}
