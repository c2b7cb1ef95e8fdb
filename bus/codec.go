package bus

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// Limits of an event. They are checked before anything is allocated for it.
const (
	MaxEvent  = 1 << 20 // bytes of an encoded event
	MaxKey    = 65_535  // bytes of a key, a tag or a prefix
	MaxKeys   = 16_384  // keys in one event
	MaxTags   = 16_384  // tags in one event
	MaxLabel  = 256     // bytes of the writer, the region, the id and the pulse's process
	schemaNow = 1       // the newest schema this codec knows
	maxMillis = math.MaxInt64 / int64(time.Millisecond)
)

// ErrMalformed says that a message is no event that this version understands.
// Whoever receives it flushes what the message may have meant.
var ErrMalformed = errors.New("bus: malformed event")

// Encode returns the msgpack form of e, a map with a schema version. It refuses
// what Decode would refuse: an invalidation that names nothing, an update of
// other than one key, and whatever is over a limit (ErrTooLarge).
func Encode(e Event) ([]byte, error) {
	if err := validate(e); err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	data, err := encodeMsgpack(e)
	if err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	if len(data) > MaxEvent {
		return nil, fmt.Errorf("encode event: %w: %d bytes, at most %d", ErrTooLarge, len(data), MaxEvent)
	}
	return data, nil
}

// Decode reads an event from the body of a message whose subject is of the
// given kind. The body is msgpack, or JSON when its first byte is '{' (see
// jsonEvent for the fields). A body that names no op has the kind's own: an
// invalidation on the subject of a namespace, a flush on that of flushes.
// Fields it does not know are ignored; an op or a schema that it does not know
// is an error, as is an op that does not belong on the subject. The result
// shares memory with data, which must not change as long as it is used.
func Decode(kind Kind, data []byte) (Event, error) { return decode(kind, data, nil) }

// decode puts the keys into spare where they fit.
func decode(kind Kind, data []byte, spare []KeyVersion) (e Event, err error) {
	if len(data) > MaxEvent {
		return Event{}, fmt.Errorf("%w: %w: %d bytes, at most %d", ErrMalformed, ErrTooLarge, len(data), MaxEvent)
	}
	if len(data) == 0 {
		return Event{}, fmt.Errorf("%w: empty body", ErrMalformed)
	}
	if data[0] == '{' {
		e, err = decodeJSON(data, kindOp(kind))
	} else {
		e, err = decodeMsgpack(data, kindOp(kind), spare)
	}
	if err == nil {
		err = validate(e)
	}
	if err == nil && opKind(e.Op, kind) != kind {
		err = fmt.Errorf("op %s does not belong on this subject", e.Op)
	}
	if err != nil {
		return Event{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return e, nil
}

// kindOp is the op of a body that names none.
func kindOp(k Kind) Op {
	return [...]Op{KindEvent: OpInvalidate, KindPulse: OpPulse, KindFlush: OpFlush, KindFork: OpFork}[k]
}

// opKind is the kind of subject that op belongs on; a flush may be on either of
// two, so the one that it was found on decides.
func opKind(op Op, found Kind) Kind {
	switch {
	case op == OpPulse:
		return KindPulse
	case op == OpFork:
		return KindFork
	case op == OpFlush && found == KindFlush:
		return KindFlush
	default:
		return KindEvent
	}
}

var opNames = [...]string{"invalidate", "refresh", "update", "flush", "pulse", "fork"}

// String returns the name of op in JSON events, logs and metric labels.
func (op Op) String() string {
	if int(op) < len(opNames) {
		return opNames[op]
	}
	return fmt.Sprintf("op-%d", uint8(op))
}

// validate holds for every event that crosses the wire, in either direction.
func validate(e Event) error {
	if int(e.Op) >= len(opNames) {
		return fmt.Errorf("unknown op %d, this version knows 0 to %d", e.Op, len(opNames)-1)
	}
	if err := validateNames(e); err != nil {
		return err
	}
	switch {
	case e.TTL < 0:
		return fmt.Errorf("negative ttl %s", e.TTL)
	case e.Op == OpUpdate && len(e.Keys) != 1:
		return fmt.Errorf("an update names one key, this one %d", len(e.Keys))
	case (e.Op == OpInvalidate || e.Op == OpRefresh) && len(e.Keys)+len(e.Tags)+len(e.Prefix) == 0:
		// What a writer misspelled, or a newer one says in a field that this
		// version ignores, must not pass as an invalidation of nothing.
		return fmt.Errorf("%s names no key, tag or prefix", e.Op)
	}
	return nil
}

func validateNames(e Event) error {
	if err := atMost("keys", len(e.Keys), MaxKeys); err != nil {
		return err
	}
	if err := atMost("tags", len(e.Tags), MaxTags); err != nil {
		return err
	}
	for i, k := range e.Keys {
		if k.Key == "" {
			return fmt.Errorf("key %d is empty", i)
		}
		if err := atMost("bytes of a key", len(k.Key), MaxKey); err != nil {
			return err
		}
	}
	for i, tag := range e.Tags {
		if tag == "" {
			return fmt.Errorf("tag %d is empty", i)
		}
		if err := atMost("bytes of a tag", len(tag), MaxKey); err != nil {
			return err
		}
	}
	if err := atMost("bytes of the prefix", len(e.Prefix), MaxKey); err != nil {
		return err
	}
	for _, label := range [...]string{e.Writer, e.Region, e.ID, e.Pulse.Process} {
		if err := atMost("bytes of a writer, region, id or process", len(label), MaxLabel); err != nil {
			return err
		}
	}
	return nil
}

func atMost(what string, n, limit int) error {
	if n > limit {
		return fmt.Errorf("%w: %d %s, at most %d", ErrTooLarge, n, what, limit)
	}
	return nil
}

// ttlOf and timeOf turn milliseconds from the wire into what an Event holds.
func ttlOf(ms int64) (time.Duration, error) {
	if ms < 0 || ms > maxMillis {
		return 0, fmt.Errorf("ttl of %d ms is out of range", ms)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func opOf(name string) (Op, error) {
	for i, n := range opNames {
		if strings.EqualFold(n, name) {
			return Op(i), nil
		}
	}
	return 0, fmt.Errorf("unknown op %.40q", name)
}
