package refresh

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Run has keys loaded when they are due, until ctx ends. Then it starts no more,
// and returns when the loads under way, whose context is ctx, have returned. What is
// queued stays. It is called once at a time.
func (q *Queue) Run(ctx context.Context, load Load) {
	var loads sync.WaitGroup
	defer loads.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		it, wait := q.next()
		if it != nil {
			loads.Go(func() { q.load(ctx, it, load) })
			continue
		}
		timer.Reset(wait)
		select {
		case <-q.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}

func (q *Queue) load(ctx context.Context, it *item, load Load) {
	err := load(ctx, it.key)
	if err != nil && ctx.Err() == nil {
		q.metrics.Failed.Inc()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	it.lane.loads--
	delete(q.busy, it.key)
	if again := q.items[it.key]; again != nil {
		q.later.add(again)
	}
	q.settle(it.lane)
	q.changed()
}

// nap is how long Run sleeps at most: timers stand still while the machine is
// suspended, the Queue's clock need not.
const nap = 10 * time.Second

// next returns the item to be loaded now, which then is under way, or nil and how
// long there is none by time alone.
func (q *Queue) next() (_ *item, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	q.promote(now)
	if len(q.busy) < q.workers {
		for _, l := range q.turns {
			if l.loads < max(1, min(q.limit(l.name), q.workers-1)) {
				return q.begin(l), 0
			}
		}
	}
	if first := q.later.first(); first != nil {
		return nil, min(first.due-now, nap)
	}
	return nil, nap
}

// promote moves what is due to its namespace's lane.
func (q *Queue) promote(now time.Duration) {
	for it := q.later.first(); it != nil && it.due <= now; it = q.later.first() {
		q.later.remove(it)
		name := namespaceOf(it.key)
		l := q.lanes[name]
		if l == nil {
			l = &lane{name: name, due: pile{before: hotter, place: placeOf}}
			q.lanes[name] = l
		}
		if l.due.first() == nil {
			q.turns = append(q.turns, l)
		}
		it.lane = l
		l.due.add(it)
	}
}

// begin takes the hottest item of a lane, whose turn then comes last.
func (q *Queue) begin(l *lane) *item {
	it := l.due.first()
	l.loads++
	q.busy[it.key] = true
	q.remove(it)
	if i := slices.Index(q.turns, l); i >= 0 {
		q.turns = append(slices.Delete(q.turns, i, i+1), l)
	}
	q.metrics.Started.Inc()
	q.metrics.Length.Set(float64(len(q.items)))
	return it
}

// settle takes a lane from the turns when nothing is due in it, and forgets it when
// nothing is under way either.
func (q *Queue) settle(l *lane) {
	if l.due.first() != nil {
		return
	}
	q.turns = slices.DeleteFunc(q.turns, func(o *lane) bool { return o == l })
	if l.loads == 0 {
		delete(q.lanes, l.name)
	}
}
