package main

import (
	"errors"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/natsbus"
)

// Exit codes. They are an interface: append-only.
const (
	codeOK          = 0
	codeFailed      = 1
	codeUsage       = 2
	codeUnreachable = 3
	codeNotAcked    = 4
	codeRefused     = 5
	codeUnfit       = 6
	codeServer      = 7
)

// exitCodes documents them; "nearside help exit-codes" prints it.
const exitCodes = `Every command ends with one of these codes:

  0  done
  1  get: no value is held for a key; demo: a stale read was seen;
     any other command: it failed for a reason that is not listed here
  2  wrong usage, or a configuration with faults
  3  the sidecar (stream: the NATS server) cannot be reached
  4  the invalidation is not acknowledged by the stream, or not yet applied
     in this sidecar: repeat it
  5  refused, by the policy of a namespace, for want of a password, or by the
     permissions that NATS gives
  6  the stream is missing or cannot give the guarantees
  7  the sidecar answered with an error that is not listed here`

// codeError is an error that decides how the process exits.
type codeError struct {
	code int
	err  error
}

// Error implements error.
func (e *codeError) Error() string { return e.err.Error() }

// Unwrap returns the error that failed.
func (e *codeError) Unwrap() error { return e.err }

// errNoWords says that everything was said already: only the code remains.
var errNoWords = errors.New("")

// codeOf returns the exit code that an error stands for.
func codeOf(err error) int {
	var (
		coded    *codeError
		faults   faultsError
		answered *resp.ServerError
	)
	switch {
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &faults):
		return codeUsage
	case errors.As(err, &answered):
		return codeOfAnswer(answered.Code())
	case errors.Is(err, natsbus.ErrDenied):
		return codeRefused
	case errors.Is(err, natsbus.ErrNotConnected):
		return codeUnreachable
	case errors.Is(err, bus.ErrUnfit), errors.Is(err, bus.ErrNotFound):
		return codeUnfit
	default:
		return codeFailed
	}
}

// codeOfAnswer returns the exit code for the first word of a sidecar's error.
func codeOfAnswer(word string) int {
	switch word {
	case "NOACK", "NOTAPPLIED":
		return codeNotAcked
	case "NOPERM", "NOAUTH", "WRONGPASS", "PAUSED", "LIMITED":
		return codeRefused
	default:
		return codeServer
	}
}
