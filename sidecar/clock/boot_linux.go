package clock

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Boot returns a Clock that counts from the machine's start, suspended time
// included (CLOCK_BOOTTIME). All processes of one machine share it.
func Boot() Clock {
	return func() time.Duration {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
			panic("clock: CLOCK_BOOTTIME: " + err.Error()) // every Linux since 2.6.39 has it
		}
		return time.Duration(ts.Nano())
	}
}

// BootID identifies the machine's current run. Times of Boot are comparable only
// between processes that see the same id. Empty when it cannot be had.
func BootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
