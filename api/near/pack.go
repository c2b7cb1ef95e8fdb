package near

import (
	"encoding/binary"
	"fmt"
	"math"
)

// The little of msgpack that the protocol needs, written and read by hand: nothing
// here allocates but what a message keeps.

// First bytes of msgpack values.
const (
	mpFixMap, mpFixArray, mpFixStr = 0x80, 0x90, 0xa0
	mpNil, mpFalse, mpTrue         = 0xc0, 0xc2, 0xc3
	mpBin8, mpBin16, mpBin32       = 0xc4, 0xc5, 0xc6
	mpExt8, mpExt32                = 0xc7, 0xc9
	mpFloat32, mpFloat64           = 0xca, 0xcb
	mpUint8, mpUint16              = 0xcc, 0xcd
	mpUint32, mpUint64             = 0xce, 0xcf
	mpInt8, mpInt64                = 0xd0, 0xd3
	mpFixExt1, mpFixExt16          = 0xd4, 0xd8
	mpStr8, mpStr16, mpStr32       = 0xd9, 0xda, 0xdb
	mpArray16, mpArray32           = 0xdc, 0xdd
	mpMap16, mpMap32               = 0xde, 0xdf
	mpNegative                     = 0xe0
	bin32Size                      = 5 // a bin32's header
)

func appendUint(dst []byte, n uint64) []byte {
	switch {
	case n < mpFixMap:
		return append(dst, byte(n))
	case n <= math.MaxUint8:
		return append(dst, mpUint8, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, mpUint16), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, mpUint32), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, mpUint64), n)
}

func appendInt(dst []byte, n int64) []byte {
	if n >= 0 {
		return appendUint(dst, uint64(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, mpInt64), uint64(n))
}

func appendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, mpTrue)
	}
	return append(dst, mpFalse)
}

