package natsbus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/nearside-cache/nearside/bus"
)

// Codes with which the server refuses a write because of the key's revision:
// that of one server, and that of several.
const (
	codeWrongLast         jetstream.ErrorCode = 10071
	codeWrongLastConstant jetstream.ErrorCode = 10164
)

// markerTTL is how long the marker of a deleted key stays. Nobody needs it.
const markerTTL = time.Second

// Put implements bus.Bucket.
func (k *bucket) Put(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	return k.write(ctx, key, value, ttl)
}

// Create implements bus.Bucket. Where a marker stands for the absent key, the
// value takes the marker's place.
func (k *bucket) Create(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	revision, err := k.write(ctx, key, value, ttl, jetstream.WithExpectLastSequencePerSubject(0))
	if !errors.Is(err, bus.ErrConflict) {
		return revision, err
	}
	r, failed := k.leader(ctx, key)
	if failed != nil {
		return 0, fmt.Errorf("natsbus: create in %s: %w", k.stream, failed)
	}
	if !r.absent {
		return 0, err
	}
	return k.write(ctx, key, value, ttl, jetstream.WithExpectLastSequencePerSubject(r.revision))
}

// Update implements bus.Bucket.
func (k *bucket) Update(ctx context.Context, key string, value []byte, revision uint64, ttl time.Duration) (uint64, error) {
	if revision == 0 {
		return 0, bus.ErrConflict // no present key is at it
	}
	return k.write(ctx, key, value, ttl, jetstream.WithExpectLastSequencePerSubject(revision))
}

// Delete implements bus.Bucket.
func (k *bucket) Delete(ctx context.Context, key string, revision uint64) error {
	if err := bus.CheckBucketKey(key); err != nil {
		return err
	}
	if revision == 0 {
		return bus.ErrConflict
	}
	msg := &nats.Msg{Subject: k.writes + token(key), Header: nats.Header{headerOperation: {"DEL"}}}
	_, err := k.publish(ctx, msg, jetstream.WithExpectLastSequencePerSubject(revision), jetstream.WithMsgTTL(markerTTL))
	return err
}

func (k *bucket) write(ctx context.Context, key string, value []byte, ttl time.Duration, opts ...jetstream.PublishOpt) (uint64, error) {
	if err := bus.CheckBucketKey(key); err != nil {
		return 0, err
	}
	if ttl > 0 {
		opts = append(opts, jetstream.WithMsgTTL(bus.BucketTTL(ttl)))
	}
	return k.publish(ctx, &nats.Msg{Subject: k.writes + token(key), Data: wrap(key, value)}, opts...)
}

func (k *bucket) publish(ctx context.Context, msg *nats.Msg, opts ...jetstream.PublishOpt) (uint64, error) {
	ctx, done, err := k.b.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer done()
	ctx, stop := k.b.waits.answer(ctx, msg.Subject)
	defer stop()
	opts = append(opts, jetstream.WithExpectStream(k.stream), jetstream.WithRetryAttempts(0))
	ack, err := k.b.stream.js.PublishMsg(ctx, msg, opts...)
	err = cause(ctx, err)
	switch {
	case err == nil:
		return ack.Sequence, nil
	case isCode(err, codeWrongLast), isCode(err, codeWrongLastConstant):
		return 0, bus.ErrConflict
	case errors.Is(err, nats.ErrMaxPayload), isCode(err, codeMessageTooLarge):
		return 0, fmt.Errorf("natsbus: write %d bytes to %s: %w: %w", len(msg.Data), k.stream, bus.ErrTooLarge, err)
	default:
		return 0, fmt.Errorf("natsbus: write to %s: %w", k.stream, k.b.stream.explain(err))
	}
}
