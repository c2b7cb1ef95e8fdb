package natsbus

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/nearside-cache/nearside/bus"
)

// ErrDenied says that the server refuses this user a subject. What was asked
// can never succeed: it wraps bus.ErrUnfit.
var ErrDenied = fmt.Errorf("%w: permission denied by the NATS server", bus.ErrUnfit)

// ErrNotConnected says that there is no connection to a NATS server at the
// moment.
var ErrNotConnected = errors.New("not connected to NATS")

// The server reports a violation without saying which request it belongs to:
// `Permissions Violation for Publish to "a.b"`.
var violation = regexp.MustCompile(`(?i)permissions violation for (publish|subscription) to "([^"\s]+)"`)

// waits ends the waiting of those whose answer will not come, because the
// server refused the subject or the connection broke. nats.go lets them wait
// for their deadline. It is safe for concurrent use.
type waits struct {
	inbox string // prefix of this connection's reply subjects

	mu   sync.Mutex
	all  map[*wait]struct{}
	deaf error // replies cannot be received at all
}

type wait struct {
	subjects []string
	answer   bool // it is for an answer to a request on this connection
	cancel   context.CancelCauseFunc
}

func newWaits(inbox string) *waits {
	return &waits{inbox: inbox, all: make(map[*wait]struct{})}
}

// subscription returns a context that ends with ErrDenied as its cause when the
// server refuses one of the subjects, or any replies. done must be called.
func (w *waits) subscription(ctx context.Context, subjects ...string) (_ context.Context, done func()) {
	return w.add(ctx, &wait{subjects: subjects})
}

// answer returns a context for one request on one of the subjects. It ends with
// ErrDenied as its cause when the server refuses one of them, or any replies,
// and with ErrNotConnected when the connection breaks. done must be called.
func (w *waits) answer(ctx context.Context, subjects ...string) (_ context.Context, done func()) {
	return w.add(ctx, &wait{subjects: subjects, answer: true})
}

func (w *waits) add(ctx context.Context, one *wait) (_ context.Context, done func()) {
	ctx, one.cancel = context.WithCancelCause(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.deaf != nil {
		one.cancel(w.deaf)
	}
	w.all[one] = struct{}{}
	return ctx, func() {
		w.mu.Lock()
		delete(w.all, one)
		w.mu.Unlock()
		one.cancel(nil)
	}
}

// report takes an error of the connection's error handler.
func (w *waits) report(err error) {
	verb, subject := "", ""
	if match := violation.FindStringSubmatch(err.Error()); match != nil {
		verb, subject = strings.ToLower(match[1]), match[2]
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case errors.Is(err, nats.ErrMaxSubscriptionsExceeded):
		w.deaf = fmt.Errorf("%w: the account's limit of subscriptions is reached", ErrDenied)
	case verb == "subscription" && strings.HasPrefix(subject, w.inbox+"."):
		w.deaf = fmt.Errorf("%w: the user may not subscribe to %s.>, where replies arrive: permit it or set the inbox prefix", ErrDenied, w.inbox)
	}
	for one := range w.all {
		if w.deaf != nil {
			one.cancel(w.deaf)
		}
		if subject != "" && slices.Contains(one.subjects, subject) {
			one.cancel(fmt.Errorf("%w: %s to %s", ErrDenied, verb, subject))
		}
	}
}

// disconnected ends the waiting for answers, which were for the connection that
// broke, and forgets what it was refused.
func (w *waits) disconnected() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deaf = nil
	for one := range w.all {
		if one.answer {
			one.cancel(ErrNotConnected)
		}
	}
}

// cause returns why ctx was ended by waits, if it was, and else err.
func cause(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if why := context.Cause(ctx); errors.Is(why, ErrDenied) || errors.Is(why, ErrNotConnected) {
		return why
	}
	return err
}
