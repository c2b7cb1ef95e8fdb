package nearside

import (
	"sync/atomic"
	"time"
)

// anchorAge is for how long of running time the distance between two clocks is
// believed: CLOCK_BOOTTIME, which counts suspended time and costs a call of the kernel,
// and the runtime's monotonic time, which does neither. Whatever reads within that time
// after the machine wakes up may take itself to be before its sleep.
const anchorAge = 100 * time.Microsecond

// clock is CLOCK_BOOTTIME, cheap enough to be read by every hit of an L0. Safe for
// concurrent use.
type clock struct {
	start  time.Time
	exact  func() time.Duration // nil: anchored
	shared bool                 // other processes of this machine have the same one

	offset   atomic.Int64 // CLOCK_BOOTTIME minus time since start
	anchored atomic.Int64 // time since start when offset was read
}

func newClock(exact func() time.Duration) *clock {
	c := &clock{start: time.Now(), exact: exact}
	if exact != nil {
		c.shared = true
		return c
	}
	_, c.shared = bootTime()
	c.anchor(0)
	return c
}

// precise is the moment of the call as the clock itself has it.
func (c *clock) precise() time.Duration {
	if c.exact != nil {
		return c.exact()
	}
	if boot, ok := bootTime(); ok {
		return boot
	}
	return time.Since(c.start)
}

// now is a moment not before the call.
func (c *clock) now() time.Duration {
	if c.exact != nil {
		return c.exact()
	}
	since := time.Since(c.start)
	// In this order: an offset that is newer than its moment is no worse.
	if since-time.Duration(c.anchored.Load()) < anchorAge {
		return since + time.Duration(c.offset.Load())
	}
	return c.anchor(since)
}

// anchor reads CLOCK_BOOTTIME after since was: the offset is too large by what lies
// between, and everything seems older by that, never younger.
func (c *clock) anchor(since time.Duration) time.Duration {
	boot, ok := bootTime()
	if !ok {
		return since
	}
	c.offset.Store(int64(boot - since))
	c.anchored.Store(int64(since))
	return boot
}
