package cache

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// Applied is an event that was applied here.
type Applied struct {
	bus.Delivery
	At time.Time // when, by this machine's wall clock
}

// Lag is the time from the stream's storing the event until it was applied, by
// the wall clocks of two machines: for people only.
func (a Applied) Lag() time.Duration { return a.At.Sub(a.Time) }

// tail passes applied events on to those who watch. A watcher that does not keep
// up loses events, and is told how many.
type tail struct {
	mu       sync.Mutex
	watchers map[*Watcher]struct{}
}

// Watcher receives applied events from Events until it is closed.
type Watcher struct {
	Events <-chan Applied // never closed
	events chan Applied
	lost   atomic.Uint64
	tail   *tail
}

// watchBuffer is how many events a watcher may lag behind.
const watchBuffer = 1024

// Watch begins to watch what is applied from now on. Pulses are left out.
func (c *Cache) Watch() *Watcher {
	ch := make(chan Applied, watchBuffer)
	w := &Watcher{Events: ch, events: ch, tail: &c.tail}
	c.tail.mu.Lock()
	defer c.tail.mu.Unlock()
	if c.tail.watchers == nil {
		c.tail.watchers = make(map[*Watcher]struct{})
	}
	c.tail.watchers[w] = struct{}{}
	return w
}

// Lost returns how many events could not be delivered since the last call.
func (w *Watcher) Lost() uint64 { return w.lost.Swap(0) }

// Close ends watching. It may be called more than once.
func (w *Watcher) Close() {
	w.tail.mu.Lock()
	defer w.tail.mu.Unlock()
	delete(w.tail.watchers, w)
}

// send passes on those of ds that are no pulses.
func (t *tail) send(ds []bus.Delivery, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.watchers) == 0 {
		return
	}
	for _, d := range ds {
		if d.Event.Op == bus.OpPulse {
			continue
		}
		d.Event.Keys = slices.Clone(d.Event.Keys) // the follower's own are used anew
		for w := range t.watchers {
			select {
			case w.events <- Applied{Delivery: d, At: at}:
			default:
				w.lost.Add(1)
			}
		}
	}
}
