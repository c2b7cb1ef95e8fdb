// Package resp speaks the Redis serialization protocol, versions 2 and 3: a
// Decoder of commands and Append functions of replies for a server, which do
// not allocate on the hot path, and a small Client for tools and tests.
package resp

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/nearside-cache/nearside/api"
)

// Command is a command's arguments, its name first; it has at least one. The
// arguments are views into the buffer given to Decoder.Next.
type Command [][]byte

// Limits bound what a Decoder accepts. A zero field means its default.
type Limits struct {
	MaxArgs   int // arguments of one command; default api.DefaultMaxArgs
	MaxBulk   int // bytes of one argument; default api.DefaultMaxValue
	MaxFrame  int // bytes of one command on the wire; default api.DefaultMaxFrame
	MaxInline int // bytes of a command sent as a line of text; default api.MaxInline
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, def, ceiling int) {
		if *v <= 0 {
			*v = def
		}
		*v = min(*v, ceiling)
	}
	set(&l.MaxArgs, api.DefaultMaxArgs, api.MaxArgs)
	set(&l.MaxBulk, api.DefaultMaxValue, api.MaxBulk)
	set(&l.MaxFrame, api.DefaultMaxFrame, api.MaxFrame)
	set(&l.MaxInline, api.MaxInline, l.MaxFrame)
	return l
}

// keepArgs is how many arguments' worth of slices a Decoder keeps between
// commands; what one huge command needed is given back.
const keepArgs = 1024

// headerless marks a bulk whose length is not known yet.
const headerless = -1

// span is an argument's place in the buffer. A frame is at most api.MaxFrame
// long, so 32 bits do.
type span struct{ off, len uint32 }

// Decoder reads commands from a growing buffer. It remembers how far it came,
// so that a command that arrives in many pieces is read once, not once per
// piece. It is used by one goroutine at a time.
//
// INVARIANT: positions are relative to the first byte of the current command,
// which is the first byte of the next buffer unless the command is refused; of
// a refused command nothing is kept, and pos is 0 between calls.
type Decoder struct {
	lim Limits

	args  Command
	spans []span

	left int // arguments still to be read; 0 between commands
	body int // bytes of the current argument still to be read, or headerless
	pos  int // bytes of the command that need not be looked at again
	want int

	refused *LimitError    // the current command's answer, once it broke a limit
	gone    int            // bytes of a refused command already consumed
	fatal   *ProtocolError // ends the input for good
}

// NewDecoder returns a Decoder that accepts commands within l.
func NewDecoder(l Limits) *Decoder {
	return &Decoder{lim: l.withDefaults(), body: headerless}
}

// Next reads the next command. buf begins at the first byte not yet consumed;
// until a call consumes bytes, later buffers must begin with the same bytes
// and may have moved. n is how many bytes this call consumed, whatever err is.
// The command is valid until the next call or until the caller changes buf,
// whichever comes first.
//
// The error is ErrMore when buf holds no whole command; a *LimitError when one
// command was refused and its bytes were consumed, after which decoding goes
// on; or a *ProtocolError, which every later call returns too. Empty lines and
// empty arrays are consumed and ignored, as Redis does.
func (d *Decoder) Next(buf []byte) (cmd Command, n int, err error) {
	if d.fatal != nil {
		return nil, 0, d.fatal
	}
	d.want = 0
	d.releaseArgs()
	for d.left == 0 {
		m, err := d.begin(buf[n:])
		n += m
		if err != nil {
			return nil, n, err
		}
		if len(d.args) > 0 {
			return d.args, n, nil
		}
	}
	m, err := d.bulks(buf[n:])
	n += m
	if err != nil {
		return nil, n, err
	}
	return d.args, n, nil
}

// WantMore says how many bytes the argument being received lacks, its line end
// included, after Next returned ErrMore: the size of a good next read. It is 0
// when that is not known, and when the bytes to come will be dropped. It never
// exceeds the limits.
func (d *Decoder) WantMore() int { return d.want }

// Begun reports whether a command of bulks has begun and is not whole: true also
// while what is left of a refused one is being dropped.
func (d *Decoder) Begun() bool { return d.left > 0 }

// releaseArgs forgets the views of the former command, so that they do not
// keep its buffer alive.
func (d *Decoder) releaseArgs() {
	if cap(d.args) > keepArgs {
		d.args = nil
	}
	clear(d.args)
	d.args = d.args[:0]
	if d.left == 0 && cap(d.spans) > keepArgs {
		d.spans = nil
	}
}

// begin reads a line of text, or the header of an array of bulks. It consumes
// nothing but whole lines.
func (d *Decoder) begin(buf []byte) (n int, err error) {
	if len(buf) == 0 {
		return 0, ErrMore
	}
	if buf[0] != '*' {
		return d.inline(buf)
	}
	count, n, ok := number(buf[1:])
	switch {
	case !ok || count > api.MaxArgs:
		return 0, d.fail("invalid multibulk length")
	case n == 0:
		return 0, ErrMore
	case count <= 0:
		return 1 + n, nil
	}
	d.left, d.body, d.pos = count, headerless, 1+n
	d.spans = slices.Grow(d.spans[:0], min(count, keepArgs))
	if count > d.lim.MaxArgs {
		d.refuse(LimitError{What: LimitArgs, Size: count, Max: d.lim.MaxArgs})
	}
	return 0, nil
}

