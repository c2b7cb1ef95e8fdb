package bus_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
)

// position asks acks for the position of an acknowledgement; the follower of r
// is told of it.
func position(t *testing.T, acks *bus.Acks, r rig, a bus.Ack) <-chan bus.Position {
	t.Helper()
	t.Cleanup(acks.Following())
	answer := make(chan bus.Position, 1)
	go func() {
		defer close(answer)
		if p, err := acks.Position(t.Context(), a); err == nil {
			answer <- p
		}
	}()
	r.Expect(<-acks.Queue())
	return answer
}

func TestPositionOfAnAppliedEvent(t *testing.T) {
	r := startedRig(t, 0)
	m := r.log.events(t, 2)
	answer := position(t, bus.NewAcks(), r, bus.Ack{Seq: m[0].Seq, MsgID: m[0].MsgID})
	r.Receive(m[0])
	r.Receive(m[1])
	require.Equal(t, bus.Position{Epoch: r.Position().Epoch, Seq: m[0].Seq}, <-answer)
}

func TestPositionOfAnEventThatARollbackLost(t *testing.T) {
	r := startedRig(t, 2)
	lost := r.log.events(t, 40)
	answer := position(t, bus.NewAcks(), r, bus.Ack{Seq: lost[39].Seq, MsgID: lost[39].MsgID})
	r.log.cut(3)
	r.Disturbed()
	r.recover()
	r.requireDoubts(bus.ReasonRolledBack)
	require.Equal(t, r.Position(), <-answer, "the flush covers it, and the stream is far from its seq")
}
