package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/nearside-cache/nearside/bus"
)

// Statuses that end a batch.
const (
	statusEnd         = 204
	statusNotFound    = 404
	statusNoResponder = 503
)

// errBroken says that a batch stopped at a message whose server headers cannot
// be read, or whose seq is out of order.
var errBroken = errors.New("natsbus: batch holds an unreadable message")

// Range implements bus.Log.
func (l *streamLog) Range(ctx context.Context, from uint64, limit int) ([]bus.Message, error) {
	msgs, err := l.batch(ctx, getRequest{Seq: from}, from, limit)
	if err != nil && !errors.Is(err, errBroken) {
		return nil, fmt.Errorf("read messages from %d on: %w", from, err)
	}
	return msgs, nil // at a broken message the caller goes on by asking the leader
}

// Since implements bus.Log.
func (l *streamLog) Since(ctx context.Context, t time.Time, limit int) ([]bus.Message, error) {
	msgs, err := l.batch(ctx, getRequest{StartTime: &t}, 1, limit)
	if errors.Is(err, errBroken) && len(msgs) == 0 {
		// The leader's answer is not in headers, and so cannot be broken by them.
		var m bus.Message
		m, err = l.get(ctx, getRequest{StartTime: &t, NextFor: l.stream.Subjects.All()})
		msgs = []bus.Message{m}
	}
	if err != nil && !errors.Is(err, errBroken) {
		return nil, fmt.Errorf("read messages since %s: %w", t.Format(time.RFC3339), err)
	}
	return msgs, nil
}

// batch reads messages with ascending seqs at or above from by one batched
// direct get. With errBroken it returns what came before the broken message.
func (l *streamLog) batch(ctx context.Context, req getRequest, from uint64, limit int) ([]bus.Message, error) {
	name := l.stream.Subjects.Stream()
	req.Batch, req.MaxBytes = min(limit, maxBatch), maxBatchBytes
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	answers := make(chan *nats.Msg, req.Batch+1) // one more for the end: never full
	inbox := l.nc.NewInbox()
	sub, err := l.nc.ChanSubscribe(inbox, answers)
	if err != nil {
		return nil, fmt.Errorf("natsbus: subscribe inbox: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only when the connection is closed
	subject := l.api + "DIRECT.GET." + name
	ctx, done := l.waits.answer(ctx, subject, inbox)
	defer done()
	if err := l.nc.PublishRequest(subject, inbox, body); err != nil {
		return nil, fmt.Errorf("natsbus: direct get from %s: %w", name, l.explain(err))
	}
	msgs, err := collect(ctx, answers, from, req.Batch)
	if err != nil && !errors.Is(err, errBroken) {
		return nil, fmt.Errorf("natsbus: direct get from %s: %w", name, l.explain(cause(ctx, err)))
	}
	return msgs, err
}

// collect reads the answers of one batch to its end.
func collect(ctx context.Context, answers <-chan *nats.Msg, from uint64, limit int) ([]bus.Message, error) {
	var msgs []bus.Message
	for {
		var answer *nats.Msg
		select {
		case answer = <-answers:
		case <-ctx.Done():
			return nil, fmt.Errorf("no end of the answer: %w", ctx.Err())
		}
		switch code := status(answer); code {
		case 0:
		case statusEnd, statusNotFound:
			return msgs, nil
		case statusNoResponder:
			return nil, nats.ErrNoResponders
		default:
			return nil, fmt.Errorf("status %d %s", code, answer.Header.Get("Description"))
		}
		m, err := parse(answer)
		if err != nil || m.Seq < from || len(msgs) == limit {
			return msgs, errBroken
		}
		msgs, from = append(msgs, m), m.Seq+1
	}
}
