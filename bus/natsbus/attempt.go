package natsbus

import (
	"context"
	"fmt"
	"sync"
)

// attempt is the newest attempt to connect that has ended. The connection's own
// LastError is forgotten while the next one is under way.
type attempt struct {
	mu    sync.Mutex
	err   error // nil while connected
	once  sync.Once
	first chan struct{} // closed when one has ended
}

func newAttempt() *attempt { return &attempt{first: make(chan struct{})} }

// ended tells what became of an attempt, or of a connection.
func (a *attempt) ended(err error) {
	a.mu.Lock()
	a.err = err
	a.mu.Unlock()
	a.once.Do(func() { close(a.first) })
}

func (a *attempt) failure() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// connected waits for the first attempt, and returns ErrNotConnected with the reason
// when the newest one has failed.
func (a *attempt) connected(ctx context.Context) error {
	select {
	case <-a.first:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrNotConnected, context.Cause(ctx))
	}
	if err := a.failure(); err != nil {
		return fmt.Errorf("%w: %w", ErrNotConnected, err)
	}
	return nil
}