func appendBin[T string | []byte](dst []byte, b T) []byte {
	switch n := len(b); {
	case n <= math.MaxUint8:
		dst = append(dst, mpBin8, byte(n))
	case n <= math.MaxUint16:
		dst = binary.BigEndian.AppendUint16(append(dst, mpBin16), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint32(append(dst, mpBin32), uint32(n))
	}
	return append(dst, b...)
}

func appendStr(dst []byte, s string) []byte {
	switch n := len(s); {
	case n < 32:
		dst = append(dst, mpFixStr|byte(n))
	case n <= math.MaxUint8:
		dst = append(dst, mpStr8, byte(n))
	case n <= math.MaxUint16:
		dst = binary.BigEndian.AppendUint16(append(dst, mpStr16), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint32(append(dst, mpStr32), uint32(n))
	}
	return append(dst, s...)
}

func appendArray(dst []byte, n int) []byte {
	switch {
	case n < 16:
		return append(dst, mpFixArray|byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, mpArray16), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(dst, mpArray32), uint32(n))
}

// reader reads msgpack values one after the other. The first fault stays; what is
// read after it is zero.
type reader struct {
	b   []byte
	at  int
	err error
}

// fail keeps the first fault.
func (r *reader) fail(what string) {
	if r.err != nil {
		return
	}
	found := "the end of the body"
	if r.at < len(r.b) {
		found = fmt.Sprintf("byte 0x%02x", r.b[r.at])
	}
	r.err = fmt.Errorf("%w at byte %d: want %s, found %s", ErrMalformed, r.at, what, found)
}

// peek returns the first byte of the next value.
func (r *reader) peek() (byte, bool) {
	if r.err != nil || r.at >= len(r.b) {
		return 0, false
	}
	return r.b[r.at], true
}

// number takes the n bytes of a big-endian number behind the first byte of a value.
func (r *reader) number(n int, what string) uint64 {
	if len(r.b)-r.at < 1+n {
		r.fail(what)
		return 0
	}
	var v uint64
	for _, c := range r.b[r.at+1 : r.at+1+n] {
		v = v<<8 | uint64(c)
	}
	r.at += 1 + n
	return v
}

// uint takes an unsigned number, in any width.
func (r *reader) uint() uint64 {
	const what = "a whole number, 0 or more"
	c, ok := r.peek()
	switch {
	case !ok:
	case c < mpFixMap:
		r.at++
		return uint64(c)
	case c >= mpUint8 && c <= mpUint64:
		return r.number(1<<(c-mpUint8), what)
	case c >= mpInt8 && c <= mpInt64:
		width := 1 << (c - mpInt8)
		if len(r.b)-r.at > width && r.b[r.at+1] < 0x80 { // some encoders write these for what is not negative
			return r.number(width, what)
		}
	}
	r.fail(what)
	return 0
}

// int takes a number.
func (r *reader) int() int64 {
	const what = "a whole number"
	c, ok := r.peek()
	switch {
	case ok && c >= mpNegative:
		r.at++
		return int64(int8(c))
	case ok && c >= mpInt8 && c <= mpInt64:
		width := 1 << (c - mpInt8)
		shift := 64 - 8*width
		return int64(r.number(width, what)<<shift) >> shift
	}
	n := r.uint()
	if n > math.MaxInt64 {
		r.fail("a number below 2^63")
		return 0
	}
	return int64(n)
}

func (r *reader) bool() bool {
	c, ok := r.peek()
	if !ok || c != mpTrue && c != mpFalse {
		r.fail("true or false")
		return false
	}
	r.at++
	return c == mpTrue
}

// none takes a nil, if the next value is one.
func (r *reader) none() bool {
	c, ok := r.peek()
	if ok && c == mpNil {
		r.at++
		return true
	}
	return false
}

// bytes takes a bin or a str, and returns a view of it.
func (r *reader) bytes() []byte {
	const what = "bytes"
	var n uint64
	c, ok := r.peek()
	switch {
	case !ok:
		r.fail(what)
		return nil
	case c >= mpFixStr && c < mpNil:
		n = uint64(c & 0x1f)
		r.at++
	case c >= mpBin8 && c <= mpBin32:
		n = r.number(1<<(c-mpBin8), what)
	case c >= mpStr8 && c <= mpStr32:
		n = r.number(1<<(c-mpStr8), what)
	default:
		r.fail(what)
		return nil
	}
	return r.take(n, what)
}

// take returns a view of the next n bytes.
func (r *reader) take(n uint64, what string) []byte {
	if r.err != nil {
		return nil
	}
	if n > uint64(len(r.b)-r.at) {
		r.fail(fmt.Sprintf("%d bytes more of %s", n, what))
		return nil
	}
	b := r.b[r.at : r.at+int(n) : r.at+int(n)]
	r.at += int(n)
	return b
}

// array takes the head of an array and returns how many values follow, which are
// no more than there are bytes.
func (r *reader) array() int { return r.count(mpFixArray, mpArray16, "an array") }

func (r *reader) count(fix, wide byte, what string) int {
	var n uint64
	c, ok := r.peek()
	switch {
	case ok && c&0xf0 == fix:
		n = uint64(c & 0x0f)
		r.at++
	case ok && (c == wide || c == wide+1):
		n = r.number(2<<(c-wide), what)
	default:
		r.fail(what)
		return 0
	}
	if n > uint64(len(r.b)-r.at) {
		r.fail(fmt.Sprintf("%d values of %s", n, what))
		return 0
	}
	return int(n)
}

// skip passes n values of whatever type, without recursion.
func (r *reader) skip(n int) {
	for todo := n; todo > 0 && r.err == nil; todo-- {
		todo += r.pass()
	}
}

// pass passes one value, of an array or a map only the head, and returns how many
// values follow it.
func (r *reader) pass() (inside int) {
	const what = "a value"
	c, ok := r.peek()
	switch {
	case !ok, c == 0xc1:
		r.fail(what)
	case c < mpFixMap, c >= mpNegative, c == mpNil, c == mpFalse, c == mpTrue:
		r.at++
	case c < mpFixArray, c == mpMap16, c == mpMap32:
		return 2 * r.count(mpFixMap, mpMap16, "a map")
	case c < mpFixStr, c == mpArray16, c == mpArray32:
		return r.array()
	case c < mpNil, c >= mpBin8 && c <= mpBin32, c >= mpStr8 && c <= mpStr32:
		r.bytes()
	case c <= mpExt32: // its type is one byte more
		if n := r.number(1<<(c-mpExt8), what); r.err == nil {
			r.take(n+1, what)
		}
	case c <= mpFloat64:
		r.number(4<<(c-mpFloat32), what)
	case c <= mpUint64:
		r.number(1<<(c-mpUint8), what)
	case c <= mpInt64:
		r.number(1<<(c-mpInt8), what)
	default: // fixext, with a byte of type
		r.number(1+1<<(c-mpFixExt1), what)
	}
	return inside
}
