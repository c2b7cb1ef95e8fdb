package nearside

import (
	"fmt"
	"io"

	"github.com/nearside-cache/nearside/api/near"
)

const (
	readBuffer = 64 << 10
	// growth is by how much the memory for a long frame runs ahead of its bytes: what a
	// header announces is not believed before it comes.
	growth = 1 << 20
)

// frames takes frames from a connection.
type frames struct {
	r     io.Reader
	buf   []byte
	start int // buf[start:end] is what was read and not taken
	end   int
	limit int // longest body
}

func newFrames(r io.Reader) *frames {
	return &frames{r: r, buf: make([]byte, readBuffer), limit: near.MaxFrame}
}

// next returns the next frame. The body is a view, good until the next call, unless it
// is longer than the buffer. At the end of the input between frames it fails with
// io.EOF.
func (f *frames) next() (near.Header, []byte, error) {
	for {
		h, body, err := near.Next(f.buf[f.start:f.end])
		switch {
		case err == nil:
			f.start += h.Size()
			return h, body, nil
		case err != near.ErrShort: //nolint:errorlint // Next returns this one bare
			return h, nil, err
		case int(h.Length) > f.limit:
			return h, nil, fmt.Errorf("%w: a body of %d bytes, at most %d were agreed on", near.ErrFraming, h.Length, f.limit)
		case h.Size() > len(f.buf):
			body, err := f.long(h)
			return h, body, err
		}
		if err := f.more(); err != nil {
			return h, nil, err
		}
	}
}

// more brings at least one byte.
func (f *frames) more() error {
	if f.start == f.end {
		f.start, f.end = 0, 0
	}
	if f.end == len(f.buf) {
		f.end = copy(f.buf, f.buf[f.start:f.end])
		f.start = 0
	}
	n, err := f.r.Read(f.buf[f.end:])
	f.end += n
	if n > 0 {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	if err == io.EOF && f.start < f.end {
		return io.ErrUnexpectedEOF
	}
	return err
}

// long takes a body that the buffer cannot hold into memory of its own.
func (f *frames) long(h near.Header) ([]byte, error) {
	want := int(h.Length)
	body := make([]byte, 0, min(want, growth))
	body = append(body, f.buf[f.start+near.HeaderSize:f.end]...)
	f.start, f.end = 0, 0
	for len(body) < want {
		if len(body) == cap(body) {
			body = append(make([]byte, 0, min(want, 2*cap(body))), body...)
		}
		n, err := f.r.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if err == io.EOF && len(body) < want {
			return nil, io.ErrUnexpectedEOF
		}
		if err != nil && len(body) < want {
			return nil, err
		}
	}
	return body, nil
}
