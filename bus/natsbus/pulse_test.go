package natsbus_test

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/natsbus"
)

// Whatever is not an acknowledgement of this very stream is none.
func TestAcknowledged(t *testing.T) {
	for answer, seq := range map[string]uint64{
		`{"stream":"S","seq":7}`:                                     7,
		`{"stream":"S", "seq":7, "domain":"hub", "duplicate": true}`: 7,
		`{"stream":"T","seq":7}`:                                     0,
		`{"seq":7}`:                                                  0,
		`{"stream":"S","seq":0}`:                                     0,
		`{"stream":"S","seq":-7}`:                                    0,
		`{"error":{"code":503,"err_code":10008},"stream":"S","seq":7}`: 0,
		`{"stream":"S","seq":7`: 0,
		``:                      0,
	} {
		got, ok := natsbus.Acknowledged([]byte(answer), "S")
		require.Equal(t, seq != 0, ok, answer)
		if ok {
			require.Equal(t, seq, got, answer)
		}
	}
}

// A pulse that was refused for the moment is tried again under its id (B8).
func TestPulseIsRetriedUnderItsID(t *testing.T) {
	b := newBroker(t) // no stream: the test answers in its place
	ids := make(chan string, 2)
	respond(t, b, func(m *nats.Msg) string {
		ids <- m.Header.Get(nats.MsgIdHdr)
		if len(ids) == 1 {
			return refusal
		}
		return fmt.Sprintf(`{"stream":%q,"seq":5}`, b.subjects.Stream())
	})
	_, err := b.open(t, b.config()).Barrier(within(t, patience))
	require.ErrorIs(t, err, bus.ErrUnfit, "acknowledged, but there is no epoch")
	first := <-ids
	require.NotEmpty(t, first)
	require.Equal(t, first, <-ids)
}

// The acknowledgement of a former try is not taken for that of another pulse.
func TestPulseIsAcknowledgedItself(t *testing.T) {
	b := newBroker(t)
	b.ensure(t)
	a := b.open(t, b.config())
	r, _ := follow(t, a)
	r.waitResumes(t, 1)
	respond(t, b, func(*nats.Msg) string { return refusal }) // beside the stream, and often quicker
	var last bus.Position
	for range 20 {
		p, err := a.Barrier(within(t, patience))
		require.NoError(t, err)
		require.Greater(t, p.Seq, last.Seq)
		last = p
	}
	r.check(t)
}

const refusal = `{"error":{"code":503,"err_code":10008,"description":"not now"}}`

// respond answers pulses.
func respond(t *testing.T, b *broker, answer func(*nats.Msg) string) {
	nc, err := nats.Connect("", nats.InProcessServer(b.link()))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	_, err = nc.Subscribe(b.subjects.Pulse(), func(m *nats.Msg) { _ = m.Respond([]byte(answer(m))) })
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
}
