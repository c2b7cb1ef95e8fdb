package resp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// Kind is the type of a Reply.
type Kind uint8

// Kinds of replies.
const (
	KindNull      Kind = iota
	KindSimple         // Str
	KindError          // Str
	KindInt            // Int
	KindBulk           // Str
	KindArray          // Elems
	KindMap            // Elems: key, value, key, value …
	KindSet            // Elems
	KindPush           // Elems; answers no command
	KindDouble         // Float
	KindBool           // Int, 0 or 1
	KindBigNumber      // Str: its digits
	KindVerbatim       // Str, without the three letters of its format
)

// Reply is one reply of a server. Kind says which field holds it. It owns its
// memory.
type Reply struct {
	Kind  Kind
	Str   string
	Int   int64
	Float float64
	Elems []Reply
}

// ServerError is a reply that says the command failed. The connection lives.
type ServerError struct {
	// Text is the server's message; by convention its first word is a code.
	Text string
}

// Error returns the server's message.
func (e *ServerError) Error() string { return e.Text }

// Code returns the first word of the message, such as ERR or NOAUTH.
func (e *ServerError) Code() string {
	code, _, _ := strings.Cut(e.Text, " ")
	return code
}

// Err returns a *ServerError if r is an error, otherwise nil.
func (r Reply) Err() error {
	if r.Kind == KindError {
		return &ServerError{Text: r.Str}
	}
	return nil
}

// IsNull reports whether r is "no such thing".
func (r Reply) IsNull() bool { return r.Kind == KindNull }

// Text returns a scalar reply as text; a null or an aggregate is empty.
func (r Reply) Text() string {
	switch r.Kind {
	case KindInt, KindBool:
		return strconv.FormatInt(r.Int, 10)
	case KindDouble:
		return strconv.FormatFloat(r.Float, 'g', -1, 64)
	default:
		return r.Str
	}
}

// ReplyLimits bound what ReadReply accepts. A zero field means its default.
type ReplyLimits struct {
	MaxDepth int // aggregates within aggregates; default 16
	MaxSize  int // memory that one reply may take, in bytes; default 64 MiB
}

const (
	defaultMaxDepth = 16
	defaultMaxSize  = 64 << 20
	maxReplyLine    = 64 << 10
	// elemCost is what one Reply takes from ReplyLimits.MaxSize beside its
	// bytes: about its size in memory, which a server buys with three bytes.
	elemCost = 80
	// chunk bounds what is allocated on the word of a length alone.
	chunk = 64 << 10
)

// ReadReply reads one reply from r, which may be a push; attributes are
// skipped. It returns a *ProtocolError for what is not RESP or exceeds l, and
// otherwise r's error, io.ErrUnexpectedEOF if the input ends inside a reply.
func ReadReply(r *bufio.Reader, l ReplyLimits) (Reply, error) {
	if l.MaxDepth <= 0 {
		l.MaxDepth = defaultMaxDepth
	}
	if l.MaxSize <= 0 {
		l.MaxSize = defaultMaxSize
	}
	if _, err := r.Peek(1); err != nil {
		return Reply{}, err
	}
	rr := replyReader{r: r, budget: l.MaxSize}
	reply, err := rr.read(l.MaxDepth)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return reply, err
}

// replyReader reads one reply within a budget of memory.
type replyReader struct {
	r      *bufio.Reader
	budget int
}

func (rr *replyReader) read(depth int) (Reply, error) {
	for {
		line, err := rr.line()
		if err != nil {
			return Reply{}, err
		}
		if line[0] != '|' {
			return rr.value(line[0], line[1:], depth)
		}
		// An attribute describes the reply that follows it.
		if _, err := rr.value('%', line[1:], depth); err != nil {
			return Reply{}, err
		}
	}
}

// value reads the reply whose first line is kind and text.
func (rr *replyReader) value(kind byte, text string, depth int) (Reply, error) {
	switch kind {
	case '+':
		return Reply{Kind: KindSimple, Str: text}, nil
	case '-':
		return Reply{Kind: KindError, Str: text}, nil
	case ':':
		return parseInt(text)
	case '_':
		return Reply{}, nil
	case '#':
		return parseBool(text)
	case ',':
		return parseDouble(text)
	case '(':
		return Reply{Kind: KindBigNumber, Str: text}, nil
	case '$', '!', '=':
		return rr.bulk(kind, text)
	case '*', '~', '>', '%':
		return rr.aggregate(kind, text, depth)
	default:
		return Reply{}, &ProtocolError{Reason: fmt.Sprintf("unknown reply type %q", kind)}
	}
}

