package localstore

import (
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

// An entry is what bigcache holds under a key: one byte of format and flags,
// the stamps as uvarints, the key's tail, padding, and the value to the end.
//
//	byte     format in the high four bits, flags in the low four
//	uvarint  version, seq, tick, incarnation, expiry in ms
//	byte n   and n bytes of the key that bigcache cannot hold   (flagTail)
//	uvarint n and n bytes of what it hangs on                   (flagHangs)
//	byte     flags, uvarint soft, renew and span in ms,
//	byte n   and n bytes of its ETag                            (flagExtra)
//	byte n   and n zero bytes                                   (flagPadded)
//	         value
const (
	formatMask = 0xf0
	format1    = 0x10
	flagTail   = 0x01
	flagPadded = 0x02
	flagHangs  = 0x04
	flagExtra  = 0x08

	extraNegative = 0x01
	extraPacked   = 0x02
	extraTimes    = 3
	maxExtra      = 1 + extraTimes*binary.MaxVarintLen64 + 1 + MaxETag

	stamps = 5
	// maxHeader is the largest header of an entry, without padding: only short
	// entries have that.
	maxHeader = 1 + stamps*binary.MaxVarintLen64 + 1 + MaxKey - maxHead + 2 + MaxHangs + maxExtra
)

// errEntry says that bytes are no entry. It means corrupted memory: nothing
// else writes them.
var errEntry = errors.New("localstore: malformed entry")

// appendEntry appends the encoding of an entry to dst, which must be empty, so
// that with a key of headLen bytes before the tail it takes at least minEntry
// bytes of a ring.
func appendEntry(dst []byte, headLen int, tail string, m Meta, value []byte) []byte {
	dst = append(dst, format1)
	for _, v := range [stamps]uint64{m.Version, m.Seq, m.Tick, m.Incarnation, expiryMillis(m.Expires)} {
		dst = binary.AppendUvarint(dst, v)
	}
	if tail != "" {
		dst[0] |= flagTail
		dst = append(dst, byte(len(tail)))
		dst = append(dst, tail...)
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
	if pad := minEntry - ringBytes(headLen, len(dst)+len(value)); pad > 0 {
		var zeros [minEntry]byte
		dst[0] |= flagPadded
		dst = append(dst, byte(pad))
		dst = append(dst, zeros[:pad]...)
	}
	return append(dst, value...)
}

// parseEntry is the inverse of appendEntry. tail, value and Hangs share memory
// with b.
// Any input is either refused with errEntry or read; none panics.
func parseEntry(b []byte) (m Meta, tail, value []byte, err error) {
	if len(b) == 0 || b[0]&formatMask != format1 || b[0]&^(formatMask|flagTail|flagPadded|flagHangs|flagExtra) != 0 {
		return Meta{}, nil, nil, errEntry
	}
	flags, b := b[0], b[1:]
	var v [stamps]uint64
	for i := range v {
		stamp, n := binary.Uvarint(b)
		if n <= 0 {
			return Meta{}, nil, nil, errEntry
		}
		v[i], b = stamp, b[n:]
	}
	if v[4] > uint64(math.MaxInt64/time.Millisecond) {
		return Meta{}, nil, nil, errEntry
	}
	var ok bool
	if flags&flagTail != 0 {
		if tail, b, ok = cutBlock(b); !ok {
			return Meta{}, nil, nil, errEntry
		}
	}
	var hangs []byte
	if flags&flagHangs != 0 {
		n, width := binary.Uvarint(b)
		if width <= 0 || n == 0 || n > MaxHangs || uint64(len(b)-width) < n {
			return Meta{}, nil, nil, errEntry
		}
		hangs, b = b[width:width+int(n):width+int(n)], b[width+int(n):]
	}
	var extra Extra
	if flags&flagExtra != 0 {
		if extra, b, ok = parseExtra(b); !ok {
			return Meta{}, nil, nil, errEntry
		}
	}
	if flags&flagPadded != 0 {
		if _, b, ok = cutBlock(b); !ok {
			return Meta{}, nil, nil, errEntry
		}
	}
	m = Meta{
		Version: v[0], Seq: v[1], Tick: v[2], Incarnation: v[3],
		Expires: time.Duration(v[4]) * time.Millisecond, Hangs: hangs, Extra: extra, Size: len(b),
	}
	return m, tail, b, nil
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

func parseExtra(b []byte) (x Extra, rest []byte, ok bool) {
	if len(b) == 0 || b[0]&^(extraNegative|extraPacked) != 0 {
		return Extra{}, nil, false
	}
	x = Extra{Negative: b[0]&extraNegative != 0, Packed: b[0]&extraPacked != 0}
	b = b[1:]
	for _, t := range [extraTimes]*time.Duration{&x.Soft, &x.Renew, &x.Span} {
		ms, n := binary.Uvarint(b)
		if n <= 0 || ms > uint64(math.MaxInt64/time.Millisecond) {
			return Extra{}, nil, false
		}
		*t, b = time.Duration(ms)*time.Millisecond, b[n:]
	}
	tag, rest, ok := cutBlock(b)
	x.ETag = string(tag)
	return x, rest, ok
}

// cutBlock splits b after a block that begins with its length in one byte.
func cutBlock(b []byte) (block, rest []byte, ok bool) {
	if len(b) == 0 || len(b)-1 < int(b[0]) {
		return nil, nil, false
	}
	n := 1 + int(b[0])
	return b[1:n], b[n:], true
}
