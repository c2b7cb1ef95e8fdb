package natsbus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/nearside-cache/nearside/bus"
)

const (
	// DefaultMaxAge is how long the stream keeps an event. A sidecar that was
	// cut off for longer flushes.
	DefaultMaxAge = time.Hour
	// MinDuplicates is the least window within which the stream knows a message
	// id again. It bounds for how long a publish may be retried as one event.
	MinDuplicates = 2 * time.Minute
	// wantReplicas is what a stream has where there are three servers.
	wantReplicas = 3
)

// Codes of JetStream API errors that the client library has no name for.
const (
	codeNoPeers            jetstream.ErrorCode = 10005 // the cluster has too few servers
	codeReplicasStandalone jetstream.ErrorCode = 10074 // there is no cluster
	codeMessageTooLarge    jetstream.ErrorCode = 10054
	codeNoMessage          jetstream.ErrorCode = 10037
	codeOtherStream        jetstream.ErrorCode = 10060 // the subject belongs to another stream
)

// StreamConfig says how the stream of a domain is made. What is not here is
// rule B7 and not for choosing.
type StreamConfig struct {
	Subjects bus.Subjects
	// Replicas is the number of servers that hold the stream; 0 takes 3 where
	// the servers allow it, else 1.
	Replicas int
	// MaxAge is how long an event is kept; 0 is DefaultMaxAge. At least
	// MinDuplicates.
	MaxAge time.Duration
	// MaxBytes limits the stream, in bytes; 0 is no limit. The oldest events go
	// first.
	MaxBytes int64
}

// Info describes a stream for people.
type Info struct {
	Name       string        `json:"name"`
	Created    time.Time     `json:"created"`
	Subjects   []string      `json:"subjects"`
	Live       string        `json:"live"` // where events are republished to
	Origin     uint64        `json:"origin"`
	First      uint64        `json:"first"`
	Last       uint64        `json:"last"`
	FirstTime  time.Time     `json:"first_time"`
	LastTime   time.Time     `json:"last_time"`
	Messages   uint64        `json:"messages"`
	Bytes      uint64        `json:"bytes"`
	MaxAge     time.Duration `json:"max_age_ns"`
	MaxBytes   int64         `json:"max_bytes"` // -1: no limit
	Storage    string        `json:"storage"`
	Replicas   int           `json:"replicas"`
	Leader     string        `json:"leader"` // name of the server that leads it
	Deviations []Deviation   `json:"deviations,omitempty"`
}

func (c StreamConfig) maxAge() time.Duration {
	if c.MaxAge == 0 {
		return DefaultMaxAge
	}
	return c.MaxAge
}

func (c StreamConfig) validate() error {
	if err := errors.Join(c.faults()...); err != nil {
		return fmt.Errorf("natsbus: %w", err)
	}
	return nil
}

func (c StreamConfig) faults() []error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Subjects == (bus.Subjects{}) {
		fault("no domain given")
	}
	if c.Replicas < 0 || c.Replicas > 5 {
		fault("replicas is %d: want 1 to 5, or 0 for as many as the servers allow up to %d", c.Replicas, wantReplicas)
	}
	if c.maxAge() < MinDuplicates {
		fault("max-age is %v: want at least %v, for so long a publish may be retried", c.MaxAge, MinDuplicates)
	}
	if c.MaxBytes < 0 {
		fault("max-bytes is %d: want 0 (no limit) or more", c.MaxBytes)
	}
	return faults
}

// jetStream returns the settings of rule B7 for a stream that is created now.
func (c StreamConfig) jetStream(now time.Time, replicas int) jetstream.StreamConfig {
	maxBytes := c.MaxBytes
	if maxBytes == 0 {
		maxBytes = -1
	}
	return jetstream.StreamConfig{
		Name:              c.Subjects.Stream(),
		Description:       "nearside: invalidation events of domain " + c.Subjects.Domain(),
		Subjects:          []string{c.Subjects.All()},
		Retention:         jetstream.LimitsPolicy,
		Discard:           jetstream.DiscardOld,
		MaxConsumers:      -1,
		MaxMsgs:           -1,
		MaxMsgsPerSubject: -1,
		MaxBytes:          maxBytes,
		MaxAge:            c.maxAge(),
		Storage:           jetstream.FileStorage,
		Replicas:          replicas,
		Duplicates:        MinDuplicates,
		DenyDelete:        true,
		DenyPurge:         true,
		AllowDirect:       true,
		FirstSeq:          firstSeq(now),
		RePublish:         &jetstream.RePublish{Source: c.Subjects.All(), Destination: c.Subjects.Live()},
	}
}

