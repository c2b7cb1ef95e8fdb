package bus

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPulserSteps(t *testing.T) {
	const interval = time.Second
	p := pulser{self: "me", interval: interval}
	due := func() time.Duration {
		at, ok := p.due()
		require.True(t, ok)
		return at
	}
	p.hear("other", 7, 10*interval)
	at := due()
	require.GreaterOrEqual(t, at, 12*interval+interval/2, "not before 2.5 silent intervals")
	require.Less(t, at, 13*interval+interval/2)
	p.take(at)
	_, ok := p.due()
	require.False(t, ok, "one attempt at a time")
	p.done(true, at+1)
	require.Equal(t, at+interval, due(), "not again before it may have been applied")
	p.hear("me", 8, at+2)
	require.Equal(t, at+interval, due(), "sticky: the interval counts from the attempt")
	p.hear("other", 9, at+3)
	require.GreaterOrEqual(t, due(), at+2*interval+interval/2, "a foreign role pulse above its own stops it")

	p.take(20 * interval)
	p.done(false, 22*interval)
	require.GreaterOrEqual(t, due(), 23*interval, "a failure is not retried at once")
	p.take(24 * interval)
	p.done(true, 29*interval)
	p.hear("me", 10, 29*interval)
	require.Equal(t, 29*interval+interval/2, due(), "an attempt that hung leaves time to hear others")

	for _, p := range []pulser{{self: "me"}, {interval: interval}, {self: "me", interval: -1}} {
		p.hear("other", 1, 0)
		_, ok := p.due()
		require.False(t, ok, "never takes the role")
	}
}

// fleet simulates pulsers on one stream in virtual time: what they publish is
// stored after a delay, and applied by each after another, in order.
type fleet struct {
	random *rand.Rand
	delay  time.Duration // at most, each way
	now    time.Duration
	queue  fleetQueue
	events int
	nodes  []*fleetNode
	stored []time.Duration // when role pulses were
	broken bool            // the stream takes nothing: publishes hang until it does
	hung   []func()
}

type fleetNode struct {
	pulser
	away    bool // crashed or paused
	applied time.Duration
	life    int
	backlog []func()
}

type fleetEvent struct {
	at    time.Duration
	order int // of those at one moment
	run   func()
}

type fleetQueue []fleetEvent