// bulks reads the arguments of an array. It consumes the command as a whole,
// or, of a refused one, whatever there is.
func (d *Decoder) bulks(buf []byte) (n int, err error) {
	for ; d.left > 0; d.left-- {
		if d.body == headerless {
			if err := d.bulkHeader(buf); err != nil {
				return d.pause(), err
			}
		}
		if !d.bulkBody(buf) {
			return d.pause(), ErrMore
		}
		if buf[d.pos] != '\r' || buf[d.pos+1] != '\n' {
			return 0, d.fail("bulk string not terminated by CRLF")
		}
		d.pos += 2
		d.body = headerless
	}
	n, d.pos = d.pos, 0
	if d.refusing() {
		return n, d.endRefused(n)
	}
	d.args = slices.Grow(d.args, len(d.spans))
	for _, s := range d.spans {
		end := s.off + s.len
		d.args = append(d.args, buf[s.off:end:end])
	}
	return n, nil
}

// bulkHeader reads the length of the next argument and checks the limits.
func (d *Decoder) bulkHeader(buf []byte) error {
	b := buf[d.pos:]
	if len(b) == 0 {
		return ErrMore
	}
	if b[0] != '$' {
		return d.fail(fmt.Sprintf("expected '$', got %q", b[0]))
	}
	length, n, ok := number(b[1:])
	switch {
	case !ok || length < 0 || length > api.MaxBulk:
		return d.fail("invalid bulk length")
	case n == 0:
		return ErrMore
	}
	d.pos += 1 + n
	d.body = length
	switch {
	case d.refusing():
	case length > d.lim.MaxBulk:
		d.refuse(LimitError{What: LimitBulk, Arg: len(d.spans), Size: length, Max: d.lim.MaxBulk})
	case d.pos+length+2 > d.lim.MaxFrame:
		d.refuse(LimitError{What: LimitFrame, Max: d.lim.MaxFrame})
	}
	return nil
}

// bulkBody moves past the bytes of the current argument and reports whether
// all of them, and two more for the line end, have arrived.
func (d *Decoder) bulkBody(buf []byte) bool {
	have := len(buf) - d.pos
	if d.refusing() {
		m := min(d.body, have)
		d.body -= m
		d.pos += m
		return have-m >= 2
	}
	if have < d.body+2 {
		d.want = d.body + 2 - have
		return false
	}
	d.spans = append(d.spans, span{uint32(d.pos), uint32(d.body)})
	d.pos += d.body
	return true
}

func (d *Decoder) refusing() bool { return d.refused != nil }

// refuse makes the current command one whose bytes are dropped as they come.
func (d *Decoder) refuse(e LimitError) {
	d.refused, d.gone = &e, 0
	d.spans = nil
}

// pause returns how much of an unfinished command is consumed: all that was
// looked at if it is refused, otherwise nothing.
func (d *Decoder) pause() (n int) {
	if !d.refusing() {
		return 0
	}
	n, d.pos = d.pos, 0
	d.gone += n
	return n
}

// endRefused returns the answer to a refused command whose last n bytes are
// being consumed.
func (d *Decoder) endRefused(n int) error {
	e := d.refused
	if e.What == LimitFrame {
		e.Size = d.gone + n
	}
	d.refused, d.gone = nil, 0
	return e
}

// inline reads a command that is a line of text, split at blanks. Redis's
// quoting is not supported: a quote is a character like any other.
func (d *Decoder) inline(buf []byte) (n int, err error) {
	searched := buf[:min(len(buf), d.lim.MaxInline)]
	i := bytes.IndexByte(searched[min(d.pos, len(searched)):], '\n')
	if i < 0 {
		if len(searched) == d.lim.MaxInline {
			return 0, d.fail("too big inline request")
		}
		d.pos = len(searched)
		return 0, ErrMore
	}
	end := d.pos + i
	n, d.pos = end+1, 0
	return n, d.splitLine(buf[:end])
}

func (d *Decoder) splitLine(line []byte) error {
	var count int
	var broken error
	for len(line) > 0 {
		if isBlank(line[0]) {
			line = line[1:]
			continue
		}
		end := 1
		for end < len(line) && !isBlank(line[end]) {
			end++
		}
		switch {
		case end > d.lim.MaxBulk && broken == nil:
			broken = &LimitError{What: LimitBulk, Arg: count, Size: end, Max: d.lim.MaxBulk}
		case count < d.lim.MaxArgs:
			d.args = append(d.args, line[:end:end])
		}
		count++
		line = line[end:]
	}
	if count > d.lim.MaxArgs {
		broken = &LimitError{What: LimitArgs, Size: count, Max: d.lim.MaxArgs}
	}
	return broken
}

func isBlank(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

func (d *Decoder) fail(reason string) error {
	d.fatal = &ProtocolError{Reason: reason}
	return d.fatal
}

// maxDigits is enough for every length that is accepted, and little enough for
// 32 bits.
const maxDigits = 9

// number reads a decimal number and the CRLF after it, as strictly as Redis:
// no plus sign, no leading zero. n is how many bytes it took, 0 when b ends
// too early; ok is false when b cannot become a number.
func number(b []byte) (v, n int, ok bool) {
	first := 0
	if len(b) > 0 && b[0] == '-' {
		first = 1
	}
	i := first
	for i < len(b) && i < first+maxDigits && '0' <= b[i] && b[i] <= '9' {
		v = v*10 + int(b[i]-'0')
		i++
	}
	switch {
	case i == len(b):
		return 0, 0, true
	case i == first || b[i] != '\r':
		return 0, 0, false
	case b[first] == '0' && i > 1: // a leading zero, or minus zero
		return 0, 0, false
	case i+1 == len(b):
		return 0, 0, true
	case b[i+1] != '\n':
		return 0, 0, false
	}
	if first == 1 {
		v = -v
	}
	return v, i + 2, true
}
