// Package loader loads values from where the truth is: an app or a service over
// HTTP, or whoever answers on a NATS subject. Around each origin stand the means
// that keep a fleet of sidecars from finishing off an origin in trouble: a bound
// on what is under way, a rate, a circuit breaker, retries with jitter, timeouts
// that follow what the origin takes.
//
// A loader answers what the origin said and judges nothing: whether a value may
// be kept or served is for the rules C2, by a lease that its caller took before
// the load began. What an origin must answer is in docs/loaders.md.
package loader

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nearside-cache/nearside/sidecar/loader/address"
)

// Request is what is wanted.
type Request struct {
	Key string
	// AtLeast is the version wanted at least, 0 for any: what the fence knows.
	AtLeast uint64
	// ETag is that of what is resident; empty when there is nothing to revalidate.
	ETag string
	// Version is that of what is resident, 0 for none.
	Version uint64
}

// Result is what the origin answered. Its slices belong to the caller; those of
// one that several share are read only.
type Result struct {
	Value   []byte
	Version uint64 // 0: the origin gave none
	ETag    string // empty: cannot be revalidated
	// TTL is how long the origin wants it kept, 0 for as long as the policy says.
	TTL           time.Duration
	Tags, Depends []string
	// Negative says that the origin has no value for the key; Value is empty then.
	Negative bool
	// NotModified says that what is resident is still what the origin has: Value
	// is empty, Version and ETag are those that it has now.
	NotModified bool
}

// Loader loads one value. It is safe for concurrent use.
type Loader interface {
	// Load blocks until there is a result, or an error of those in this package,
	// or ctx ends, which ends the load too.
	Load(ctx context.Context, r Request) (Result, error)
}

// ErrUnavailable says that there is no answer for now; what is kept of the key
// may be all that can be had. The errors below that wrap it say why.
var ErrUnavailable = errors.New("the origin is unavailable")

// Errors of loads. They are wrapped with the namespace and the origin, never with
// the key, which may be secret; compare with errors.Is.
var (
	// ErrFailed says that the connection broke, nobody answered on the subject, or
	// the origin said itself that it failed (5xx, 429, 408).
	ErrFailed = fmt.Errorf("%w: it fails", ErrUnavailable)
	// ErrTimeout says that no answer came in time.
	ErrTimeout = fmt.Errorf("%w: it did not answer in time", ErrUnavailable)
	// ErrBreakerOpen says that the origin failed too often and is left alone.
	ErrBreakerOpen = fmt.Errorf("%w: its circuit breaker is open", ErrUnavailable)
	// ErrOverRate says that the turn by the rate would come too late.
	ErrOverRate = fmt.Errorf("%w: its rate is used up", ErrUnavailable)
	// ErrQueueFull says that too many are waiting for it already.
	ErrQueueFull = fmt.Errorf("%w: too many loads wait for it", ErrUnavailable)
	// ErrSlow says that the caller should go on without it: the soft timeout came
	// first. The load goes on.
	ErrSlow = fmt.Errorf("%w: it takes longer than the soft timeout", ErrUnavailable)
	// ErrClosed says that the policy was replaced or the sidecar ends.
	ErrClosed = fmt.Errorf("%w: the loader is closed", ErrUnavailable)
	// ErrNoLoader says that a namespace has no loader.
	ErrNoLoader = errors.New("the namespace has no loader")
	// ErrTooOld says that every answer had a lower version than was asked for.
	ErrTooOld = errors.New("the origin answers an older version than asked for")
	// ErrTooLarge says that the value is longer than may be kept.
	ErrTooLarge = errors.New("the origin's answer is too large")
	// ErrBadAnswer says that the answer cannot be understood. Trying again does
	// not help.
	ErrBadAnswer = errors.New("the origin's answer cannot be used")
	// ErrBadKey says that the template has no address for the key.
	ErrBadKey = address.ErrBadKey
)

// busyError is a failure after which the origin wants to be left alone for some
// time.
type busyError struct {
	error
	after time.Duration
}

func (e busyError) Unwrap() error { return e.error }

// retryable reports whether the same request may be answered otherwise soon.
func retryable(err error) bool {
	return errors.Is(err, ErrFailed) || errors.Is(err, ErrTimeout) || errors.Is(err, ErrTooOld)
}
