package natsbus

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/nearside-cache/nearside/bus"
)

// staleAcks is how many acknowledgements that nobody waits for any more may pile
// up until the next barrier.
const staleAcks = 16

// ackInbox is where the acknowledgements of barrier pulses arrive: straight from
// the connection to whoever waits, which a request's common inbox is not. A
// barrier's time is mostly that of such changes of goroutine. It is used by one
// goroutine at a time.
type ackInbox struct {
	subject string // prefix of the reply subjects
	count   uint64
	acks    chan *nats.Msg // nil: not subscribed
}

// Barrier implements bus.Bus and rule B6.
func (b *Bus) Barrier(ctx context.Context) (bus.Position, error) {
	p, err := b.barriers.Do(ctx)
	if err != nil && b.ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return p, err
}

// publishPulse publishes one pulse without a role. Barriers calls it once at a
// time.
func (b *Bus) publishPulse(ctx context.Context) (bus.Ack, error) {
	e := bus.Event{Op: bus.OpPulse}
	if f := b.follower.Load(); f != nil {
		e = f.Pulse()
	}
	data, err := bus.Encode(e)
	if err != nil {
		return bus.Ack{}, fmt.Errorf("publish a pulse: %w", err)
	}
	subject, id := b.config.Stream.Subjects.Pulse(), newID()
	seq, ok := b.tryPulse(ctx, subject, id, data)
	if !ok {
		seq, err = b.publish(ctx, subject, id, data) // under the same id (B8)
	}
	return bus.Ack{Seq: seq, MsgID: id}, err
}

// tryPulse publishes once. Whatever is not an acknowledgement is left to publish,
// which tries again and knows what to make of it.
func (b *Bus) tryPulse(ctx context.Context, subject, id string, data []byte) (seq uint64, ok bool) {
	in := &b.pulseAcks
	if in.acks == nil {
		subject, acks := b.nc.NewInbox(), make(chan *nats.Msg, staleAcks)
		if _, err := b.nc.ChanSubscribe(subject+".*", acks); err != nil {
			return 0, false
		}
		in.subject, in.acks = subject, acks
	}
	for len(in.acks) > 0 {
		<-in.acks
	}
	in.count++
	reply := in.subject + "." + strconv.FormatUint(in.count, 10)
	ctx, done := b.waits.answer(ctx, subject)
	defer done()
	late := time.NewTimer(tryTimeout)
	defer late.Stop()
	if b.nc.PublishMsg(b.stream.message(subject, reply, id, data)) != nil {
		return 0, false
	}
	for {
		select {
		case m := <-in.acks:
			if m.Subject == reply {
				return acknowledged(m.Data, b.config.Stream.Subjects.Stream())
			}
		case <-late.C:
			return 0, false
		case <-ctx.Done():
			return 0, false
		}
	}
}

// acknowledged reads the stream's answer to a publish, mostly without the cost of
// JSON.
func acknowledged(data []byte, stream string) (seq uint64, ok bool) {
	if digits, plain := bytes.CutPrefix(data, []byte(`{"stream":"`+stream+`","seq":`)); plain {
		if digits, plain = bytes.CutSuffix(digits, []byte("}")); plain {
			seq, err := strconv.ParseUint(string(digits), 10, 64)
			return seq, err == nil && seq != 0
		}
	}
	var ack struct {
		Stream string              `json:"stream"`
		Seq    uint64              `json:"seq"`
		Error  *jetstream.APIError `json:"error"`
	}
	err := json.Unmarshal(data, &ack)
	return ack.Seq, err == nil && ack.Error == nil && ack.Stream == stream && ack.Seq != 0
}
