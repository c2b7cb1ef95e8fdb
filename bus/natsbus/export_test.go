package natsbus

import (
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/nearside-cache/nearside/bus"
)

// WithTap puts f between the live subscription and the follower.
func (c Config) WithTap(f func(bus.Message) []bus.Message) Config {
	c.tap = f
	return c
}

// JetStream is the stream that Ensure would create.
func (c StreamConfig) JetStream(now time.Time, replicas int) jetstream.StreamConfig {
	return c.jetStream(now, replicas)
}

// Conn is the connection, for faults.
func (b *Bus) Conn() *nats.Conn { return b.nc }

var (
	Parse  = parse
	Status = status
)

// Acknowledged reads an answer to a publish.
var Acknowledged = acknowledged
