package bus

import (
	"strings"
	"time"
)

// DefaultNamespace is the namespace of keys that name none.
const DefaultNamespace = "default"

// NamespaceOf returns the part of key before the first ':', or
// DefaultNamespace. The result shares memory with key.
func NamespaceOf(key string) string {
	if ns, _, ok := strings.Cut(key, ":"); ok && ns != "" {
		return ns
	}
	return DefaultNamespace
}

// Op says what an event does. Values cross the wire: append-only.
type Op uint8

// Ops of events.
const (
	OpInvalidate Op = iota // drop what Keys, Tags and Prefix name
	OpRefresh              // as OpInvalidate, then reload what is hot
	OpUpdate               // Keys[0] has a new version, whose value is Value
	OpFlush                // drop the namespace, or the domain
	OpPulse                // a heartbeat: drops nothing
	OpFork                 // two contents were seen for one position: flush the domain, begin an epoch
)

// KeyVersion names a key and, when Version is not 0, the source of truth's own
// monotonic stamp of its newest value.
type KeyVersion struct {
	Key     string
	Version uint64
}

// Event is one message of the stream, decoded. The zero value invalidates
// nothing.
type Event struct {
	Op     Op
	Keys   []KeyVersion
	Tags   []string
	Prefix string
	// Reset makes a flush clear the version fences too: the source of truth was
	// restored and versions begin again.
	Reset bool
	// Value and TTL belong to OpUpdate. TTL is rounded to milliseconds; 0 means
	// the namespace's default.
	Value []byte
	TTL   time.Duration
	// Writer and Region say where the event came from, for people.
	Writer string
	Region string
	// Time is the writer's wall clock at the change, in milliseconds. It
	// measures lag and orders nothing. Zero when unknown.
	Time time.Time
	// ID becomes the message id for deduplication; Publish makes one when empty.
	ID string
	// Pulse is set for OpPulse only.
	Pulse Pulse
}

// Pulse is the body of a heartbeat (B4).
type Pulse struct {
	Process string        // random id of the publishing process
	Sent    time.Duration // the publisher's monotonic clock, read before publishing
	Role    bool          // the publisher holds the pulser role; start and barrier pulses do not
	Fork    uint64        // fork part of the publisher's epoch; also in a fork event: that before it
	Window  Window        // in a role pulse: what the log held since the former one
}

// Window is a part of the log as the publisher of a pulse read it back (B3a):
// the messages with From < seq <= To. The zero value says nothing.
type Window struct {
	From, To uint64
	Digest   uint64 // of the messages' digests, in order
}
