package near

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Errors that callers act on. They are wrapped with what was found; compare with
// errors.Is.
var (
	// ErrShort says that the input ends before the frame does: bring more.
	ErrShort = errors.New("near: the frame is not whole")
	// ErrFraming says that what comes is no frame: where the next one begins cannot
	// be known.
	ErrFraming = errors.New("near: no frame")
	// ErrMalformed says that a body is not that of its kind. The frame is whole.
	ErrMalformed = errors.New("near: malformed body")
)

// Header is what a frame begins with.
type Header struct {
	Kind   Kind
	ID     uint32
	Length uint32 // of the body, in bytes
}

// Size is the length of the whole frame in bytes.
func (h Header) Size() int { return HeaderSize + int(h.Length) }

// ParseHeader reads the header that b begins with. It fails with ErrShort or
// ErrFraming. Whether the frame is longer than the reader takes is for it to say.
func ParseHeader(b []byte) (Header, error) {
	if len(b) > 0 && b[0] != Magic {
		return Header{}, fmt.Errorf("%w: it begins with byte 0x%02x, want 0x%02x", ErrFraming, b[0], Magic)
	}
	if len(b) < HeaderSize {
		return Header{}, ErrShort
	}
	h := Header{Kind: Kind(b[1]), ID: binary.BigEndian.Uint32(b[2:]), Length: binary.BigEndian.Uint32(b[6:])}
	if h.Length > MaxFrame {
		return Header{}, fmt.Errorf("%w: it announces a body of %d bytes, want at most %d", ErrFraming, h.Length, MaxFrame)
	}
	return h, nil
}

// Next returns the header and the body of the frame that b begins with; the body is
// a view. It fails as ParseHeader does.
func Next(b []byte) (Header, []byte, error) {
	h, err := ParseHeader(b)
	if err != nil {
		return Header{}, nil, err
	}
	if len(b) < h.Size() {
		return h, nil, ErrShort
	}
	return h, b[HeaderSize:h.Size()], nil
}

// appendHeader begins a frame, whose length finish puts in.
func appendHeader(dst []byte, kind Kind, id uint32) []byte {
	return append(dst, Magic, byte(kind), byte(id>>24), byte(id>>16), byte(id>>8), byte(id), 0, 0, 0, 0)
}

// finish ends the frame that begins at start.
func finish(dst []byte, start int) []byte {
	binary.BigEndian.PutUint32(dst[start+6:], uint32(len(dst)-start-HeaderSize))
	return dst
}

// Append appends m, a message of the kind, as a frame to dst.
func Append(dst []byte, kind Kind, id uint32, m Message) []byte {
	start := len(dst)
	c := codec{writing: true, out: appendHeader(dst, kind, id)}
	c.array(func() { m.walk(&c) })
	return finish(c.out, start)
}

// Parse reads the body of a frame into m, a message of the frame's kind. Bytes are
// views of body, texts are copies. It fails with ErrMalformed, and then m is of no
// use.
func Parse(body []byte, m Message) error {
	c := codec{reader: reader{b: body}}
	c.array(func() { m.walk(&c) })
	return c.end()
}

// Message is what a frame holds: one of the types below.
type Message interface{ walk(c *codec) }
