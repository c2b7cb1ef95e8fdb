package bench

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"

	"github.com/nearside-cache/nearside/api"
)

// Trace is a sequence of keys. It is used by one goroutine at a time.
type Trace interface {
	// Next returns the next key, which is valid until the next call, or io.EOF
	// after the last.
	Next() ([]byte, error)
	Close() error
}

// ErrTrace says that a trace cannot be read as one.
var ErrTrace = errors.New("the trace cannot be read")

// Formats of trace files.
const (
	FormatKeys = "keys" // a key a line; empty lines are left out
	FormatARC  = "arc"  // start, count, and more that is ignored: the blocks from start on
)

// OpenTrace opens a trace: zipf:S:N, which is endless, chooses among N keys with
// Zipf's exponent S, the same ones each time; - reads stdin; everything else is a
// file in the format, unpacked if its name ends with .gz.
func OpenTrace(spec, format string, stdin io.Reader) (_ Trace, endless bool, err error) {
	if rest, ok := strings.CutPrefix(spec, "zipf:"); ok {
		t, err := zipfTrace(rest)
		return t, true, err
	}
	t := &fileTrace{name: spec, format: format}
	if spec == "-" {
		return t.over(stdin), false, nil
	}
	file, err := os.Open(spec)
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", ErrTrace, err)
	}
	t.file = file
	if !strings.HasSuffix(spec, ".gz") {
		return t.over(file), false, nil
	}
	unpacked, err := gzip.NewReader(file)
	if err != nil {
		return nil, false, errors.Join(fmt.Errorf("%w: %s: %w", ErrTrace, spec, err), file.Close())
	}
	return t.over(unpacked), false, nil
}

type synthetic struct {
	keys Keys
	key  []byte
}

func zipfTrace(spec string) (Trace, error) {
	exponent, count, _ := strings.Cut(spec, ":")
	s, err := strconv.ParseFloat(exponent, 64)
	n, countErr := strconv.ParseUint(count, 10, 64)
	if err != nil || countErr != nil {
		return nil, fmt.Errorf("%w: %q: want zipf:EXPONENT:KEYS, such as zipf:0.99:1000000", ErrTrace, "zipf:"+spec)
	}
	keys, err := NewKeys(n, s, rand.New(rand.NewPCG(1, 0)))
	if err != nil {
		return nil, err
	}
	return &synthetic{keys: keys}, nil
}

// Next implements Trace.
func (s *synthetic) Next() ([]byte, error) {
	s.key = strconv.AppendUint(s.key[:0], s.keys.Next(), 10)
	return s.key, nil
}

// Close implements Trace.
func (s *synthetic) Close() error { return nil }

type fileTrace struct {
	name, format string
	file         io.Closer // nil: not ours
	lines        *bufio.Scanner
	number       int // of the line
	key          []byte
	next, left   uint64 // blocks of a line in the format ARC
}

func (t *fileTrace) over(r io.Reader) *fileTrace {
	t.lines = bufio.NewScanner(r)
	t.lines.Buffer(nil, api.MaxKey+len("\r\n"))
	return t
}

// Next implements Trace.
func (t *fileTrace) Next() ([]byte, error) {
	for t.left == 0 {
		if !t.lines.Scan() {
			return nil, t.ended()
		}
		t.number++
		switch line := t.lines.Bytes(); {
		case len(line) == 0:
		case t.format == FormatKeys:
			return line, nil
		default:
			if err := t.blocks(string(line)); err != nil {
				return nil, err
			}
		}
	}
	t.key = strconv.AppendUint(t.key[:0], t.next, 10)
	t.next++
	t.left--
	return t.key, nil
}

func (t *fileTrace) ended() error {
	switch err := t.lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("%w: %s: line %d is longer than a key can be, %d bytes: is it one key a line?", ErrTrace, t.name, t.number+1, api.MaxKey)
	case err != nil:
		return fmt.Errorf("%w: %s: after line %d: %w", ErrTrace, t.name, t.number, err)
	}
	return io.EOF
}

// mostBlocks bounds one line of the format ARC.
const mostBlocks = 1 << 24

func (t *fileTrace) blocks(line string) error {
	fields := strings.Fields(line)
	if len(fields) == 0 {
		return nil
	}
	var start, count uint64
	err := errors.New("one field")
	if len(fields) > 1 {
		var countErr error
		start, err = strconv.ParseUint(fields[0], 10, 63)
		count, countErr = strconv.ParseUint(fields[1], 10, 63)
		err = errors.Join(err, countErr)
	}
	if err != nil || count > mostBlocks {
		return fmt.Errorf("%w: %s: line %d is %.60q: want the number of a block and how many follow, up to %d", ErrTrace, t.name, t.number, line, mostBlocks)
	}
	t.next, t.left = start, count
	return nil
}

// Close implements Trace.
func (t *fileTrace) Close() error {
	if t.file == nil {
		return nil
	}
	return t.file.Close()
}
