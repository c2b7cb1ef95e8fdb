package natsbus

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/nearside-cache/nearside/bus"
)

// bucketPoll is how often a Wait looks by itself. It is told of most changes, but
// not of those that are lost on the way, nor of expiry.
const bucketPoll = 250 * time.Millisecond

// Headers that mark what is no value: a key that was deleted by a client, or
// that the server removed.
const (
	headerOperation = "KV-Operation"
	headerMarker    = jetstream.MarkerReasonHeader
)

// record is what the stream holds under a key's subject.
type record struct {
	value    []byte
	revision uint64
	absent   bool // revision is that of a marker, or 0
}

// Get implements bus.Bucket.
func (k *bucket) Get(ctx context.Context, key string) ([]byte, uint64, error) {
	return k.read(ctx, key, k.direct)
}

// Latest implements bus.Bucket.
func (k *bucket) Latest(ctx context.Context, key string) ([]byte, uint64, error) {
	return k.read(ctx, key, k.leader)
}

type source func(ctx context.Context, key string) (record, error)

func (k *bucket) read(ctx context.Context, key string, from source) ([]byte, uint64, error) {
	if err := bus.CheckBucketKey(key); err != nil {
		return nil, 0, err
	}
	ctx, done, err := k.b.begin(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer done()
	r, err := from(ctx, key)
	if err != nil {
		return nil, 0, fmt.Errorf("natsbus: read from %s: %w", k.stream, err)
	}
	if r.absent {
		return nil, 0, bus.ErrKeyNotFound
	}
	return r.value, r.revision, nil
}

// direct asks any replica.
func (k *bucket) direct(ctx context.Context, key string) (record, error) {
	subject := k.b.stream.api + "DIRECT.GET." + k.stream + "." + k.subjects + token(key)
	ctx, done := k.b.waits.answer(ctx, subject)
	defer done()
	answer, err := k.b.nc.RequestWithContext(ctx, subject, nil)
	if err != nil {
		return record{}, k.b.stream.explain(cause(ctx, err))
	}
	switch code := status(answer); code {
	case 0:
	case statusNotFound:
		return record{absent: true}, nil
	default:
		return record{}, fmt.Errorf("status %d %s", code, answer.Header.Get("Description"))
	}
	m, err := parse(answer)
	if err != nil {
		return record{}, err
	}
	return newRecord(key, m.Seq, answer.Header, m.Data)
}

// leader asks the leader. Its answer is not in headers, so that none can hide it.
func (k *bucket) leader(ctx context.Context, key string) (record, error) {
	subject := k.b.stream.api + "STREAM.MSG.GET." + k.stream
	body, err := json.Marshal(getRequest{LastFor: k.subjects + token(key)})
	if err != nil {
		return record{}, err
	}
	ctx, done := k.b.waits.answer(ctx, subject)
	defer done()
	answer, err := k.b.nc.RequestWithContext(ctx, subject, body)
	if err != nil {
		return record{}, k.b.stream.explain(cause(ctx, err))
	}
	var got storedMessage
	if err := json.Unmarshal(answer.Data, &got); err != nil {
		return record{}, fmt.Errorf("answer of the leader: %w", err)
	}
	switch {
	case got.Error != nil && got.Error.ErrorCode == codeNoMessage:
		return record{absent: true}, nil
	case got.Error != nil:
		return record{}, fmt.Errorf("answer of the leader: %w", got.Error)
	case got.Message == nil:
		return record{}, errors.New("the leader's answer holds neither a message nor an error")
	}
	var header nats.Header
	if len(got.Message.Header) > 0 {
		if header, err = nats.DecodeHeadersMsg(got.Message.Header); err != nil {
			return record{}, fmt.Errorf("answer of the leader: %w", err)
		}
	}
	return newRecord(key, got.Message.Seq, header, got.Message.Data)
}

// isRemoval reports whether a header marks what is no value.
func isRemoval(h nats.Header) bool {
	return first(h, headerOperation) != "" || first(h, headerMarker) != ""
}

func newRecord(key string, revision uint64, h nats.Header, body []byte) (record, error) {
	if isRemoval(h) {
		return record{revision: revision, absent: true}, nil
	}
	value, err := unwrap(key, body)
	return record{value: value, revision: revision}, err
}

// wrap puts the key in front of the value.
func wrap(key string, value []byte) []byte {
	body := make([]byte, 0, binary.MaxVarintLen32+len(key)+len(value))
	body = binary.AppendUvarint(body, uint64(len(key)))
	return append(append(body, key...), value...)
}

// unwrap returns the value in body, or bus.ErrForeign when it is not that of key.
func unwrap(key string, body []byte) ([]byte, error) {
	n, size := binary.Uvarint(body)
	if size <= 0 || n != uint64(len(key)) || uint64(len(body)-size) < n || string(body[size:size+int(n)]) != key {
		return nil, bus.ErrForeign
	}
	return body[size+int(n):], nil
}

// Wait implements bus.Bucket. It asks the leader after it has subscribed, on the
// same connection. What is republished since is the answer, unless it comes without
// its value, as of a bucket that was made by others: then the leader is asked again.
func (k *bucket) Wait(ctx context.Context, key string, revision uint64) ([]byte, uint64, error) {
	if err := bus.CheckBucketKey(key); err != nil {
		return nil, 0, err
	}
	ctx, done, err := k.b.begin(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer done()
	r, err := k.wait(ctx, key, revision)
	switch {
	case err != nil:
		return nil, 0, fmt.Errorf("natsbus: wait for a key of %s: %w", k.stream, err)
	case r.absent:
		return nil, 0, bus.ErrKeyNotFound
	}
	return r.value, r.revision, nil
}

func (k *bucket) wait(ctx context.Context, key string, revision uint64) (record, error) {
	live := k.live + token(key)
	ctx, stop := k.b.waits.subscription(ctx, live)
	defer stop()
	told, look, ended := make(chan record, 1), make(chan struct{}, 1), make(chan struct{})
	sub, err := k.b.nc.Subscribe(live, func(m *nats.Msg) {
		if r, whole := republished(key, m); !whole {
			signal(look)
		} else if r.revision > revision && r.isNot(revision) {
			select {
			case told <- r:
			default: // one is enough
			}
		}
	})
	if err != nil {
		return record{}, k.b.stream.explain(err)
	}
	sub.SetClosedHandler(func(string) { close(ended) })
	defer func() {
		if sub.Unsubscribe() == nil { // fails only when the connection is closed
			<-ended
		}
	}()
	poll := time.NewTicker(bucketPoll)
	defer poll.Stop()
	for {
		asked, cancel := context.WithTimeout(ctx, bucketPoll)
		r, err := k.leader(asked, key)
		unanswered := asked.Err() != nil && ctx.Err() == nil
		cancel()
		if !unanswered && (err != nil || r.isNot(revision)) {
			return r, cause(ctx, err)
		}
		select {
		case r := <-told:
			return r, nil
		case <-look:
		case <-poll.C:
		case <-ctx.Done():
			return record{}, cause(ctx, ctx.Err())
		}
	}
}

// isNot reports whether r is what somebody waits for who knows this revision.
func (r record) isNot(revision uint64) bool {
	if r.absent {
		return revision != 0
	}
	return r.revision != revision
}

// republished is what a message of the live subjects says; not whole: that something
// was stored, no more.
func republished(key string, m *nats.Msg) (r record, whole bool) {
	at, err := strconv.ParseUint(last(m.Header, headerSequence), 10, 64)
	if err != nil {
		return record{}, false
	}
	r, err = newRecord(key, at, m.Header, m.Data)
	return r, err == nil
}
