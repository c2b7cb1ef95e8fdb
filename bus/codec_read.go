package bus

import (
	"fmt"
	"time"
)

// decodeMsgpack reads an event. Its strings are parts of data, and so is its Value.
func decodeMsgpack(data []byte, op Op, spare []KeyVersion) (Event, error) {
	r := msgpackReader{left: data, spare: spare}
	n, err := r.mapLen()
	if err != nil {
		return Event{}, fmt.Errorf("body is neither JSON nor a msgpack map: %w", err)
	}
	e := Event{Op: op}
	var schema uint64
	for range n {
		name, err := r.bytes("field name", MaxLabel)
		if err != nil {
			return Event{}, err
		}
		if string(name) == fieldSchema {
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
	if len(r.left) > 0 {
		return Event{}, fmt.Errorf("%d bytes after the event", len(r.left))
	}
	return e, nil
}

// field reads the value of one field into e, or skips one that is unknown.
func (r *msgpackReader) field(name []byte, e *Event) (err error) {
	switch string(name) {
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
		e.Reset, err = r.bool()
	case fieldValue:
		e.Value, err = r.bytes("value", MaxEvent)
	case fieldTTL:
		var ms int64
		if ms, err = r.int(); err == nil {
			e.TTL, err = ttlOf(ms)
		}
	case fieldWriter:
		e.Writer, err = r.text("writer", MaxLabel)
	case fieldRegion:
		e.Region, err = r.text("region", MaxLabel)
	case fieldTime:
		var ms int64
		ms, err = r.int()
		e.Time = timeOf(ms)
	case fieldID:
		e.ID, err = r.text("id", MaxLabel)
	case fieldPulse:
		e.Pulse, err = r.pulse()
	default:
		err = r.skip(1)
	}
	return err
}

func (r *msgpackReader) keys() ([]KeyVersion, error) {
	n, err := r.array("keys")
	if err != nil || n == 0 {
		return nil, err
	}
	keys := r.spare[:0]
	if n > cap(keys) {
		keys = make([]KeyVersion, 0, n)
	}
	r.spare = nil // a field said twice has keys of its own
	for i := range n {
		parts, err := r.array("parts of a key")
		if err != nil {
			return nil, err
		}
		if parts < 2 {
			return nil, fmt.Errorf("key %d has %d parts, want key and version", i, parts)
		}
		var kv KeyVersion
		if kv.Key, err = r.text("key", MaxKey); err != nil {
			return nil, err
		}
		if kv.Version, err = r.uint(); err != nil {
			return nil, err
		}
		keys = append(keys, kv)
		if err := r.skip(parts - 2); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

func (r *msgpackReader) tags() ([]string, error) {
	n, err := r.array("tags")
	if err != nil || n == 0 {
		return nil, err
	}
	tags := make([]string, n)
	for i := range tags {
		if tags[i], err = r.text("tag", MaxKey); err != nil {
			return nil, err
		}
	}
	return tags, nil
}

func (r *msgpackReader) pulse() (p Pulse, err error) {
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
	sent, err := r.int()
	if err != nil {
		return Pulse{}, err
	}
	p.Sent = time.Duration(sent)
	if p.Role, err = r.bool(); err != nil {
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
	return p, r.skip(parts - read)
}
