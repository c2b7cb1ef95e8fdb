package cache

import (
	"slices"
	"sync"

	"github.com/nearside-cache/nearside/bus"
)

// waiters are those who wait for a position to be applied here.
type waiters struct {
	mu   sync.Mutex
	list []waiter
}

type waiter struct {
	position bus.Position
	reached  chan struct{} // closed once, by wake
}

// already is what those wait for whose position is applied when they come.
var already = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// add returns a channel that is closed when p is reached. That is asked under the
// lock that wake takes after each advance, so that none is missed.
func (w *waiters) add(p bus.Position, isReached func(bus.Position) bool) chan struct{} {
	if isReached(p) {
		return already
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if isReached(p) {
		return already
	}
	reached := make(chan struct{})
	w.list = append(w.list, waiter{p, reached})
	return reached
}

func (w *waiters) remove(reached chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = slices.DeleteFunc(w.list, func(x waiter) bool { return x.reached == reached })
}

// wake lets go of everybody whose position is reached.
func (w *waiters) wake(isReached func(bus.Position) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = slices.DeleteFunc(w.list, func(x waiter) bool {
		if isReached(x.position) {
			close(x.reached)
			return true
		}
		return false
	})
}
