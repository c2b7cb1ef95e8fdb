package resp

import (
	"errors"
	"fmt"
)

// ErrMore says that the input ends inside a command or a reply: call again
// with more bytes. It is a condition of normal work, not a failure.
var ErrMore = errors.New("resp: more input needed")

// ProtocolError says that the other side does not speak RESP. Where the next
// message begins cannot be known any more, so the connection must be closed.
type ProtocolError struct {
	// Reason is what was wrong, in Redis's words where Redis has them.
	Reason string
}

// Error returns the text that Redis sends after "-ERR ".
func (e *ProtocolError) Error() string { return "Protocol error: " + e.Reason }

// Limit names one of the limits of a Decoder.
type Limit uint8

// Limits that a command can exceed.
const (
	LimitBulk  Limit = iota // the length of one argument
	LimitFrame              // the length of the whole command
	LimitArgs               // the number of arguments
)

// LimitError says that a command was well formed and too large. Its bytes were
// consumed without being kept: the connection lives and the error is the
// command's answer.
type LimitError struct {
	What Limit
	Arg  int // LimitBulk: which argument, 0 being the command's name
	Size int // what the client sent: bytes, or arguments for LimitArgs
	Max  int // the limit, in the unit of Size
}

// Error returns what was too large, its size and the limit.
func (e *LimitError) Error() string {
	switch e.What {
	case LimitBulk:
		return fmt.Sprintf("argument %d of the command has %d bytes, the limit is %d", e.Arg, e.Size, e.Max)
	case LimitFrame:
		return fmt.Sprintf("the command has %d bytes, the limit is %d", e.Size, e.Max)
	default:
		return fmt.Sprintf("the command has %d arguments, the limit is %d", e.Size, e.Max)
	}
}
