package loader

import (
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/nearside-cache/nearside/sidecar/policy"
)

// errNeutral is told to the breaker of a request that says nothing of the origin.
var errNeutral = errors.New("says nothing of the origin")

// window is how many results the share of failures is taken of.
const window = 20

// breaker opens when the origin fails too often. It counts runs and shares by
// number of requests, not by time: over windows of time gobreaker forgets what is
// needed to see the slow failures of a namespace that is rarely read.
type breaker struct {
	two    *gobreaker.TwoStepCircuitBreaker[struct{}]
	openIn time.Duration
	probes int

	// The callbacks of two run under its lock, which guards these.
	failed uint64 // a bit for each of the last results, the newest is the lowest
	known  int    // how many of them there are, at most window

	mu     sync.Mutex
	broken chan struct{} // closed while the breaker is open
	until  time.Time     // when it may be half-open
}

// newBreaker calls change on every change of its state, which must not block or
// call back.
func newBreaker(p policy.Loader, change func(to gobreaker.State)) *breaker {
	b := &breaker{
		openIn: p.BreakerOpen + rand.N(p.BreakerOpen/5+1), probes: p.BreakerProbes,
		broken: make(chan struct{}),
	}
	b.two = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests: uint32(p.BreakerProbes), // checked by the policy
		Timeout:     b.openIn,
		IsExcluded:  func(err error) bool { return errors.Is(err, errNeutral) },
		IsSuccessful: func(err error) bool {
			b.note(err != nil)
			return err == nil
		},
		ReadyToTrip: func(n gobreaker.Counts) bool {
			return n.ConsecutiveFailures >= uint32(p.BreakerFailures) || b.mostlyFails()
		},
		OnStateChange: func(_ string, _, to gobreaker.State) {
			b.changed(to)
			change(to)
		},
	})
	return b
}

func (b *breaker) note(failed bool) {
	b.failed <<= 1
	if failed {
		b.failed |= 1
	}
	b.known = min(b.known+1, window)
}

func (b *breaker) mostlyFails() bool {
	return b.known == window && bits.OnesCount64(b.failed&(1<<window-1)) >= window/2
}

func (b *breaker) changed(to gobreaker.State) {
	b.failed, b.known = 0, 0
	b.mu.Lock()
	defer b.mu.Unlock()
	if to == gobreaker.StateOpen {
		b.until = time.Now().Add(b.openIn)
		close(b.broken)
	} else {
		select {
		case <-b.broken:
			b.broken = make(chan struct{})
		default: // from half-open to closed
		}
	}
}

// open reports whether nothing may be asked now, and returns a channel that is
// closed when that becomes so.
func (b *breaker) open() (bool, <-chan struct{}) {
	state := b.two.State()
	b.mu.Lock()
	defer b.mu.Unlock()
	return state == gobreaker.StateOpen, b.broken
}

// allow gives leave for one request; done must then be called with nil, an error
// or errNeutral.
func (b *breaker) allow() (done func(error), err error) {
	done, err = b.two.Allow()
	if err != nil {
		return nil, ErrBreakerOpen
	}
	return done, nil
}

// words tells people how the breaker is.
func (b *breaker) words() string {
	switch b.two.State() {
	case gobreaker.StateOpen:
		b.mu.Lock()
		defer b.mu.Unlock()
		return fmt.Sprintf("open: the origin failed too often and is not asked for %v", max(0, time.Until(b.until)).Round(time.Millisecond))
	case gobreaker.StateHalfOpen:
		return fmt.Sprintf("half-open: %d requests try whether the origin is back", b.probes)
	default:
		return "closed: the origin is asked"
	}
}
