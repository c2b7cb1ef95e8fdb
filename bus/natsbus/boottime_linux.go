package natsbus

import (
	"time"

	"golang.org/x/sys/unix"
)

// sinceBoot reads a clock that also counts while the machine is suspended (B5).
func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("natsbus: this system has no CLOCK_BOOTTIME: " + err.Error())
	}
	return time.Duration(t.Nano())
}
