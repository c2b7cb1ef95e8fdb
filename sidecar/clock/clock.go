// Package clock is the sidecar's own monotonic time. Everything in nearside that
// ages, does so by it; no wall clock orders or dates anything.
package clock

import "time"

// Clock returns the time since an arbitrary fixed moment. It never goes back,
// and where the system can tell, it counts the time that the machine was
// suspended, so that nothing seems younger than it is. Safe for concurrent use.
type Clock func() time.Duration

// Elapsed returns a Clock by the runtime's own monotonic time. It stands still
// while the machine is suspended; under testing/synctest it is virtual.
func Elapsed() Clock {
	start := time.Now()
	return func() time.Duration { return time.Since(start) }
}
