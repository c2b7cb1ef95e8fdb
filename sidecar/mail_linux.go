package sidecar

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// mail is how other goroutines tell a loop to look at a connection. Its descriptor
// becomes readable, edge by edge, with every first letter; nobody reads it.
type mail struct {
	bell   int // an eventfd
	rung   atomic.Bool
	ending atomic.Bool

	mu   sync.Mutex
	line []*line
}

func newMail() (*mail, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return &mail{bell: fd}, nil
}

// post makes the loop look at c soon.
func (m *mail) post(c *line) {
	if c.posted.Swap(true) {
		return // it has not looked yet
	}
	m.mu.Lock()
	m.line = append(m.line, c)
	m.mu.Unlock()
	m.ring()
}

// stop makes the loop end.
func (m *mail) stop() {
	m.ending.Store(true)
	m.ring()
}

// one is what is added to an eventfd.
var one = binary.NativeEndian.AppendUint64(nil, 1)

func (m *mail) ring() {
	if m.rung.Swap(true) {
		return
	}
	if _, err := unix.Write(m.bell, one); err != nil && !errors.Is(err, unix.EAGAIN) { // full: readable it is
		panic("sidecar: an eventfd cannot be written: " + err.Error())
	}
}

// take moves what was posted into into.
func (m *mail) take(into []*line) []*line {
	if !m.rung.Load() {
		return into
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rung.Store(false) // before the letters are looked at: a later one rings again
	for _, c := range m.line {
		c.posted.Store(false)
	}
	into = append(into, m.line...)
	clear(m.line)
	m.line = m.line[:0]
	return into
}
