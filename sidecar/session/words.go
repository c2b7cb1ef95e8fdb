package session

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// words reads the arguments of a NEAR command one after the other. The first
// fault stays; what is read after it is zero.
type words struct {
	rest  [][]byte
	usage string // what the command wants, for people
	fault string
}

func (w *words) fail(format string, args ...any) {
	if w.fault == "" {
		w.fault = "ERR " + fmt.Sprintf(format, args...)
	}
	w.rest = nil
}

// option takes the next word if it is name.
func (w *words) option(name string) bool {
	if len(w.rest) == 0 || !is(w.rest[0], name) {
		return false
	}
	w.rest = w.rest[1:]
	return true
}

// next takes the next word, which must be there. It is a view.
func (w *words) next(what string) []byte {
	if len(w.rest) == 0 {
		w.fail("syntax error: %s is missing", what)
		return nil
	}
	b := w.rest[0]
	w.rest = w.rest[1:]
	return b
}

func (w *words) uint(what string) uint64 {
	b := w.next(what)
	n, err := strconv.ParseUint(view(b), 10, 64)
	if err != nil && w.fault == "" {
		w.fail("%s is %.40q: want a whole number, 0 or more", what, b)
	}
	return n
}

func (w *words) millis(what string) time.Duration {
	n := w.uint(what)
	if n > math.MaxInt64/uint64(time.Millisecond) {
		w.fail("%s is %d ms: that is too long", what, n)
		return 0
	}
	return time.Duration(n) * time.Millisecond
}

// list takes a count and as many words, at least one and at most limit. They are
// copies.
func (w *words) list(what string, limit int) []string {
	n := w.uint("the number of " + what)
	if w.fault == "" && (n < 1 || n > uint64(limit)) {
		w.fail("%d %s: want 1 to %d", n, what, limit)
	}
	var all []string
	for range n {
		if w.fault != "" {
			return nil
		}
		all = append(all, string(w.next("one of the "+what)))
	}
	return all
}

// key takes a key, which is a copy.
func (w *words) key() string {
	k := w.next("a key")
	if w.fault == "" {
		if fault := checkKey(k); fault != "" {
			w.fault, w.rest = fault, nil
		}
	}
	return string(k)
}

// end makes what is left over a fault and returns the first one.
func (w *words) end() string {
	if len(w.rest) > 0 {
		w.fail("syntax error at %.40q: want %s", w.rest[0], w.usage)
	}
	return w.fault
}