// firstSeq makes the seqs of a re-created stream begin above those of the
// former one: a stream would have to take more than one event per microsecond
// of its life to reach them. The numbers stay below 2^53.
func firstSeq(now time.Time) uint64 { return uint64(now.UnixMicro()) }

// Ensure creates the stream when there is none, and else checks it. It returns
// bus.ErrUnfit with every reason when the stream cannot give the guarantees;
// Info is valid then too.
func Ensure(ctx context.Context, js jetstream.JetStream, cfg StreamConfig) (info Info, created bool, err error) {
	if err := cfg.validate(); err != nil {
		return Info{}, false, err
	}
	info, err = Inspect(ctx, js, cfg)
	if !errors.Is(err, bus.ErrNotFound) {
		return info, false, err
	}
	err = create(ctx, js, cfg)
	// Another one was quicker: its stream is as good as ours, if it passes.
	if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return Info{}, false, fmt.Errorf("natsbus: create stream %s: %w", cfg.Subjects.Stream(), explain(err))
	}
	created = err == nil
	info, err = Inspect(ctx, js, cfg)
	return info, created, err
}

func create(ctx context.Context, js jetstream.JetStream, cfg StreamConfig) error {
	replicas := cfg.Replicas
	if replicas == 0 {
		replicas = wantReplicas
	}
	_, err := js.CreateStream(ctx, cfg.jetStream(time.Now(), replicas))
	if cfg.Replicas == 0 && tooFewServers(err) {
		_, err = js.CreateStream(ctx, cfg.jetStream(time.Now(), 1))
	}
	return err
}

func tooFewServers(err error) bool {
	return isCode(err, codeNoPeers) || isCode(err, codeReplicasStandalone)
}

func isCode(err error, code jetstream.ErrorCode) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == code
}

// Inspect asks the stream's leader and checks the settings. bus.ErrNotFound:
// there is no such stream. bus.ErrUnfit: it cannot give the guarantees; Info is
// valid then too.
func Inspect(ctx context.Context, js jetstream.JetStream, cfg StreamConfig) (Info, error) {
	name := cfg.Subjects.Stream()
	stream, err := js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return Info{}, fmt.Errorf("natsbus: stream %s: %w", name, bus.ErrNotFound)
	}
	if err != nil {
		return Info{}, fmt.Errorf("natsbus: ask for stream %s: %w", name, explain(err))
	}
	got := stream.CachedInfo()
	info := newInfo(got)
	info.Deviations = Check(got, cfg)
	return info, unfit(name, info.Deviations)
}

func newInfo(s *jetstream.StreamInfo) Info {
	info := Info{
		Name:      s.Config.Name,
		Created:   s.Created,
		Subjects:  s.Config.Subjects,
		Origin:    max(1, s.Config.FirstSeq),
		First:     s.State.FirstSeq,
		Last:      s.State.LastSeq,
		FirstTime: s.State.FirstTime,
		LastTime:  s.State.LastTime,
		Messages:  s.State.Msgs,
		Bytes:     s.State.Bytes,
		MaxAge:    s.Config.MaxAge,
		MaxBytes:  s.Config.MaxBytes,
		Storage:   s.Config.Storage.String(),
		Replicas:  s.Config.Replicas,
	}
	if s.Config.RePublish != nil {
		info.Live = s.Config.RePublish.Destination
	}
	if s.Cluster != nil {
		info.Leader = s.Cluster.Leader
	}
	return info
}

// explain adds what to do to errors that do not say it.
func explain(err error) error {
	switch {
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("%w: JetStream is not enabled for this user's account, has no leader at the moment, or is behind a leaf node and needs its domain (--nats-domain)", err)
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrDisconnected), errors.Is(err, nats.ErrConnectionReconnecting):
		return ErrNotConnected
	default:
		return err
	}
}

// unfit joins the fatal ones among ds into one error, or returns nil.
func unfit(name string, ds []Deviation) error {
	var why []string
	for _, d := range ds {
		if d.Fatal {
			why = append(why, d.String())
		}
	}
	if why == nil {
		return nil
	}
	return fmt.Errorf("%w: stream %s: %s; change these settings, or delete the stream and run nearside stream ensure",
		bus.ErrUnfit, name, strings.Join(why, "; "))
}
