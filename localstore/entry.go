package localstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"time"
)

// Meta is what is kept with a value.
type Meta struct {
	Version     uint64 // the source's own stamp of the value; 0 = none
	Seq         uint64 // position the value was filled at: its lease's seq
	Tick        uint64 // the core's tick at the store
	Incarnation uint64 // incarnation of the sidecar's state that it was stored under
	// Expires is the hard expiry on the caller's monotonic clock; 0 = never. It
	// is kept to the millisecond, rounded down; what would become 0 or is
	// negative becomes 1 ms, since a clock that has run that long has expired it.
	Expires time.Duration
	// Hangs is what the entry hangs on, at most MaxHangs bytes in the caller's own
	// form. Put copies it. What a read returns is the reader's and must not be
	// changed; Evicted leaves it out.
	Hangs []byte
	Extra Extra // what few entries have
	// Size is the length of the value in bytes. The Store sets it; Put ignores
	// it.
	Size int
}

// Extra is what is kept of an entry that was loaded, or is packed, or stands for an
// absence. Moments are kept as Expires is.
type Extra struct {
	// Soft is from when the value is past its soft TTL; 0 = never.
	Soft time.Duration
	// Renew is from when a read of it has it loaded again; 0 = never.
	Renew time.Duration
	// Span is the TTL that it was given, to the millisecond; 0 = none.
	Span time.Duration
	// Negative: the source has no such thing, and the value is empty.
	Negative bool
	// Packed: the value is compressed.
	Packed bool
	// ETag is by what the origin can tell whether the value is still good, at most
	// MaxETag bytes. What a read returns is a copy.
	ETag string
}

// MaxETag is the longest ETag that is kept, in bytes.
const MaxETag = 255

// A record is what a ring holds of an entry: one byte of format and flags, the
// key, the stamps as uvarints, padding, and the value to the end.
//
//	byte     format in the high four bits, flags in the low four
//	uvarint n and n bytes of key
//	uvarint  version, seq, tick, incarnation, expiry in ms
//	uvarint n and n bytes of what it hangs on                   (flagHangs)
//	byte     flags, uvarint soft, renew and span in ms,
//	byte n   and n bytes of its ETag                            (flagExtra)
//	byte n   and n zero bytes                                   (flagPadded)
//	         value
const (
	formatMask = 0xf0
	format2    = 0x20
	flagPadded = 0x02
	flagHangs  = 0x04
	flagExtra  = 0x08

	extraNegative = 0x01
	extraPacked   = 0x02
	extraTimes    = 3
	maxExtra      = 1 + extraTimes*binary.MaxVarintLen64 + 1 + MaxETag

	stamps = 5
	// maxHeader is the largest header of a record, its key apart and without padding.
	maxHeader = 1 + 3 + stamps*binary.MaxVarintLen64 + 2 + MaxHangs + maxExtra
	// minRecord is the least that a record has, since a ring cannot put less than 17
	// bytes into a gap.
	minRecord = 32
	// maxPad is the most that padding adds.
	maxPad = 256
)

// errEntry says that bytes are no record. It means corrupted memory: nothing
// else writes them.
var errEntry = errors.New("localstore: malformed entry")

// record is a parsed record. Its slices and meta.Hangs share memory with what was
// parsed; meta.Extra.ETag is left out, which etag holds.
type record struct {
	meta  Meta
	key   []byte
	etag  []byte
	value []byte
}

// own returns the stamps with memory of their own.
func (r *record) own() Meta {
	m := r.meta
	m.Hangs = bytes.Clone(m.Hangs)
	m.Extra.ETag = string(r.etag)
	return m
}

// appendHead appends to dst, which must be empty, all of a record that comes before
// its padding and its value.
func appendHead(dst []byte, key string, m Meta) []byte {
	dst = append(dst, format2)
	dst = binary.AppendUvarint(dst, uint64(len(key)))
	dst = append(dst, key...)
	for _, v := range [stamps]uint64{m.Version, m.Seq, m.Tick, m.Incarnation, expiryMillis(m.Expires)} {
		dst = binary.AppendUvarint(dst, v)
	}
	if len(m.Hangs) > 0 {
		dst[0] |= flagHangs
		dst = binary.AppendUvarint(dst, uint64(len(m.Hangs)))
		dst = append(dst, m.Hangs...)
	}
	if m.Extra != (Extra{}) {
		dst[0] |= flagExtra
		dst = m.Extra.append(dst)
	}
	return dst
}

