package natsbus

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/nearside-cache/nearside/bus"
)

// Codes with which the server refuses to reserve what a bucket may hold.
const (
	codeStorageExceeded jetstream.ErrorCode = 10047
	codeMemoryExceeded  jetstream.ErrorCode = 10028
)

// bucket is a JetStream key-value bucket (ADR-8 of NATS), so that the broker's
// own tools can read it. It is written and read by hand, because the client's
// KeyValue cannot update with a TTL, cannot ask the leader, and needs a consumer
// to watch (B9).
//
// A key's subject holds the SHA-256 of the key, so that keys may be any bytes,
// as long as a message is, and are not seen in subjects. The key itself stands in
// front of the value.
type bucket struct {
	b                *Bus
	stream           string // of the bucket
	subjects, writes string // prefix of keys' subjects, as stored and as published to
	live             string // prefix of the subjects of what is republished
}

var _ bus.Buckets = (*Bus)(nil)

// Bucket implements bus.Buckets. The user needs permission for
// $JS.API.STREAM.INFO.KV_<name>, and for STREAM.CREATE where the bucket is to be
// made.
func (b *Bus) Bucket(ctx context.Context, name string, c bus.BucketConfig) (bus.Bucket, error) {
	if err := c.Validate(name); err != nil {
		return nil, fmt.Errorf("natsbus: %w", err)
	}
	ctx, done, err := b.begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("natsbus: open bucket %s: %w", name, err)
	}
	defer done()
	k := &bucket{b: b, stream: "KV_" + name, subjects: "$KV." + name + ".", live: "nearside-kv." + name + "."}
	k.writes = k.subjects
	if b.config.JetStreamDomain != "" {
		k.writes = b.stream.api + k.subjects // the plain subjects do not pass a leaf node
	}
	if err := k.ensure(ctx, c); err != nil {
		return nil, fmt.Errorf("natsbus: open bucket %s: %w", name, b.stream.explain(err))
	}
	return k, nil
}

// ensure makes the bucket when there is none, and checks it.
func (k *bucket) ensure(ctx context.Context, c bus.BucketConfig) error {
	api := k.b.stream.api
	ctx, done := k.b.waits.answer(ctx, api+"STREAM.INFO."+k.stream, api+"STREAM.CREATE."+k.stream)
	defer done()
	stream, err := k.b.stream.js.Stream(ctx, k.stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = k.create(ctx, c)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another one was quicker
			stream, err = k.b.stream.js.Stream(ctx, k.stream)
		}
	}
	if err != nil {
		return cause(ctx, err)
	}
	return k.fit(stream.CachedInfo().Config)
}

func (k *bucket) create(ctx context.Context, c bus.BucketConfig) (jetstream.Stream, error) {
	replicas := c.Replicas
	if replicas == 0 {
		replicas = wantReplicas
	}
	stream, err := k.b.stream.js.CreateStream(ctx, k.settings(c, time.Now(), replicas))
	if c.Replicas == 0 && tooFewServers(err) {
		stream, err = k.b.stream.js.CreateStream(ctx, k.settings(c, time.Now(), 1))
	}
	if isCode(err, codeStorageExceeded) || isCode(err, codeMemoryExceeded) {
		err = fmt.Errorf("%w: max_bytes is %d, which the servers reserve for each bucket: %w; lower it or raise their limit", bus.ErrBucketUnfit, c.MaxBytes, err)
	}
	return stream, err
}

// settings are those of a key-value bucket, but that the oldest keys give way
// when it is full, that a bucket made anew does not reuse revisions, and that
// what is stored is republished, for those who wait for a key.
func (k *bucket) settings(c bus.BucketConfig, now time.Time, replicas int) jetstream.StreamConfig {
	storage := jetstream.FileStorage
	if c.Storage == bus.StorageMemory {
		storage = jetstream.MemoryStorage
	}
	maxBytes := c.MaxBytes
	if maxBytes == 0 {
		maxBytes = -1
	}
	duplicates := MinDuplicates // nobody uses them, but they may not exceed MaxAge
	if c.TTL > 0 {
		duplicates = min(duplicates, c.TTL)
	}
	return jetstream.StreamConfig{
		Name:              k.stream,
		Description:       "nearside: shared tier",
		Subjects:          []string{k.subjects + ">"},
		Retention:         jetstream.LimitsPolicy,
		Discard:           jetstream.DiscardOld,
		MaxConsumers:      -1,
		MaxMsgs:           -1,
		MaxMsgsPerSubject: 1,
		MaxBytes:          maxBytes,
		MaxAge:            c.TTL,
		Storage:           storage,
		Replicas:          replicas,
		Duplicates:        duplicates,
		DenyDelete:        true,
		AllowRollup:       true,
		AllowDirect:       true,
		AllowMsgTTL:       true,
		FirstSeq:          firstSeq(now),
		RePublish:         &jetstream.RePublish{Source: k.subjects + ">", Destination: k.live + ">"},
	}
}

// fit returns bus.ErrBucketUnfit with all reasons why a bucket cannot work. What
// only makes it slower or hold less is left to who made it.
func (k *bucket) fit(c jetstream.StreamConfig) error {
	var d deviations
	all := k.subjects + ">"
	d.fatal(len(c.Subjects) != 1 || c.Subjects[0] != all, "subjects", c.Subjects, all, "this is no key-value bucket")
	d.fatal(c.Retention != jetstream.LimitsPolicy, "retention", c.Retention, jetstream.LimitsPolicy, "reading would remove keys")
	d.fatal(c.MaxMsgsPerSubject != 1, "history", c.MaxMsgsPerSubject, 1, "an older value would come back when a key expires")
	d.fatal(!c.AllowMsgTTL, "allow_msg_ttl", false, true, "rights to load would never expire (NATS 2.11 or later can)")
	d.fatal(!c.AllowDirect, "allow_direct", false, true, "keys could not be read from replicas")
	d.fatal(c.Mirror != nil || len(c.Sources) > 0, "mirror or sources", "set", "none", "revisions would be another bucket's")
	d.fatal(c.SubjectTransform != nil, "subject_transform", "set", "none", "keys would be stored under other names")
	d.fatal(c.Sealed || c.NoAck, "sealed or no_ack", true, false, "no write would ever be acknowledged")
	if len(d) == 0 {
		return nil
	}
	why := make([]string, len(d))
	for i := range d {
		why[i] = d[i].String()
	}
	return fmt.Errorf("%w: stream %s: %s; change these settings, or delete the bucket, and it is made anew",
		bus.ErrBucketUnfit, k.stream, strings.Join(why, "; "))
}

// token is the part of a subject that stands for a key.
func token(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}