func (q fleetQueue) Len() int { return len(q) }
func (q fleetQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q fleetQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *fleetQueue) Push(x any)   { *q = append(*q, x.(fleetEvent)) }
func (q *fleetQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

func newFleet(seed uint64, n int, delay time.Duration) *fleet {
	f := &fleet{random: rand.New(rand.NewPCG(seed, seed)), delay: delay}
	for i := range n {
		node := &fleetNode{pulser: pulser{self: fmt.Sprintf("%d-%d", seed, i), interval: DefaultPulseInterval}}
		f.nodes = append(f.nodes, node)
		node.hear("", 0, f.some())
		f.wake(node)
	}
	return f
}

func (f *fleet) some() time.Duration { return time.Duration(f.random.Int64N(int64(f.delay) + 1)) }

func (f *fleet) at(when time.Duration, run func()) {
	f.events++
	heap.Push(&f.queue, fleetEvent{when, f.events, run})
}

// on runs something in a node, once it is not paused.
func (f *fleet) on(node *fleetNode, run func()) {
	if node.away {
		node.backlog = append(node.backlog, run)
		return
	}
	run()
	f.wake(node)
}

// wake looks when the node is due, as Drive's timer does.
func (f *fleet) wake(node *fleetNode) {
	node.life++
	life := node.life
	due, ok := node.due()
	if !ok {
		return
	}
	f.at(max(due, f.now), func() {
		if node.life == life && !node.away {
			f.attempt(node)
		}
	})
}

func (f *fleet) attempt(node *fleetNode) {
	node.take(f.now)
	f.at(f.now+f.some(), func() { f.store(node) })
}

func (f *fleet) store(node *fleetNode) {
	if f.broken {
		f.hung = append(f.hung, func() { f.store(node) })
		return
	}
	f.stored = append(f.stored, f.now)
	seq := uint64(len(f.stored))
	for _, other := range f.nodes {
		other.applied = max(other.applied, f.now+f.some())
		f.at(other.applied, func() { f.on(other, func() { other.hear(node.self, seq, f.now) }) })
	}
	f.at(f.now+f.some(), func() { f.on(node, func() { node.done(true, f.now) }) })
}

func (f *fleet) run(span time.Duration) {
	for until := f.now + span; ; {
		if len(f.queue) == 0 || f.queue[0].at > until {
			f.now = until
			return
		}
		e := heap.Pop(&f.queue).(fleetEvent)
		f.now = e.at
		e.run()
	}
}

func (f *fleet) holder() *fleetNode {
	for _, node := range f.nodes {
		if !node.away && node.holder == node.self {
			return node
		}
	}
	return nil
}

func (f *fleet) pause(node *fleetNode) { node.away = true }

func (f *fleet) resume(node *fleetNode) {
	node.away = false
	backlog := node.backlog
	node.backlog = nil
	f.wake(node) // its timer may fire before it has read what waited
	f.at(f.now+time.Duration(f.random.Int64N(int64(time.Millisecond))), func() {
		for _, run := range backlog {
			f.on(node, run)
		}
	})
}

// rate returns how many role pulses were stored per interval since a moment.
func (f *fleet) rate(since time.Duration) float64 {
	n := 0
	for _, at := range f.stored {
		if at >= since {
			n++
		}
	}
	return float64(n) * float64(DefaultPulseInterval) / float64(f.now-since)
}

// silence returns the longest time without a role pulse since a moment.
func (f *fleet) silence(since time.Duration) (longest time.Duration) {
	last := since
	for _, at := range append(f.stored, f.now) {
		if at >= since {
			longest, last = max(longest, at-last), at
		}
	}
	return longest
}

// A hundred pulsers make one pulse per interval, whatever becomes of the one
// that holds the role (B4).
func TestHundredPulsersMakeOnePulse(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Millisecond, 10 * time.Millisecond, 60 * time.Millisecond} {
		for seed := range uint64(5) {
			f := newFleet(seed, 100, delay)
			f.run(5 * time.Second)
			quiet := f.now
			f.run(time.Minute)
			require.InDelta(t, 1, f.rate(quiet), 0.5, "delay %s, seed %d: quiet", delay, seed)
			require.Less(t, f.silence(quiet), 2*DefaultPulseInterval, "delay %s, seed %d", delay, seed)

			troubled := f.now
			for range 30 {
				gone := f.holder()
				for ; gone == nil; gone = f.holder() {
					f.run(DefaultPulseInterval)
				}
				f.pause(gone)
				f.run(time.Duration(f.random.Int64N(int64(4 * time.Second))))
				f.resume(gone)
				f.run(time.Duration(f.random.Int64N(int64(4 * time.Second))))
			}
			require.Less(t, f.rate(troubled), 2.5, "delay %s, seed %d: pauses of the holder", delay, seed)
			require.Less(t, f.silence(troubled), 4*DefaultPulseInterval+4*delay, "delay %s, seed %d", delay, seed)
		}
	}
}

// When the stream takes nothing for a while, everybody tries, but once; and one
// remains when it is back.
func TestPulsersAfterAnOutage(t *testing.T) {
	for seed := range uint64(5) {
		f := newFleet(seed, 100, 5*time.Millisecond)
		f.run(5 * time.Second)
		f.broken = true
		f.run(20 * time.Second)
		f.broken = false
		before := len(f.stored)
		for _, publish := range f.hung {
			publish()
		}
		f.run(500 * time.Millisecond)
		require.LessOrEqual(t, len(f.stored)-before, 110, "seed %d", seed)
		back := f.now
		f.run(10 * time.Second)
		require.InDelta(t, 1, f.rate(back), 0.3, "seed %d", seed)
	}
}
