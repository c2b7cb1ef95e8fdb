package bus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"
)

// msgpackReader reads msgpack values from a body whose lengths it checks against what
// is left before it allocates. It accepts what the library does that encodes: a nil
// for any value, strings and bytes for one another. What it returns are parts of the
// body, which must not change as long as they are used.
type msgpackReader struct {
	left  []byte
	spare []KeyVersion // where an event's keys are put if they fit
}

// Codes of msgpack values. Forms with longer lengths or numbers follow those with
// shorter ones.
const (
	codeFixMap   = 0x80
	codeFixArray = 0x90
	codeFixStr   = 0xa0
	codeNil      = 0xc0
	codeFalse    = 0xc2
	codeTrue     = 0xc3
	codeBin8     = 0xc4
	codeExt8     = 0xc7
	codeFloat    = 0xca
	codeDouble   = 0xcb
	codeUint8    = 0xcc
	codeInt8     = 0xd0
	codeFixExt1  = 0xd4
	codeStr8     = 0xd9
	codeArray16  = 0xdc
	codeMap16    = 0xde
	codeNegative = 0xe0 // and above: -32 to -1
)

var errShort = errors.New("unexpected EOF")

// take returns the next n bytes.
func (r *msgpackReader) take(n int) ([]byte, error) {
	if n > len(r.left) {
		return nil, errShort
	}
	b := r.left[:n:n]
	r.left = r.left[n:]
	return b, nil
}

