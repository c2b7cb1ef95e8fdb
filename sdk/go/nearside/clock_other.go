//go:build !linux

package nearside

import "time"

// bootTime is not known here: there is no L0.
func bootTime() (now time.Duration, ok bool) { return 0, false }

// bootID is not known here.
func bootID() string { return "" }