// line reads up to CRLF, which is cut off. The line is not empty.
func (rr *replyReader) line() (string, error) {
	var line []byte
	for {
		part, err := rr.r.ReadSlice('\n')
		if len(line)+len(part) > maxReplyLine {
			return "", &ProtocolError{Reason: "too long line in reply"}
		}
		line = append(line, part...)
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return "", err
		}
	}
	text, ok := strings.CutSuffix(string(line), CRLF)
	if !ok || text == "" {
		return "", &ProtocolError{Reason: "malformed line in reply"}
	}
	return text, rr.spend(elemCost + len(text))
}

func (rr *replyReader) spend(n int) error {
	if n > rr.budget {
		return &ProtocolError{Reason: "reply exceeds the size limit"}
	}
	rr.budget -= n
	return nil
}

// length parses the length of a bulk or an aggregate; -1 is null.
func length(text string) (int, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < -1 {
		return 0, &ProtocolError{Reason: fmt.Sprintf("invalid length %q in reply", text)}
	}
	return int(n), nil
}

func (rr *replyReader) bulk(kind byte, text string) (Reply, error) {
	n, err := length(text)
	if err != nil {
		return Reply{}, err
	}
	if n < 0 {
		return Reply{}, nil
	}
	if err := rr.spend(n); err != nil {
		return Reply{}, err
	}
	body, err := rr.bytes(n)
	if err != nil {
		return Reply{}, err
	}
	switch kind {
	case '!':
		return Reply{Kind: KindError, Str: body}, nil
	case '=':
		if n < 4 || body[3] != ':' {
			return Reply{}, &ProtocolError{Reason: "malformed verbatim string in reply"}
		}
		return Reply{Kind: KindVerbatim, Str: body[4:]}, nil
	default:
		return Reply{Kind: KindBulk, Str: body}, nil
	}
}

// bytes reads n bytes and CRLF. Memory is taken as the bytes arrive.
func (rr *replyReader) bytes(n int) (string, error) {
	var b bytes.Buffer
	b.Grow(min(n, chunk))
	if _, err := io.CopyN(&b, rr.r, int64(n)); err != nil {
		return "", err
	}
	var end [2]byte
	if _, err := io.ReadFull(rr.r, end[:]); err != nil {
		return "", err
	}
	if string(end[:]) != CRLF {
		return "", &ProtocolError{Reason: "bulk string in reply not terminated by CRLF"}
	}
	return b.String(), nil
}

func (rr *replyReader) aggregate(kind byte, text string, depth int) (Reply, error) {
	n, err := length(text)
	if err != nil {
		return Reply{}, err
	}
	if n < 0 {
		return Reply{}, nil
	}
	if depth <= 0 {
		return Reply{}, &ProtocolError{Reason: "reply nested too deeply"}
	}
	reply := Reply{Kind: KindArray}
	switch kind {
	case '~':
		reply.Kind = KindSet
	case '>':
		reply.Kind = KindPush
	case '%':
		reply.Kind = KindMap
		if n > math.MaxInt32/2 {
			return Reply{}, &ProtocolError{Reason: "reply exceeds the size limit"}
		}
		n *= 2
	}
	if n > rr.budget/elemCost {
		return Reply{}, &ProtocolError{Reason: "reply exceeds the size limit"}
	}
	reply.Elems = make([]Reply, 0, min(n, chunk/elemCost))
	for range n {
		e, err := rr.read(depth - 1)
		if err != nil {
			return Reply{}, err
		}
		reply.Elems = append(reply.Elems, e)
	}
	return reply, nil
}

func parseInt(text string) (Reply, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return Reply{}, &ProtocolError{Reason: fmt.Sprintf("invalid integer %q in reply", text)}
	}
	return Reply{Kind: KindInt, Int: n}, nil
}

func parseBool(text string) (Reply, error) {
	switch text {
	case "t":
		return Reply{Kind: KindBool, Int: 1}, nil
	case "f":
		return Reply{Kind: KindBool}, nil
	default:
		return Reply{}, &ProtocolError{Reason: fmt.Sprintf("invalid boolean %q in reply", text)}
	}
}

func parseDouble(text string) (Reply, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return Reply{}, &ProtocolError{Reason: fmt.Sprintf("invalid double %q in reply", text)}
	}
	return Reply{Kind: KindDouble, Float: v}, nil
}