func (r *msgpackReader) code() (byte, error) {
	b, err := r.take(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

// number reads an unsigned number of 1, 2, 4 or 8 bytes.
func (r *msgpackReader) number(size int) (uint64, error) {
	b, err := r.take(size)
	if err != nil {
		return 0, err
	}
	switch size {
	case 1:
		return uint64(b[0]), nil
	case 2:
		return uint64(binary.BigEndian.Uint16(b)), nil
	case 4:
		return uint64(binary.BigEndian.Uint32(b)), nil
	default:
		return binary.BigEndian.Uint64(b), nil
	}
}

// int reads a whole number; one above the largest int64 wraps around.
func (r *msgpackReader) int() (int64, error) {
	code, err := r.code()
	if err != nil {
		return 0, err
	}
	return r.intOf(code)
}

func (r *msgpackReader) intOf(code byte) (int64, error) {
	switch {
	case code < codeFixMap, code >= codeNegative:
		return int64(int8(code)), nil
	case code == codeNil:
		return 0, nil
	case code >= codeUint8 && code < codeUint8+4:
		n, err := r.number(1 << (code - codeUint8))
		return int64(n), err
	case code >= codeInt8 && code < codeInt8+4:
		size := 1 << (code - codeInt8)
		n, err := r.number(size)
		shift := 64 - 8*size
		return int64(n<<shift) >> shift, err
	}
	return 0, fmt.Errorf("code %x is no whole number", code)
}

// uint reads a number that is not negative.
func (r *msgpackReader) uint() (uint64, error) {
	code, err := r.code()
	if err != nil {
		return 0, err
	}
	n, err := r.intOf(code)
	if err == nil && n < 0 && code != codeUint8+3 { // all values of 64 bits are meant
		err = fmt.Errorf("negative number %d", n)
	}
	return uint64(n), err
}

func (r *msgpackReader) bool() (bool, error) {
	code, err := r.code()
	if err == nil && code != codeFalse && code != codeTrue && code != codeNil {
		err = fmt.Errorf("code %x is no truth value", code)
	}
	return code == codeTrue, err
}

// mapLen reads the head of a map, which must not be nil.
func (r *msgpackReader) mapLen() (int, error) {
	code, err := r.code()
	switch {
	case err != nil:
		return 0, err
	case code >= codeFixMap && code < codeFixArray:
		return int(code - codeFixMap), nil
	case code == codeMap16 || code == codeMap16+1:
		n, err := r.number(2 << (code - codeMap16))
		return int(n), err
	}
	return 0, fmt.Errorf("code %x is no map", code)
}

// array reads the length of an array. Every element takes a byte at least, so a
// length above what is left is a lie.
func (r *msgpackReader) array(what string) (int, error) {
	code, err := r.code()
	if err != nil {
		return 0, err
	}
	n := uint64(0)
	switch {
	case code == codeNil:
	case code >= codeFixArray && code < codeFixStr:
		n = uint64(code - codeFixArray)
	case code == codeArray16 || code == codeArray16+1:
		n, err = r.number(2 << (code - codeArray16))
	default:
		err = fmt.Errorf("code %x is no array", code)
	}
	if err != nil {
		return 0, err
	}
	if n > uint64(len(r.left)) {
		return 0, fmt.Errorf("%d %s announced, %d bytes left", n, what, len(r.left))
	}
	return int(n), atMost(what, int(n), max(MaxKeys, MaxTags))
}

// bytes reads a string or bytes; nil for the msgpack nil.
func (r *msgpackReader) bytes(what string, limit int) ([]byte, error) {
	code, err := r.code()
	if err != nil {
		return nil, err
	}
	n := uint64(0)
	switch {
	case code == codeNil:
		return nil, nil
	case code >= codeFixStr && code < codeNil:
		n = uint64(code - codeFixStr)
	case code >= codeStr8 && code < codeStr8+3:
		n, err = r.number(1 << (code - codeStr8))
	case code >= codeBin8 && code < codeBin8+3:
		n, err = r.number(1 << (code - codeBin8))
	default:
		err = fmt.Errorf("code %x is neither a string nor bytes", code)
	}
	if err != nil {
		return nil, err
	}
	if n > uint64(len(r.left)) {
		return nil, fmt.Errorf("%s of %d bytes announced, %d left", what, n, len(r.left))
	}
	if int(n) > limit {
		return nil, atMost("bytes of the "+what, int(n), limit)
	}
	return r.take(int(n))
}

// text is bytes as a string, which is a part of the body.
func (r *msgpackReader) text(what string, limit int) (string, error) {
	b, err := r.bytes(what, limit)
	return unsafe.String(unsafe.SliceData(b), len(b)), err
}

// skip passes over n values of any kind. It does not recurse, since a hostile body
// can nest as deep as it is long.
func (r *msgpackReader) skip(n int) error {
	for ; n > 0; n-- {
		if n > len(r.left) {
			return fmt.Errorf("%d values announced, %d bytes left", n, len(r.left))
		}
		inner, err := r.skipOne()
		if err != nil {
			return err
		}
		n += inner
	}
	return nil
}

// skipOne passes over a value, of an array or a map over its head, and returns how
// many values are within.
func (r *msgpackReader) skipOne() (inner int, err error) {
	code, err := r.code()
	if err != nil {
		return 0, err
	}
	size := uint64(0) // of what follows the code
	switch {
	case code < codeFixMap, code >= codeNegative, code == codeNil, code == codeFalse, code == codeTrue:
	case code < codeFixArray:
		return 2 * int(code-codeFixMap), nil
	case code < codeFixStr:
		return int(code - codeFixArray), nil
	case code < codeNil:
		size = uint64(code - codeFixStr)
	case code >= codeBin8 && code < codeExt8:
		size, err = r.number(1 << (code - codeBin8))
	case code >= codeExt8 && code < codeFloat:
		size, err = r.number(1 << (code - codeExt8))
		size++ // its type
	case code == codeFloat, code == codeDouble:
		size = 4 << (code - codeFloat)
	case code >= codeUint8 && code < codeFixExt1:
		size = 1 << ((code - codeUint8) % 4)
	case code >= codeFixExt1 && code < codeStr8:
		size = 1 + 1<<(code-codeFixExt1)
	case code >= codeStr8 && code < codeArray16:
		size, err = r.number(1 << (code - codeStr8))
	case code >= codeArray16:
		wide := (code - codeArray16) % 2
		n, err := r.number(2 << wide)
		if code >= codeMap16 {
			n *= 2
		}
		return int(n), err
	default:
		err = fmt.Errorf("unknown code %x", code)
	}
	if err == nil && size > uint64(len(r.left)) {
		err = errShort
	}
	if err == nil {
		r.left = r.left[size:]
	}
	return 0, err
}
