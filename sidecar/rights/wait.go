package rights

import (
	"container/list"
	"context"
	"time"
)

// waiter is a reader that waits for a right.
type waiter struct {
	claim Claim
	right *right
	place *list.Element // in the right's waiters, until it is woken
	woken chan struct{} // closed once, after outcome and number are set

	outcome Outcome
	number  uint64
}

// Wait claims as Take does, and where the right is Busy waits for it, first come
// first served, until it is granted or ends, or ctx ends, which is an Alone. It
// never answers Busy.
func (t *Table) Wait(ctx context.Context, key string, c Claim) (number uint64, o Outcome) {
	w, number, o := t.join(key, c)
	if w == nil {
		return number, o
	}
	began := t.cfg.Clock()
	defer func() { t.cfg.Metrics.WaitSeconds.Observe((t.cfg.Clock() - began).Seconds()) }()
	timer := time.NewTimer(t.left(w))
	defer timer.Stop()
	for {
		select {
		case <-w.woken:
			return w.number, w.outcome
		case <-ctx.Done():
			return t.leave(w)
		case <-timer.C: // whoever waits sees to it that the right ends in time
			timer.Reset(t.left(w))
		}
	}
}

// join is Take for somebody who waits: of a Busy it returns the waiter.
func (t *Table) join(key string, c Claim) (*waiter, uint64, Outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, o := t.take(key, c)
	switch {
	case o == Alone, o == Busy && t.waiting >= t.cfg.Waiting:
		return nil, 0, Alone
	case o == Granted:
		return nil, r.number, o
	}
	w := &waiter{claim: c, right: r, woken: make(chan struct{})}
	w.place = r.waiters.PushBack(w)
	t.waiting++
	t.cfg.Metrics.Waits.Inc()
	t.cfg.Metrics.Waiting.Inc()
	return w, 0, Busy
}

// left ends the right that w waits for if its time is over, and returns how long
// to wait before asking again.
func (t *Table) left(w *waiter) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.cfg.Clock()
	if w.place != nil && w.right.end <= now {
		t.expire(w.right)
	}
	return max(w.right.end-now, time.Millisecond) // clocks may differ a little
}

// leave ends w's waiting, unless it was woken meanwhile.
func (t *Table) leave(w *waiter) (number uint64, o Outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w.place != nil {
		if w.claim.Plain {
			w.right.others++
		}
		t.wake(w, Alone, 0)
	}
	return w.number, w.outcome
}

// wake tells w what came of its waiting.
func (t *Table) wake(w *waiter, o Outcome, number uint64) {
	w.right.waiters.Remove(w.place)
	w.place = nil
	w.outcome, w.number = o, number
	t.waiting--
	t.cfg.Metrics.Waiting.Dec()
	close(w.woken)
}
