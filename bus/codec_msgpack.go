package bus

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// Fields of the msgpack map. Names are never reused for another meaning; arrays
// may grow at their end.
const (
	fieldSchema = "v" // uint
	fieldOp     = "o" // uint
	fieldKeys   = "k" // array of [key, version]
	fieldTags   = "t" // array of strings
	fieldPrefix = "p" // string
	fieldReset  = "r" // bool
	fieldValue  = "b" // bytes
	fieldTTL    = "l" // ms
	fieldWriter = "w" // string
	fieldRegion = "g" // string
	fieldTime   = "m" // ms since 1970
	fieldID     = "i" // string
	fieldPulse  = "u" // [process, sent in ns, role, fork], and where there is a window [.. from, to, digest]
)

// Parts of a pulse's array without and with a window.
const pulseParts, windowParts = 4, 7

type msgpackField struct {
	name  string
	value any
}

func encodeMsgpack(e Event) ([]byte, error) {
	fields := []msgpackField{{fieldSchema, uint64(schemaNow)}, {fieldOp, uint64(e.Op)}}
	add := func(present bool, name string, value any) {
		if present {
			fields = append(fields, msgpackField{name, value})
		}
	}
	add(len(e.Keys) > 0, fieldKeys, e.Keys)
	add(len(e.Tags) > 0, fieldTags, e.Tags)
	add(e.Prefix != "", fieldPrefix, e.Prefix)
	add(e.Reset, fieldReset, true)
	add(e.Value != nil, fieldValue, e.Value)
	add(e.TTL.Round(time.Millisecond) != 0, fieldTTL, e.TTL.Round(time.Millisecond).Milliseconds())
	add(e.Writer != "", fieldWriter, e.Writer)
	add(e.Region != "", fieldRegion, e.Region)
	add(!e.Time.IsZero(), fieldTime, e.Time.UnixMilli())
	add(e.ID != "", fieldID, e.ID)
	add(e.Pulse != Pulse{}, fieldPulse, e.Pulse)

	var b bytes.Buffer
	enc := msgpack.NewEncoder(&b)
	enc.UseCompactInts(true)
	err := enc.EncodeMapLen(len(fields))
	for _, f := range fields {
		err = errors.Join(err, enc.EncodeString(f.name), encodeField(enc, f.value))
	}
	return b.Bytes(), err
}

func encodeField(enc *msgpack.Encoder, value any) error {
	switch v := value.(type) {
	case []KeyVersion:
		err := enc.EncodeArrayLen(len(v))
		for _, k := range v {
			err = errors.Join(err, enc.EncodeArrayLen(2), enc.EncodeString(k.Key), enc.EncodeUint(k.Version))
		}
		return err
	case Pulse:
		parts := pulseParts
		if v.Window != (Window{}) {
			parts = windowParts
		}
		err := errors.Join(enc.EncodeArrayLen(parts), enc.EncodeString(v.Process),
			enc.EncodeInt(int64(v.Sent)), enc.EncodeBool(v.Role), enc.EncodeUint(v.Fork))
		if parts == windowParts {
			err = errors.Join(err, enc.EncodeUint(v.Window.From), enc.EncodeUint(v.Window.To), enc.EncodeUint(v.Window.Digest))
		}
		return err
	default:
		return enc.Encode(v)
	}
}

// msgpackReader reads values whose lengths it checks against what is left of
// the body before it allocates.
type msgpackReader struct {
	left *bytes.Reader
	dec  *msgpack.Decoder
}

func decodeMsgpack(data []byte, op Op) (Event, error) {
	left := bytes.NewReader(data)
	r := msgpackReader{left: left, dec: msgpack.NewDecoder(left)}
	n, err := r.dec.DecodeMapLen()
	if err != nil || n < 0 {
		return Event{}, fmt.Errorf("body is neither JSON nor a msgpack map: %w", orNil(err))
	}
	e := Event{Op: op}
	var schema uint64
	for range n {
		name, err := r.text("field name", MaxLabel)
		if err != nil {
			return Event{}, err
		}
		if name == fieldSchema {
			schema, err = r.uint()
		} else {
			err = r.field(name, &e)
		}
		if err != nil {
			return Event{}, fmt.Errorf("field %.20q: %w", name, err)
		}
	}
	if schema != schemaNow {
		return Event{}, fmt.Errorf("schema %d, this version knows %d", schema, schemaNow)
	}
	if left.Len() > 0 {
		return Event{}, fmt.Errorf("%d bytes after the event", left.Len())
	}
	return e, nil
}

func orNil(err error) error {
	if err == nil {
		return errors.New("nil")
	}
	return err
}

// field reads the value of one field into e, or skips one that is unknown.
func (r msgpackReader) field(name string, e *Event) (err error) {
	switch name {
	case fieldOp:
		var op uint64
		op, err = r.uint()
		if e.Op = Op(op); err == nil && op >= uint64(len(opNames)) {
			err = fmt.Errorf("unknown op %d", op)
		}
	case fieldKeys:
		e.Keys, err = r.keys()
	case fieldTags:
		e.Tags, err = r.tags()
	case fieldPrefix:
		e.Prefix, err = r.text("prefix", MaxKey)
	case fieldReset:
		e.Reset, err = r.dec.DecodeBool()
	case fieldValue:
		e.Value, err = r.bytes("value", MaxEvent)
	case fieldTTL:
		var ms int64
		if ms, err = r.dec.DecodeInt64(); err == nil {
			e.TTL, err = ttlOf(ms)
		}
	case fieldWriter:
		e.Writer, err = r.text("writer", MaxLabel)
	case fieldRegion:
		e.Region, err = r.text("region", MaxLabel)
	case fieldTime:
		var ms int64
		ms, err = r.dec.DecodeInt64()
		e.Time = timeOf(ms)
	case fieldID:
		e.ID, err = r.text("id", MaxLabel)
	case fieldPulse:
		e.Pulse, err = r.pulse()
	default:
		err = r.skip()
	}
	return err
}

