package l2

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"

	"github.com/nearside-cache/nearside/bus"
)

// Limits of an entry. They are checked before anything is allocated for it.
const (
	MaxEntry  = 2 << 20 // bytes of an encoded entry
	MaxETag   = 1 << 10 // bytes of an ETag
	MaxLinks  = 1024    // tags, and keys that it depends on, each
	schemaNow = 1       // the newest schema this codec knows
	maxClaims = 64      // on one key
	parts     = 14      // of the array that is an entry
)

// Errors of decode.
var (
	// errMalformed says that this is no entry.
	errMalformed = errors.New("l2: malformed entry")
	// errNewer says that it is one of a newer version of nearside.
	errNewer = errors.New("l2: entry of a newer version of nearside")
)

// encode returns the msgpack form of e: an array of schema, version, the position's
// creation, fork and seq, loaded, digest, stored (ms since 1970), ttl (ms), etag, tags,
// depends, claims and value. More may be appended; what has another meaning gets another
// schema. It refuses what decode would refuse.
func encode(e Entry) ([]byte, error) {
	if err := e.validate(); err != nil {
		return nil, fmt.Errorf("encode entry: %w", err)
	}
	var b bytes.Buffer
	b.Grow(128 + len(e.Value))
	enc := msgpack.NewEncoder(&b)
	enc.UseCompactInts(true)
	p := e.Position
	err := errors.Join(
		enc.EncodeArrayLen(parts), enc.EncodeUint(schemaNow), enc.EncodeUint(e.Version),
		enc.EncodeInt(p.Epoch.Created), enc.EncodeUint(p.Epoch.Fork), enc.EncodeUint(p.Seq), enc.EncodeUint(e.Loaded), enc.EncodeUint(e.Digest),
		enc.EncodeInt(millisOf(e.Stored)), enc.EncodeInt(e.TTL.Milliseconds()), enc.EncodeString(e.ETag),
		encodeTexts(enc, e.Tags), encodeTexts(enc, e.Depends), encodeClaims(enc, e.Claims), enc.EncodeBytes(e.Value),
	)
	if err != nil {
		return nil, fmt.Errorf("encode entry: %w", err)
	}
	if b.Len() > MaxEntry {
		return nil, fmt.Errorf("encode entry: %w: %d bytes, at most %d", bus.ErrTooLarge, b.Len(), MaxEntry)
	}
	return b.Bytes(), nil
}

func encodeTexts(enc *msgpack.Encoder, texts []string) error {
	err := enc.EncodeArrayLen(len(texts))
	for _, text := range texts {
		err = errors.Join(err, enc.EncodeString(text))
	}
	return err
}

func encodeClaims(enc *msgpack.Encoder, claims []Claim) error {
	err := enc.EncodeArrayLen(2 * len(claims))
	for _, c := range claims {
		err = errors.Join(err, enc.EncodeUint(c.ID), enc.EncodeInt(millisOf(c.Until)))
	}
	return err
}

// millisOf is t in milliseconds since 1970, 0 of the zero time.
func millisOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// validate holds for every entry that crosses the wire, in either direction.
func (e Entry) validate() error {
	switch {
	case len(e.Claims) > maxClaims:
		return fmt.Errorf("%w: %d claims, at most %d", bus.ErrTooLarge, len(e.Claims), maxClaims)
	case e.Version == 0 && len(e.Claims) > 0:
		return nil // a place without a value
	case e.Version == 0:
		return ErrUnversioned
	case e.Position.IsZero():
		return errors.New("it has no position to be judged by")
	case e.Loaded > e.Position.Seq:
		return fmt.Errorf("loaded at seq %d, which is above its position %v", e.Loaded, e.Position)
	case e.TTL < time.Millisecond:
		return fmt.Errorf("ttl is %v, want 1ms or more", e.TTL)
	case e.Stored.UnixMilli() < 0 || e.Stored.UnixMilli() > maxMillis:
		return fmt.Errorf("stored is %d ms since 1970, want 0 to %d", e.Stored.UnixMilli(), maxMillis)
	case len(e.Value) > MaxEntry:
		return fmt.Errorf("%w: value of %d bytes", bus.ErrTooLarge, len(e.Value))
	case len(e.ETag) > MaxETag:
		return fmt.Errorf("%w: etag of %d bytes, at most %d", bus.ErrTooLarge, len(e.ETag), MaxETag)
	case len(e.Tags) > MaxLinks || len(e.Depends) > MaxLinks:
		return fmt.Errorf("%w: %d tags and %d depends, at most %d each", bus.ErrTooLarge, len(e.Tags), len(e.Depends), MaxLinks)
	}
	return nil
}

