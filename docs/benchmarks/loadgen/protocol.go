//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// protocol is how a server is asked. Every hit has an answer of the same length,
// so that answers need only be counted.
type protocol struct {
	prefix string
	value  []byte
	memc   bool

	stored []byte // the answer to a SET
	hit    []byte // the answer to a GET
}

func newProtocol(name, prefix string, size int) (*protocol, error) {
	p := &protocol{prefix: prefix, value: bytes.Repeat([]byte("x"), size)}
	switch name {
	case "resp":
		p.stored = []byte("+OK\r\n")
		p.hit = fmt.Appendf(nil, "$%d\r\n%s\r\n", size, p.value)
	case "memcached":
		p.memc = true
		p.stored = []byte("HD\r\n")
		p.hit = fmt.Appendf(nil, "VA %d\r\n%s\r\n", size, p.value)
	default:
		return nil, fmt.Errorf("no protocol %q: want resp or memcached", name)
	}
	return p, nil
}

const keyDigits = 12 // as redis-benchmark's __rand_int__

// appendKey appends the key with number n.
func (p *protocol) appendKey(dst []byte, n int) []byte {
	dst = append(dst, p.prefix...)
	dst = append(dst, ":000000000000"...)
	for i := len(dst) - 1; n > 0; i-- {
		dst[i] = byte('0' + n%10)
		n /= 10
	}
	return dst
}

func (p *protocol) keyLen() int { return len(p.prefix) + 1 + keyDigits }

func (p *protocol) appendGet(dst []byte, n int) []byte {
	if p.memc {
		dst = append(dst, "mg "...)
		return append(p.appendKey(dst, n), " v\r\n"...)
	}
	dst = append(dst, "*2\r\n$3\r\nGET\r\n$"...)
	dst = strconv.AppendInt(dst, int64(p.keyLen()), 10)
	dst = append(dst, "\r\n"...)
	return append(p.appendKey(dst, n), "\r\n"...)
}

// set is a SET whose value outlives every run.
func (p *protocol) set(n int) []byte {
	if p.memc {
		dst := []byte("ms ")
		return fmt.Appendf(p.appendKey(dst, n), " %d T86400\r\n%s\r\n", len(p.value), p.value)
	}
	dst := fmt.Appendf(nil, "*5\r\n$3\r\nSET\r\n$%d\r\n", p.keyLen())
	return fmt.Appendf(p.appendKey(dst, n), "\r\n$%d\r\n%s\r\n$2\r\nEX\r\n$5\r\n86400\r\n", len(p.value), p.value)
}

// answerTimeout is how long an answer may take. One that is shorter than a
// value, because there is none, never becomes complete.
const answerTimeout = 5 * time.Second

// fillBatch is how many keys fill asks for at once.
const fillBatch = 64

// fill stores the values and sees that each is kept: a cache may drop a SET.
func fill(o options, p *protocol) error {
	conn, err := net.Dial("unix", o.socket)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // everything was answered, or the error is on its way
	answers := bufio.NewReader(conn)
	var sets, gets []byte
	for from := 0; from < o.Keys; from += fillBatch {
		to := min(from+fillBatch, o.Keys)
		sets, gets = sets[:0], gets[:0]
		for n := from; n < to; n++ {
			sets = append(sets, p.set(n)...)
			gets = p.appendGet(gets, n)
		}
		if n, err := exchange(conn, answers, sets, to-from, p.stored); err != nil {
			return fmt.Errorf("set key %d: %w", from+n, err)
		}
		if n, err := exchange(conn, answers, gets, to-from, p.hit); err != nil {
			return fmt.Errorf("get key %d after its set: %w", from+n, err)
		}
	}
	return nil
}

// exchange sends requests and wants exactly this answer to each. It returns the
// number of the one that has another.
func exchange(conn net.Conn, answers io.Reader, requests []byte, count int, want []byte) (n int, err error) {
	if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return 0, err
	}
	if _, err := conn.Write(requests); err != nil {
		return 0, err
	}
	got := make([]byte, len(want))
	for n := range count {
		if have, err := io.ReadFull(answers, got); err != nil {
			return n, fmt.Errorf("answer is %.60q, want %.60q: %w", got[:have], want, err)
		}
		if !bytes.Equal(got, want) {
			return n, fmt.Errorf("answer is %.60q, want %.60q", got, want)
		}
	}
	return count, nil
}