func (r msgpackReader) keys() ([]KeyVersion, error) {
	n, err := r.array("keys")
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, nil
	}
	keys := make([]KeyVersion, n)
	for i := range keys {
		parts, err := r.array("parts of a key")
		if err != nil {
			return nil, err
		}
		if parts < 2 {
			return nil, fmt.Errorf("key %d has %d parts, want key and version", i, parts)
		}
		if keys[i].Key, err = r.text("key", MaxKey); err != nil {
			return nil, err
		}
		if keys[i].Version, err = r.uint(); err != nil {
			return nil, err
		}
		if err := r.skipN(parts - 2); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

func (r msgpackReader) tags() ([]string, error) {
	n, err := r.array("tags")
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, nil
	}
	tags := make([]string, n)
	for i := range tags {
		if tags[i], err = r.text("tag", MaxKey); err != nil {
			return nil, err
		}
	}
	return tags, nil
}

func (r msgpackReader) pulse() (p Pulse, err error) {
	parts, err := r.array("parts of a pulse")
	if err != nil {
		return Pulse{}, err
	}
	if parts < pulseParts {
		return Pulse{}, fmt.Errorf("a pulse has %d parts, want process, sent, role and fork", parts)
	}
	if p.Process, err = r.text("process", MaxLabel); err != nil {
		return Pulse{}, err
	}
	sent, err := r.dec.DecodeInt64()
	if err != nil {
		return Pulse{}, err
	}
	p.Sent = time.Duration(sent)
	if p.Role, err = r.dec.DecodeBool(); err != nil {
		return Pulse{}, err
	}
	if p.Fork, err = r.uint(); err != nil {
		return Pulse{}, err
	}
	read := pulseParts
	if parts >= windowParts {
		read = windowParts
		for _, part := range []*uint64{&p.Window.From, &p.Window.To, &p.Window.Digest} {
			if *part, err = r.uint(); err != nil {
				return Pulse{}, err
			}
		}
	}
	return p, r.skipN(parts - read)
}

// uint reads a number that the library would wrap around when it is negative.
func (r msgpackReader) uint() (uint64, error) {
	code, err := r.dec.PeekCode()
	if err != nil {
		return 0, err
	}
	switch code {
	case msgpcode.Uint8, msgpcode.Uint16, msgpcode.Uint32, msgpcode.Uint64:
		return r.dec.DecodeUint64()
	}
	n, err := r.dec.DecodeInt64()
	if err == nil && n < 0 {
		err = fmt.Errorf("negative number %d", n)
	}
	return uint64(n), err
}

// array reads the length of an array. Every element takes a byte at least, so a
// length above what is left is a lie.
func (r msgpackReader) array(what string) (int, error) {
	n, err := r.dec.DecodeArrayLen()
	if err != nil {
		return 0, err
	}
	if n > r.left.Len() {
		return 0, fmt.Errorf("%d %s announced, %d bytes left", n, what, r.left.Len())
	}
	return max(n, 0), atMost(what, n, max(MaxKeys, MaxTags))
}

// bytes reads a string or bytes; nil for the msgpack nil.
func (r msgpackReader) bytes(what string, limit int) ([]byte, error) {
	n, err := r.dec.DecodeBytesLen()
	if err != nil || n < 0 {
		return nil, err
	}
	if n > r.left.Len() {
		return nil, fmt.Errorf("%s of %d bytes announced, %d left", what, n, r.left.Len())
	}
	if err := atMost("bytes of the "+what, n, limit); err != nil {
		return nil, err
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r.left, b)
	return b, err
}

func (r msgpackReader) text(what string, limit int) (string, error) {
	b, err := r.bytes(what, limit)
	return string(b), err
}

func (r msgpackReader) skip() error { return r.skipN(1) }

// skipN passes over n values of any kind. It does not recurse, since a hostile
// body can nest as deep as it is long.
func (r msgpackReader) skipN(n int) error {
	for ; n > 0; n-- {
		if n > r.left.Len() {
			return fmt.Errorf("%d values announced, %d bytes left", n, r.left.Len())
		}
		code, err := r.dec.PeekCode()
		if err != nil {
			return err
		}
		switch {
		case msgpcode.IsFixedArray(code), code == msgpcode.Array16, code == msgpcode.Array32:
			inner, err := r.dec.DecodeArrayLen()
			if err != nil {
				return err
			}
			n += inner
		case msgpcode.IsFixedMap(code), code == msgpcode.Map16, code == msgpcode.Map32:
			inner, err := r.dec.DecodeMapLen()
			if err != nil {
				return err
			}
			n += 2 * inner
		default:
			if err := r.dec.Skip(); err != nil {
				return err
			}
		}
	}
	return nil
}
