package nearside

import (
	"io"
	"time"

	"github.com/nearside-cache/nearside/api/near"
)

// BootTime is the clock that a client has unless it is given one.
func BootTime() time.Duration {
	now, _ := bootTime()
	return now
}

// Frames returns a function that takes the next frame from r.
func Frames(r io.Reader, limit int) func() (near.Header, []byte, error) {
	f := newFrames(r)
	f.limit = limit
	return f.next
}
