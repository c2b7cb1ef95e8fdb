package sidecar

import (
	"math"
	"time"
)

// deadlines are those of connections that are all given the same time, so that the
// order in which they begin is that in which they end, and nothing has to be sorted
// or searched.
type deadlines struct {
	each        time.Duration
	first, last *deadline
}

// deadline is a connection's place among deadlines. The zero value is in none.
type deadline struct {
	line       *line
	at         time.Duration
	prev, next *deadline
	in         *deadlines
}

// begin gives d its time from now on.
func (ds *deadlines) begin(d *deadline, now time.Duration) {
	d.end()
	d.at, d.in, d.prev = now+ds.each, ds, ds.last
	if ds.last == nil {
		ds.first = d
	} else {
		ds.last.next = d
	}
	ds.last = d
}

// end takes d out; it may be out already.
func (d *deadline) end() {
	if d.in == nil {
		return
	}
	if d.prev == nil {
		d.in.first = d.next
	} else {
		d.prev.next = d.next
	}
	if d.next == nil {
		d.in.last = d.prev
	} else {
		d.next.prev = d.prev
	}
	d.prev, d.next, d.in = nil, nil, nil
}

// due takes out the first that is over at now; nil when there is none.
func (ds *deadlines) due(now time.Duration) *line {
	d := ds.first
	if d == nil || d.at > now {
		return nil
	}
	d.end()
	return d.line
}

// forever is longer than any deadline.
const forever = time.Duration(math.MaxInt64)

// left is how long nothing is due.
func (ds *deadlines) left(now time.Duration) time.Duration {
	if ds.first == nil {
		return forever
	}
	return max(0, ds.first.at-now)
}
