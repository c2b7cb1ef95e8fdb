package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/nearside-cache/nearside/bus"
)

const (
	// maxBatch and maxBatchBytes bound one batched read: there is no flow
	// control, so the answer must fit what the connection can buffer.
	maxBatch      = 1024
	maxBatchBytes = 4 << 20
)

// streamLog is the bus.Log of one stream.
type streamLog struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	api     string // prefix of the JetStream API, with the last dot
	stream  StreamConfig
	create  bool // create the stream when it is missing
	waits   *waits
	attempt *attempt

	mu      sync.Mutex
	known   bool // the stream was there once
	missing bool // State has said that it is gone
}

// State implements bus.Log. A missing stream is created on first attaching, and
// afterwards only once its absence has been reported, so that the doubt comes
// before the new stream.
func (l *streamLog) State(ctx context.Context) (bus.LogState, error) {
	l.mu.Lock()
	known, missing := l.known, l.missing
	l.mu.Unlock()
	info, _, err := l.inspect(ctx, l.create && (!known || missing))
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(err, bus.ErrNotFound) {
		if !l.known {
			return bus.LogState{}, fmt.Errorf("%w: there is no stream %s: create it with nearside stream ensure", bus.ErrUnfit, l.stream.Subjects.Stream())
		}
		l.missing = true
	}
	if err != nil {
		return bus.LogState{}, err
	}
	l.known, l.missing = true, false
	return bus.LogState{
		Created: info.Created,
		First:   info.First,
		Last:    info.Last,
	}, nil
}

func (l *streamLog) inspect(ctx context.Context, create bool) (info Info, created bool, err error) {
	name := l.stream.Subjects.Stream()
	ctx, done := l.waits.answer(ctx, l.api+"STREAM.INFO."+name, l.api+"STREAM.CREATE."+name)
	defer done()
	if create {
		info, created, err = Ensure(ctx, l.js, l.stream)
	} else {
		info, err = Inspect(ctx, l.js, l.stream)
	}
	return info, created, cause(ctx, err)
}

// storedMessage is the answer of STREAM.MSG.GET.
type storedMessage struct {
	Error   *jetstream.APIError `json:"error"`
	Message *struct {
		Subject string    `json:"subject"`
		Seq     uint64    `json:"seq"`
		Header  []byte    `json:"hdrs"`
		Data    []byte    `json:"data"`
		Time    time.Time `json:"time"`
	} `json:"message"`
}

// getRequest is the question of STREAM.MSG.GET and DIRECT.GET.
type getRequest struct {
	Seq       uint64     `json:"seq,omitempty"`
	StartTime *time.Time `json:"start_time,omitempty"`
	LastFor   string     `json:"last_by_subj,omitempty"`
	NextFor   string     `json:"next_by_subj,omitempty"`
	Batch     int        `json:"batch,omitempty"`
	MaxBytes  int        `json:"max_bytes,omitempty"`
}

// At implements bus.Log.
func (l *streamLog) At(ctx context.Context, seq uint64) (bus.Message, error) {
	m, err := l.get(ctx, getRequest{Seq: seq})
	if err != nil {
		return bus.Message{}, fmt.Errorf("read message %d: %w", seq, err)
	}
	return m, nil
}

// Last implements bus.Log.
func (l *streamLog) Last(ctx context.Context, subject string) (bus.Message, error) {
	return l.get(ctx, getRequest{LastFor: subject})
}

