package bench

import "time"

// pacer waits for moments of an open loop. One goroutine uses it.
type pacer interface {
	// wait waits for about d. Whoever waits for a moment looks at the clock
	// afterwards, and waits again.
	wait(d time.Duration)
	close() error
}

// timers are the runtime's. In a process that waits for the network they can be
// a millisecond late.
type timers struct{}

func (timers) wait(d time.Duration) { time.Sleep(d) }

func (timers) close() error { return nil }