// appendRest appends to a head pad bytes of padding, 0 to maxPad, and the value.
func appendRest(dst []byte, pad int, value []byte) []byte {
	if pad > 0 {
		var zeros [maxPad]byte
		dst[0] |= flagPadded
		dst = append(dst, byte(pad-1))
		dst = append(dst, zeros[:pad-1]...)
	}
	return append(dst, value...)
}

// keyOf returns the key of a record, or false when b is none.
func keyOf(b []byte) (key []byte, ok bool) {
	if len(b) < 2 || b[0]&formatMask != format2 {
		return nil, false
	}
	n, width := uint64(b[1]), 1
	if n >= 1<<7 {
		if n, width = binary.Uvarint(b[1:]); width <= 0 {
			return nil, false
		}
	}
	if b = b[1+width:]; uint64(len(b)) < n {
		return nil, false
	}
	return b[:n:n], true
}

// parse reads a record. Any input is either refused with errEntry or read; none
// panics.
func (r *record) parse(b []byte) error {
	key, ok := keyOf(b)
	if !ok || len(key) == 0 || len(key) > MaxKey || b[0]&^(formatMask|flagPadded|flagHangs|flagExtra) != 0 {
		return errEntry
	}
	flags := b[0]
	_, width := binary.Uvarint(b[1:])
	b = b[1+width+len(key):]
	var v [stamps]uint64
	for i := range v {
		stamp, n := binary.Uvarint(b)
		if n <= 0 {
			return errEntry
		}
		v[i], b = stamp, b[n:]
	}
	if v[4] > uint64(math.MaxInt64/time.Millisecond) {
		return errEntry
	}
	*r = record{key: key, meta: Meta{
		Version: v[0], Seq: v[1], Tick: v[2], Incarnation: v[3], Expires: time.Duration(v[4]) * time.Millisecond,
	}}
	if r.value, ok = r.parseOptional(flags, b); !ok {
		return errEntry
	}
	r.meta.Size = len(r.value)
	return nil
}

// parseOptional reads what flags say that there is between the stamps and the value.
func (r *record) parseOptional(flags byte, b []byte) (rest []byte, ok bool) {
	if flags&flagHangs != 0 {
		n, width := binary.Uvarint(b)
		if width <= 0 || n == 0 || n > MaxHangs || uint64(len(b)-width) < n {
			return nil, false
		}
		r.meta.Hangs, b = b[width:width+int(n):width+int(n)], b[width+int(n):]
	}
	if flags&flagExtra != 0 {
		if r.meta.Extra, r.etag, b, ok = parseExtra(b); !ok {
			return nil, false
		}
	}
	if flags&flagPadded != 0 {
		if _, b, ok = cutBlock(b); !ok {
			return nil, false
		}
	}
	return b, true
}

func (x Extra) append(dst []byte) []byte {
	var flags byte
	if x.Negative {
		flags |= extraNegative
	}
	if x.Packed {
		flags |= extraPacked
	}
	dst = append(dst, flags)
	for _, t := range [extraTimes]time.Duration{x.Soft, x.Renew, x.Span} {
		dst = binary.AppendUvarint(dst, expiryMillis(t))
	}
	tag := x.ETag[:min(len(x.ETag), MaxETag)]
	dst = append(dst, byte(len(tag)))
	return append(dst, tag...)
}

// parseExtra reads all but the ETag into x.
func parseExtra(b []byte) (x Extra, etag, rest []byte, ok bool) {
	if len(b) == 0 || b[0]&^(extraNegative|extraPacked) != 0 {
		return Extra{}, nil, nil, false
	}
	x = Extra{Negative: b[0]&extraNegative != 0, Packed: b[0]&extraPacked != 0}
	b = b[1:]
	for _, t := range [extraTimes]*time.Duration{&x.Soft, &x.Renew, &x.Span} {
		ms, n := binary.Uvarint(b)
		if n <= 0 || ms > uint64(math.MaxInt64/time.Millisecond) {
			return Extra{}, nil, nil, false
		}
		*t, b = time.Duration(ms)*time.Millisecond, b[n:]
	}
	etag, rest, ok = cutBlock(b)
	return x, etag, rest, ok
}

// cutBlock splits b after a block that begins with its length in one byte.
func cutBlock(b []byte) (block, rest []byte, ok bool) {
	if len(b) == 0 || len(b)-1 < int(b[0]) {
		return nil, nil, false
	}
	n := 1 + int(b[0])
	return b[1:n], b[n:], true
}
