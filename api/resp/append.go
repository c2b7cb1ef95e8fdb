package resp

import (
	"math"
	"strconv"
	"strings"
)

// CRLF ends every line and every bulk.
const CRLF = "\r\n"

// Proto is a version of the protocol, as HELLO names it. Replies whose form
// depends on it are its methods; the others are functions. All of them append
// to dst and return the result, and allocate only where dst is too small.
type Proto uint8

// Versions of the protocol.
const (
	RESP2 Proto = 2
	RESP3 Proto = 3
)

// appendHeader appends a type byte, a number and a line end.
func appendHeader(dst []byte, kind byte, n int64) []byte {
	dst = append(dst, kind)
	dst = strconv.AppendInt(dst, n, 10)
	return append(dst, CRLF...)
}

// appendLine appends a type byte, s and a line end. Line ends inside s become
// blanks: a message built from a client's bytes must not forge a reply.
func appendLine(dst []byte, kind byte, s string) []byte {
	dst = append(dst, kind)
	if strings.IndexByte(s, '\r') < 0 && strings.IndexByte(s, '\n') < 0 {
		dst = append(dst, s...)
		return append(dst, CRLF...)
	}
	for i := range len(s) {
		c := s[i]
		if c == '\r' || c == '\n' {
			c = ' '
		}
		dst = append(dst, c)
	}
	return append(dst, CRLF...)
}

// AppendSimple appends a simple string such as OK. Line ends in s become
// blanks.
func AppendSimple(dst []byte, s string) []byte { return appendLine(dst, '+', s) }

// AppendError appends an error. s begins with a code in capitals, as in
// "ERR unknown command". Line ends in s become blanks.
func AppendError(dst []byte, s string) []byte { return appendLine(dst, '-', s) }

// AppendInt appends an integer.
func AppendInt(dst []byte, n int64) []byte { return appendHeader(dst, ':', n) }

// AppendBulk appends a string of any bytes.
func AppendBulk(dst, b []byte) []byte {
	dst = appendHeader(dst, '$', int64(len(b)))
	dst = append(dst, b...)
	return append(dst, CRLF...)
}

// AppendBulkString is AppendBulk for a string.
func AppendBulkString(dst []byte, s string) []byte {
	dst = appendHeader(dst, '$', int64(len(s)))
	dst = append(dst, s...)
	return append(dst, CRLF...)
}

// AppendBulkHeader begins a string of n bytes, which the caller appends itself,
// followed by CRLF.
func AppendBulkHeader(dst []byte, n int) []byte { return appendHeader(dst, '$', int64(n)) }

// AppendArray begins an array; n replies must follow.
func AppendArray(dst []byte, n int) []byte { return appendHeader(dst, '*', int64(n)) }

// AppendNull appends "no such thing", for example the answer to a GET that
// misses.
func (p Proto) AppendNull(dst []byte) []byte {
	if p >= RESP3 {
		return append(dst, "_\r\n"...)
	}
	return append(dst, "$-1\r\n"...)
}

// AppendNullArray appends "no such thing" where an array is expected.
func (p Proto) AppendNullArray(dst []byte) []byte {
	if p >= RESP3 {
		return append(dst, "_\r\n"...)
	}
	return append(dst, "*-1\r\n"...)
}

// AppendMap begins a map; n keys and n values must follow in turns. RESP2 has
// an array of 2n instead.
func (p Proto) AppendMap(dst []byte, n int) []byte {
	if p >= RESP3 {
		return appendHeader(dst, '%', int64(n))
	}
	return AppendArray(dst, 2*n)
}

// AppendSet begins a set; n members must follow. RESP2 has an array instead.
func (p Proto) AppendSet(dst []byte, n int) []byte { return p.appendAggregate(dst, '~', n) }

// AppendPush begins a message that answers no command; n replies must follow,
// the first being its kind. RESP2 has an array instead, which only a client in
// subscribed state understands.
func (p Proto) AppendPush(dst []byte, n int) []byte { return p.appendAggregate(dst, '>', n) }

func (p Proto) appendAggregate(dst []byte, kind byte, n int) []byte {
	if p < RESP3 {
		kind = '*'
	}
	return appendHeader(dst, kind, int64(n))
}

// AppendBool appends a truth value. RESP2 has 1 and 0 instead.
func (p Proto) AppendBool(dst []byte, v bool) []byte {
	switch {
	case p >= RESP3 && v:
		return append(dst, "#t\r\n"...)
	case p >= RESP3:
		return append(dst, "#f\r\n"...)
	case v:
		return append(dst, ":1\r\n"...)
	default:
		return append(dst, ":0\r\n"...)
	}
}

// AppendDouble appends a floating point number in the shortest form that reads
// back the same. RESP2 has a bulk string instead.
func (p Proto) AppendDouble(dst []byte, v float64) []byte {
	var room [32]byte
	var text []byte
	switch {
	case math.IsInf(v, 1):
		text = append(room[:0], "inf"...)
	case math.IsInf(v, -1):
		text = append(room[:0], "-inf"...)
	case math.IsNaN(v):
		text = append(room[:0], "nan"...)
	default:
		text = strconv.AppendFloat(room[:0], v, 'g', -1, 64)
	}
	if p < RESP3 {
		return AppendBulk(dst, text)
	}
	dst = append(dst, ',')
	dst = append(dst, text...)
	return append(dst, CRLF...)
}

// AppendVerbatim appends plain text meant for people, such as the answer to
// INFO. RESP2 has a bulk string instead.
func (p Proto) AppendVerbatim(dst []byte, text string) []byte {
	if p < RESP3 {
		return AppendBulkString(dst, text)
	}
	dst = appendHeader(dst, '=', int64(len(text)+4))
	dst = append(dst, "txt:"...)
	dst = append(dst, text...)
	return append(dst, CRLF...)
}
