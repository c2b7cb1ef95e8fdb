package membus

import (
	"slices"
	"sync"

	"github.com/nearside-cache/nearside/bus"
)

// feed is one attachment's connection: what it receives live, and the faults on
// the way.
type feed struct {
	messages  chan bus.Message
	disturbed chan struct{}

	mu         sync.Mutex
	following  bool
	away       bool
	held       []bus.Message
	holding    bool
	dropNext   int
	dropSeqs   map[uint64]bool
	duplicate  int
	reverse    []bus.Message
	reverseOf  int
	failCalls  int
	loseAcks   int
	failAppend int
}

func newFeed(buffer int) *feed {
	return &feed{
		messages:  make(chan bus.Message, buffer),
		disturbed: make(chan struct{}, 1),
		dropSeqs:  map[uint64]bool{},
	}
}

// deliver passes one republished message through the faults. It does not block.
func (f *feed) deliver(m bus.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case !f.following || f.away:
	case f.dropSeqs[m.Seq]:
		delete(f.dropSeqs, m.Seq)
	case f.dropNext > 0:
		f.dropNext--
	case f.holding:
		f.held = append(f.held, m)
	case f.reverseOf > 0:
		f.reverse = append(f.reverse, m)
		if f.reverseOf--; f.reverseOf == 0 {
			slices.Reverse(f.reverse)
			f.sendLocked(f.reverse...)
			f.reverse = nil
		}
	case f.duplicate > 0:
		f.duplicate--
		f.sendLocked(m, m)
	default:
		f.sendLocked(m)
	}
}

// sendLocked hands messages to the follower; what overflows is lost, and the
// follower told.
func (f *feed) sendLocked(messages ...bus.Message) {
	for _, m := range messages {
		select {
		case f.messages <- m:
		default:
			f.disturb()
		}
	}
}

func (f *feed) disturb() {
	select {
	case f.disturbed <- struct{}{}:
	default:
	}
}

// connected reports whether others can be reached.
func (f *feed) connected() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.following && !f.away
}

// reachable fails as a read over this connection would.
func (f *feed) reachable() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return errAway
	}
	if f.failCalls > 0 {
		f.failCalls--
		return errInjected
	}
	return nil
}

// publish calls store unless the connection is away or a failure is injected,
// and loses the acknowledgement if that is.
func (f *feed) publish(store func() (bus.Position, error)) (bus.Position, error) {
	f.mu.Lock()
	away, fail := f.away, f.failAppend > 0
	if fail {
		f.failAppend--
	}
	lose := !away && !fail && f.loseAcks > 0
	if lose {
		f.loseAcks--
	}
	f.mu.Unlock()
	switch {
	case away:
		return bus.Position{}, errAway
	case fail:
		return bus.Position{}, errInjected
	}
	p, err := store()
	if lose {
		return bus.Position{}, errInjected
	}
	return p, err
}

func (f *feed) set(change func(*feed)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// DropNext loses the next n live messages.
func (b *Bus) DropNext(n int) { b.feed.set(func(f *feed) { f.dropNext = n }) }

// DropSeq loses the live message at seq, once.
func (b *Bus) DropSeq(seq uint64) { b.feed.set(func(f *feed) { f.dropSeqs[seq] = true }) }

// DuplicateNext delivers each of the next n live messages twice.
func (b *Bus) DuplicateNext(n int) { b.feed.set(func(f *feed) { f.duplicate = n }) }

// ReverseNext keeps the next n live messages back and delivers them in reverse
// order.
func (b *Bus) ReverseNext(n int) { b.feed.set(func(f *feed) { f.reverseOf = n }) }

// Hold delays live messages until Release.
func (b *Bus) Hold() { b.feed.set(func(f *feed) { f.holding = true }) }

// Release delivers what Hold delayed.
func (b *Bus) Release() {
	b.feed.set(func(f *feed) {
		f.holding = false
		f.sendLocked(f.held...)
		f.held = nil
	})
}

// Inject delivers a live message that the stream may never have held.
func (b *Bus) Inject(m bus.Message) { b.feed.set(func(f *feed) { f.sendLocked(m) }) }

// Disconnect cuts the connection, for live messages, reads and publishes.
func (b *Bus) Disconnect() { b.feed.set(func(f *feed) { f.away = true }) }

// Reconnect restores the connection.
func (b *Bus) Reconnect() {
	b.feed.set(func(f *feed) { f.away = false })
	b.feed.disturb()
}

// Disturb tells the follower of a leader change.
func (b *Bus) Disturb() { b.feed.disturb() }

// FailCalls makes the next n reads of the log fail.
func (b *Bus) FailCalls(n int) { b.feed.set(func(f *feed) { f.failCalls = n }) }

// FailPublishes makes the next n publishes fail without being stored.
func (b *Bus) FailPublishes(n int) { b.feed.set(func(f *feed) { f.failAppend = n }) }

// LoseAcks makes the next n publishes be stored but not acknowledged.
func (b *Bus) LoseAcks(n int) { b.feed.set(func(f *feed) { f.loseAcks = n }) }

// LiveBuffer is how many live messages wait at most.
func (b *Bus) LiveBuffer() int { return cap(b.feed.messages) }
