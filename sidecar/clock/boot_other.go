//go:build !linux

package clock

// Boot falls back to the runtime's monotonic time where no clock counts
// suspended time.
func Boot() Clock { return Elapsed() }

// BootID is not known here: times of Boot are comparable within one process
// only.
func BootID() string { return "" }
