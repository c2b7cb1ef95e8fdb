package bench

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/nearside-cache/nearside/api/resp"
)

// Op is a kind of request, which results tell apart.
type Op uint8

// Kinds of requests.
const (
	Get Op = iota
	Set
	Invalidate
	ops
)

// String returns its name in results.
func (o Op) String() string { return [...]string{"get", "set", "invalidate"}[o] }

// Requests makes the requests of one connection. One goroutine uses it.
type Requests interface {
	// Append appends the next request to dst.
	Append(dst []byte) ([]byte, Op)
}

// Key returns the name of a key: the prefix, and the number in 12 digits, as
// redis-benchmark writes them.
func Key(prefix string, n uint64) string { return fmt.Sprintf("%s%012d", prefix, n) }

// keyDigits is how many digits a key ends with.
const keyDigits = 12

// appendKey appends the key as a bulk string.
func appendKey(dst []byte, prefix string, n uint64) []byte {
	dst = resp.AppendBulkHeader(dst, len(prefix)+keyDigits)
	dst = append(dst, prefix...)
	dst = append(dst, "000000000000"...)
	for i := len(dst) - 1; n > 0; i-- {
		dst[i] = byte('0' + n%10)
		n /= 10
	}
	return append(dst, resp.CRLF...)
}

// outlive is the expiry of stored values in seconds: no run is as long.
const outlive = "86400"

// Value is a value that SET stores. Any number of connections can share one.
type Value struct{ tail []byte } // what follows the key in the request

// NewValue returns a value of size bytes.
func NewValue(size int) Value {
	tail := resp.AppendBulk(nil, bytes.Repeat([]byte("x"), size))
	tail = resp.AppendBulkString(tail, "EX")
	return Value{resp.AppendBulkString(tail, outlive)}
}

// appendSet appends a SET of the value; key appends the key.
func (v Value) appendSet(dst []byte, key func([]byte) []byte) []byte {
	dst = resp.AppendArray(dst, 5)
	dst = resp.AppendBulkString(dst, "SET")
	return append(key(dst), v.tail...)
}

func appendGet(dst []byte, key func([]byte) []byte) []byte {
	dst = resp.AppendArray(dst, 2)
	dst = resp.AppendBulkString(dst, "GET")
	return key(dst)
}

// mixed are GETs and SETs.
type mixed struct {
	keys   Keys
	prefix string
	reads  float64
	value  Value
	r      *rand.Rand
}

// Mixed returns GETs and SETs of a value: reads is the share of GETs, 0 to 1.
func Mixed(keys Keys, prefix string, reads float64, value Value, r *rand.Rand) Requests {
	return &mixed{keys: keys, prefix: prefix, reads: reads, value: value, r: r}
}

// Append implements Requests.
func (m *mixed) Append(dst []byte) ([]byte, Op) {
	n := m.keys.Next()
	key := func(dst []byte) []byte { return appendKey(dst, m.prefix, n) }
	if m.reads == 1 || m.reads > 0 && m.r.Float64() < m.reads {
		return appendGet(dst, key), Get
	}
	return m.value.appendSet(dst, key), Set
}

// Commands that invalidate.
const (
	CommandDel        = "del"
	CommandInvalidate = "near.invalidate"
	CommandUpdate     = "near.update"
)

type invalidations struct {
	keys         Keys
	prefix       string
	before, tail []byte // around the key
}

// Invalidations returns invalidations of one key each, by CommandDel or
// CommandInvalidate.
func Invalidations(keys Keys, prefix, command string) Requests {
	i := &invalidations{keys: keys, prefix: prefix}
	if command == CommandDel {
		i.before = resp.AppendBulkString(resp.AppendArray(nil, 2), "DEL")
		return i
	}
	i.before = resp.AppendArray(nil, 5)
	for _, word := range []string{"NEAR.INVALIDATE", "KEYS", "1"} {
		i.before = resp.AppendBulkString(i.before, word)
	}
	i.tail = resp.AppendBulkString(nil, "0") // no version
	return i
}

// Append implements Requests.
func (i *invalidations) Append(dst []byte) ([]byte, Op) {
	dst = append(dst, i.before...)
	dst = appendKey(dst, i.prefix, i.keys.Next())
	return append(dst, i.tail...), Invalidate
}

// outcome is what an answer says of its request.
type outcome uint8

const (
	done outcome = iota // neither hit nor miss: a write
	hit
	miss
	failed // the error says why
)

// judge tells what an answer to an operation says. A value of another size than
// what is stored was not stored for this run.
func judge(o Op, r reply, size int) (outcome, error) {
	if err := r.err(); err != nil {
		return failed, err
	}
	switch {
	case o == Get && r.isNull():
		return miss, nil
	case o == Get && r.kind == '$' && r.size == size:
		return hit, nil
	case o == Get && r.kind == '$':
		return failed, fmt.Errorf("a value of %d bytes where %d were stored: somebody else uses these keys, choose another --prefix", r.size, size)
	case o == Set && r.kind == '+', o == Invalidate && (r.kind == ':' || r.kind == '$'):
		return done, nil
	}
	return failed, fmt.Errorf("an unexpected answer to %s, which begins with %s", o, strconv.QuoteRune(rune(r.kind)))
}
