//go:build !linux

package natsbus

import "time"

var started = time.Now()

// sinceBoot falls back to the runtime's monotonic time where no clock counts
// suspended time.
func sinceBoot() time.Duration { return time.Since(started) }
