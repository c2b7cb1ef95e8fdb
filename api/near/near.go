// Package near is nearside's native protocol: what an SDK and a sidecar send each
// other. docs/protocol.md is its normative description; api/testdata/vectors has
// its frames as bytes. The package has no connection and no goroutine: it turns
// messages into frames and back, for both sides.
//
// A frame is a header of HeaderSize bytes and a body, one msgpack array of the
// message's fields in their order. Fields are append-only: what an older peer
// leaves out is zero, what a newer one adds is skipped.
//
//	byte    Magic
//	byte    Kind
//	uint32  request id, big endian; 0 in pushes
//	uint32  length of the body in bytes, big endian
//
// A client begins with a Hello, under which both sides agree on a version. Every
// request is answered once, under its id, with its own kind of answer or with an
// Error; answers may come in any order. Pushes come without having been asked for.
//
// Moments and durations are nanoseconds; moments are of the sidecar's CLOCK_BOOTTIME
// unless a field says otherwise.
package near

import "strconv"

const (
	// Magic is the first byte of every frame, and so of a connection. It is no byte
	// that RESP or HTTP can begin with.
	Magic = 0xb5
	// Version is the newest version of the protocol that this package speaks.
	Version = 1
	// MinVersion is the oldest one.
	MinVersion = 1
	// HeaderSize is the length of a frame's header in bytes.
	HeaderSize = 10
)

// Kind is what a frame holds. Values cross the wire: append-only.
type Kind uint8

// Kinds of requests, 0x01 to 0x3f.
const (
	KindHello       Kind = 0x01
	KindPing        Kind = 0x02
	KindGet         Kind = 0x03
	KindGets        Kind = 0x04
	KindFill        Kind = 0x05
	KindRelease     Kind = 0x06
	KindInvalidate  Kind = 0x07
	KindUpdate      Kind = 0x08
	KindBarrier     Kind = 0x09
	KindExplain     Kind = 0x0a
	KindStatus      Kind = 0x0b
	KindPolicy      Kind = 0x0c
	KindToggle      Kind = 0x0d
	KindUntoggle    Kind = 0x0e
	KindSettings    Kind = 0x0f
	KindSubscribe   Kind = 0x10
	KindUnsubscribe Kind = 0x11
	KindTrack       Kind = 0x12
)

// An answer's kind is its request's with answerBit; an Error's has nothing else.
const (
	answerBit Kind = 0x40
	KindError Kind = answerBit
)

// Kinds of pushes, 0x80 to 0xbf.
const (
	KindInvalidated Kind = 0x80
	KindFresh       Kind = 0x81
	KindEvent       Kind = 0x82
	KindGoodbye     Kind = 0x83
)

// Answer returns the kind of k's answer.
func (k Kind) Answer() Kind { return k | answerBit }

// IsRequest reports whether k is of what clients send.
func (k Kind) IsRequest() bool { return k > 0 && k < answerBit }

// IsAnswer reports whether k is of what answers a request, an Error included.
func (k Kind) IsAnswer() bool { return k >= answerBit && k < 0x80 }

// IsPush reports whether k is of what comes without having been asked for.
func (k Kind) IsPush() bool { return k >= 0x80 && k < 0xc0 }

// String returns the name of the kind's message.
func (k Kind) String() string {
	if s, ok := specOf(k); ok {
		return s.name
	}
	return "kind 0x" + strconv.FormatUint(uint64(k), 16)
}

// Limits of the protocol. A sidecar says in its Welcome how long keys, values and
// frames may be there. Each is checked before there is memory for what it limits.
const (
	// MaxGetKeys is how many keys one Gets names at most, MaxInvalidateKeys how many
	// an Invalidate or an Invalidated.
	MaxGetKeys        = 10_000
	MaxInvalidateKeys = 100_000
	// MaxTags is how many tags a Fill has at most, MaxPurgeTags an Invalidate, and
	// MaxDepends how many keys a Fill names that its value was made of.
	MaxTags      = 64
	MaxPurgeTags = 1_000
	MaxDepends   = 64
	// MaxText bounds every str of a message, in bytes, and maxItems every other list.
	MaxText  = 65_535
	maxItems = 100_000
	// MaxFrame is the longest body, in bytes, that a header may announce: a longer one
	// is taken for lost framing.
	MaxFrame = 1 << 30
)
