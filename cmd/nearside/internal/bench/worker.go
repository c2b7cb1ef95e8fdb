package bench

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// worker asks on one connection.
type worker struct {
	*run
	index    int
	conn     *conn
	requests Requests
	pacer    pacer // in an open loop
	planned  int   // requests so far, in an open loop

	// The batch on its way.
	out      []byte
	ops      []Op
	moments  []time.Duration // for which they were planned
	sent     time.Duration
	answered int
}

// work asks until the end.
func (w *worker) work() (err error) {
	plan := w.planClosed
	if w.load.Rate > 0 {
		w.pacer = w.load.pacing()
		defer func() { err = errors.Join(err, w.pacer.close()) }()
		plan = w.planOpen
	}
	answer := w.answer // once, and not for each batch
	for plan() {
		w.write()
		if err := w.conn.exchange(w.out, len(w.ops), answer); err != nil {
			return w.giveUp(err)
		}
	}
	return nil
}

// planClosed plans a batch for now, and reports false at the end.
func (w *worker) planClosed() bool {
	w.moments = w.moments[:0]
	for now := w.now(); now < w.ends() && len(w.moments) < w.load.Pipeline; {
		w.moments = append(w.moments, now)
	}
	return len(w.moments) > 0
}

// planOpen waits until a request is due and takes all that are, as many as go
// into a batch. It reports false when none will be.
func (w *worker) planOpen() bool {
	w.moments = w.moments[:0]
	for len(w.moments) == 0 {
		now, end := w.now(), w.ends()
		due := w.moment()
		if due >= end {
			return false
		}
		w.pacer.wait(min(due-now, checkEnd))
		for now = w.now(); due <= now && due < end && len(w.moments) < w.load.Pipeline; due = w.moment() {
			w.moments = append(w.moments, due)
			w.planned++
		}
	}
	return true
}

// checkEnd is how often a worker without work looks whether the run was ended.
const checkEnd = 100 * time.Millisecond

// moment is when the next request of this connection is due: the connections
// take turns.
func (w *worker) moment() time.Duration {
	n := float64(w.planned)*float64(w.load.Connections) + float64(w.index)
	return time.Duration(n / w.load.Rate * float64(time.Second))
}

// write makes the batch's requests.
func (w *worker) write() {
	w.out, w.ops, w.answered = w.out[:0], w.ops[:0], 0
	for range w.moments {
		var op Op
		w.out, op = w.requests.Append(w.out)
		w.ops = append(w.ops, op)
	}
	w.sent = w.now()
}

// answer records an answer.
func (w *worker) answer(i int, r reply) error {
	w.answered = i + 1
	what, err := judge(w.ops[i], r, w.load.Size)
	if err != nil {
		w.rec.fail(err) // of the warm-up, too: it tells why a connection ends
	}
	at := r.at.Sub(w.begin)
	if w.measured(at) {
		w.rec.served(w.index, w.ops[i])
	}
	if !w.measured(w.moments[i]) {
		return nil
	}
	s := sample{op: w.ops[i], outcome: what}
	s.latency = at - w.sent
	if w.load.Rate > 0 {
		s.latency, s.service = at-w.moments[i], at-w.sent
	}
	w.rec.record(w.index, s)
	return nil
}

// measured reports whether a moment is in the span that counts.
func (w *worker) measured(at time.Duration) bool { return at >= w.load.Warmup && at < w.ends() }

// giveUp counts what was planned so far and will have no answer, and returns the
// connection's error unless the run itself has interrupted it.
func (w *worker) giveUp(err error) error {
	now := w.now()
	for i := w.answered; i < len(w.ops); i++ {
		if w.measured(w.moments[i]) {
			w.rec.giveUp(w.index, w.ops[i], now-w.moments[i])
		}
	}
	for ; w.load.Rate > 0 && w.moment() < min(now, w.ends()); w.planned++ {
		var op Op
		if w.out, op = w.requests.Append(w.out[:0]); w.measured(w.moment()) {
			w.rec.giveUp(w.index, op, now-w.moment())
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return fmt.Errorf("connection %d: %w", w.index+1, err)
}