// decode is the inverse of encode. The value shares memory with data.
func decode(data []byte) (Entry, error) {
	if len(data) > MaxEntry {
		return Entry{}, fmt.Errorf("%w: %d bytes, at most %d", errMalformed, len(data), MaxEntry)
	}
	left := bytes.NewReader(data)
	r := reader{data: data, left: left, dec: msgpack.NewDecoder(left)}
	e, err := r.entry()
	switch {
	case errors.Is(err, errNewer):
		return Entry{}, err
	case err == nil:
		err = e.validate()
	}
	if err != nil {
		return Entry{}, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return e, nil
}

// reader reads values whose lengths it checks against what is left of the data
// before it allocates.
type reader struct {
	data []byte
	left *bytes.Reader
	dec  *msgpack.Decoder
}

func (r reader) entry() (e Entry, err error) {
	n, err := r.dec.DecodeArrayLen()
	if err != nil {
		return Entry{}, err
	}
	var schema uint64
	if err := r.uints(&schema); err != nil {
		return Entry{}, err
	}
	if schema != schemaNow {
		return Entry{}, fmt.Errorf("%w: schema %d", errNewer, schema)
	}
	if n < parts {
		return Entry{}, fmt.Errorf("it has %d parts, want %d", n, parts)
	}
	var created, stored, ttl int64
	p := &e.Position
	err = r.uints(&e.Version)
	err = first(err, func() error { return r.ints(&created) })
	err = first(err, func() error { return r.uints(&p.Epoch.Fork, &p.Seq, &e.Loaded, &e.Digest) })
	err = first(err, func() error { return r.ints(&stored, &ttl) })
	err = first(err, func() error { return r.text(&e.ETag, MaxETag) })
	err = first(err, func() error { return r.texts(&e.Tags) })
	err = first(err, func() error { return r.texts(&e.Depends) })
	err = first(err, func() error { return r.claims(&e.Claims) })
	err = first(err, func() (err error) { e.Value, err = r.bytes(MaxEntry); return err })
	if err != nil {
		return Entry{}, err
	}
	if ttl < 0 || ttl > maxMillis {
		return Entry{}, fmt.Errorf("ttl is %d ms, want 1 to %d", ttl, maxMillis)
	}
	if e.Version == 0 { // nothing else is said of a place without a value
		return Entry{Claims: e.Claims}, nil
	}
	p.Epoch.Created, e.Stored, e.TTL = created, time.UnixMilli(stored), time.Duration(ttl)*time.Millisecond
	return e, nil // parts that a newer version appended are not read
}

// maxMillis is the longest duration there is.
const maxMillis = int64(1<<63-1) / int64(time.Millisecond)

// first goes on with next unless there was an error.
func first(err error, next func() error) error {
	if err != nil {
		return err
	}
	return next()
}

// uints reads numbers that the library would wrap around when they are negative.
func (r reader) uints(into ...*uint64) error {
	for _, n := range into {
		code, err := r.dec.PeekCode()
		if err != nil {
			return err
		}
		if code >= msgpcode.NegFixedNumLow || code >= msgpcode.Int8 && code <= msgpcode.Int64 {
			return errors.New("a negative number, or one not written as an unsigned one")
		}
		if *n, err = r.dec.DecodeUint64(); err != nil {
			return err
		}
	}
	return nil
}

func (r reader) ints(into ...*int64) error {
	for _, n := range into {
		var err error
		if *n, err = r.dec.DecodeInt64(); err != nil {
			return err
		}
	}
	return nil
}

// bytes reads a string or bytes without copying them.
func (r reader) bytes(limit int) ([]byte, error) {
	n, err := r.dec.DecodeBytesLen()
	if err != nil {
		return nil, err
	}
	if n < 0 {
		return nil, nil
	}
	if n > r.left.Len() || n > limit {
		return nil, fmt.Errorf("%d bytes announced, %d left, at most %d", n, r.left.Len(), limit)
	}
	from := len(r.data) - r.left.Len()
	if _, err := r.left.Seek(int64(n), 1); err != nil {
		return nil, err
	}
	return r.data[from : from+n : from+n], nil
}

func (r reader) text(into *string, limit int) error {
	b, err := r.bytes(limit)
	*into = string(b)
	return err
}

func (r reader) texts(into *[]string) error {
	n, err := r.dec.DecodeArrayLen()
	if err != nil {
		return err
	}
	if n > r.left.Len() || n > MaxLinks {
		return fmt.Errorf("%d texts announced, %d bytes left, at most %d", n, r.left.Len(), MaxLinks)
	}
	for range max(n, 0) {
		var text string
		if err := r.text(&text, bus.MaxKey); err != nil {
			return err
		}
		*into = append(*into, text)
	}
	return nil
}

func (r reader) claims(into *[]Claim) error {
	n, err := r.dec.DecodeArrayLen()
	if err != nil {
		return err
	}
	if n > r.left.Len() || n > 2*maxClaims || n%2 != 0 {
		return fmt.Errorf("claims of %d parts announced, %d bytes left, want two each of at most %d", n, r.left.Len(), maxClaims)
	}
	for range n / 2 {
		var id uint64
		var until int64
		if err := errors.Join(r.uints(&id), r.ints(&until)); err != nil {
			return err
		}
		if until < 0 || until > maxMillis {
			return fmt.Errorf("a claim until %d ms since 1970, want 0 to %d", until, maxMillis)
		}
		*into = append(*into, Claim{ID: id, Until: time.UnixMilli(until)})
	}
	return nil
}
