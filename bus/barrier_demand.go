package bus

import (
	"sync"
	"time"
)

// Bounds of what is few, of the pulses that other processes need for barriers.
// While they need few, everybody publishes his own (ADR 0007).
const (
	// calmRate is how many a second are few: some four times the role pulses.
	calmRate = 16
	// calmBurst is how many at once are.
	calmBurst = 16
	// calmAfter is the longest time after which they are few, when none come.
	calmAfter = 60 * time.Second
)

// demand estimates how many pulses other processes need: a bucket that leaks
// calmRate a second. As it is not capped at calmBurst, bursts of many processes
// that publish at the same moment come calmRate a second on average too, for up
// to calmRate times calmAfter processes. It is safe for concurrent use.
type demand struct {
	mu    sync.Mutex
	level float64
	at    time.Time // when level was right
}

// add counts n more, or fewer.
func (d *demand) add(n int, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leak(now)
	d.level = min(max(d.level+float64(n), 0), calmBurst+calmRate*calmAfter.Seconds())
}

// high reports whether others need more than few.
func (d *demand) high(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leak(now)
	return d.level > calmBurst
}

func (d *demand) leak(now time.Time) {
	d.level = max(d.level-calmRate*now.Sub(d.at).Seconds(), 0)
	d.at = now
}