// get reads one message from the stream's leader. It asks by hand because
// nats.go would ask any replica, and would believe forged headers.
func (l *streamLog) get(ctx context.Context, req getRequest) (bus.Message, error) {
	name := l.stream.Subjects.Stream()
	subject := l.api + "STREAM.MSG.GET." + name
	body, err := json.Marshal(req)
	if err != nil {
		return bus.Message{}, err
	}
	ctx, done := l.waits.answer(ctx, subject)
	defer done()
	answer, err := l.nc.RequestWithContext(ctx, subject, body)
	if err != nil {
		return bus.Message{}, fmt.Errorf("natsbus: ask the leader of %s: %w", name, l.explain(cause(ctx, err)))
	}
	var got storedMessage
	if err := json.Unmarshal(answer.Data, &got); err != nil {
		return bus.Message{}, fmt.Errorf("natsbus: answer of the leader of %s: %w", name, err)
	}
	if got.Error != nil && got.Error.ErrorCode == codeNoMessage {
		return bus.Message{}, bus.ErrNotFound
	}
	if got.Error != nil {
		return bus.Message{}, fmt.Errorf("natsbus: leader of %s: %w", name, got.Error)
	}
	if got.Message == nil {
		return bus.Message{}, fmt.Errorf("natsbus: answer of the leader of %s holds neither a message nor an error", name)
	}
	m := bus.Message{Seq: got.Message.Seq, Time: got.Message.Time, Subject: got.Message.Subject, Data: got.Message.Data}
	// Headers that cannot be read carry no id for the live feed either.
	if h, err := nats.DecodeHeadersMsg(got.Message.Header); err == nil {
		m.MsgID = first(h, headerMsgID)
	}
	return m, nil
}

// Append implements bus.Log.
func (l *streamLog) Append(ctx context.Context, subject, msgID string, data []byte) (uint64, error) {
	msg := l.message(subject, "", msgID, data)
	ctx, done := l.waits.answer(ctx, subject)
	defer done()
	ack, err := l.js.PublishMsg(ctx, msg, jetstream.WithRetryAttempts(0))
	err = cause(ctx, err)
	switch {
	case err == nil:
		return ack.Sequence, nil
	case errors.Is(err, nats.ErrMaxPayload), isCode(err, codeMessageTooLarge):
		return 0, fmt.Errorf("natsbus: publish %d bytes on %s: %w: %w", len(data), subject, bus.ErrTooLarge, err)
	case errors.Is(err, jetstream.ErrNoStreamResponse):
		return 0, fmt.Errorf("natsbus: publish on %s: %w", subject, l.noStream(ctx, err))
	default:
		return 0, fmt.Errorf("natsbus: publish on %s: %w", subject, l.explain(err))
	}
}

// message is one that no other stream takes, and that this one stores once.
func (l *streamLog) message(subject, reply, msgID string, data []byte) *nats.Msg {
	return &nats.Msg{Subject: subject, Reply: reply, Data: data, Header: nats.Header{
		headerMsgID:    {msgID},
		headerExpected: {l.stream.Subjects.Stream()},
	}}
}

// noStream says why nobody took a publish, and does what State does about a
// missing stream: a publish is what notices it first.
func (l *streamLog) noStream(ctx context.Context, err error) error {
	if _, why := l.State(ctx); why != nil {
		return fmt.Errorf("%w: %w", err, why)
	}
	return fmt.Errorf("%w: the stream has no leader at the moment", err)
}

// epoch reads the present epoch from the leader. The newest pulse knows of a
// fork event that retention has removed.
func (l *streamLog) epoch(ctx context.Context) (bus.Epoch, error) {
	state, err := l.State(ctx)
	if err != nil {
		return bus.Epoch{}, err
	}
	epoch := bus.Epoch{Created: state.Created.UnixNano()}
	for _, subject := range []string{l.stream.Subjects.Fork(), l.stream.Subjects.Pulse()} {
		m, err := l.get(ctx, getRequest{LastFor: subject})
		if err != nil && !errors.Is(err, bus.ErrNotFound) {
			return bus.Epoch{}, fmt.Errorf("read the last message on %s: %w", subject, err)
		}
		epoch.Fork = max(epoch.Fork, bus.ForkOf(l.stream.Subjects, m))
	}
	return epoch, nil
}

// explain is explain, and says why there is no connection.
func (l *streamLog) explain(err error) error {
	err = explain(err)
	if why := l.attempt.failure(); why != nil && errors.Is(err, ErrNotConnected) {
		return fmt.Errorf("%w: %w", err, why)
	}
	return err
}
