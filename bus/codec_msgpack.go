package bus

import (
	"bytes"
	"errors"
	"time"

	"github.com/vmihailenco/msgpack/v5"
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
