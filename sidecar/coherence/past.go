package coherence

import "time"

// moment is the part of the state that leases are made of.
type moment struct {
	seq  uint64
	tick uint64
}

// past answers what the state was some time ago, exactly or too early, never
// too late: an older lease only rejects more. It keeps samples that are about a
// 32nd of the window apart and reach back two windows at least.
type past struct {
	every   time.Duration
	samples []sample // a ring, oldest at next when full
	next    int
	changed time.Duration // when the current state began
	started bool
}

// sample says that the state was m from at on, until a later change.
type sample struct {
	at time.Duration
	m  moment
}

const (
	samplesPerWindow = 32
	samplesKept      = 4 * samplesPerWindow // at most two samples fall into one interval
)

func newPast(window time.Duration) past {
	return past{every: window/samplesPerWindow + 1, samples: make([]sample, 0, samplesKept)}
}

// change is told before the state changes at now from cur to something else.
func (p *past) change(now time.Duration, cur moment) {
	idle := now-p.changed >= p.every
	if !p.started || idle || p.changed-p.newest().at >= p.every {
		p.add(sample{at: p.changed, m: cur})
		p.started = true
	}
	p.changed = now
}

// at returns the state just before t, or an earlier one: of two things of one
// moment either may have come first.
func (p *past) at(t time.Duration, cur moment) moment {
	if t > p.changed {
		return cur
	}
	for i := range p.samples {
		if s := p.samples[(p.next+len(p.samples)-1-i)%len(p.samples)]; s.at < t {
			return s.m
		}
	}
	return p.oldest()
}

// rebase makes seq the position of every moment so far: what came before a
// Resume is told by the history that was read back, not by former positions,
// which may belong to another epoch. Ticks go on.
func (p *past) rebase(seq uint64) {
	for i := range p.samples {
		p.samples[i].m.seq = seq
	}
}

func (p *past) add(s sample) {
	if len(p.samples) < cap(p.samples) {
		p.samples = append(p.samples, s)
		p.next = len(p.samples) % cap(p.samples)
		return
	}
	p.samples[p.next] = s
	p.next = (p.next + 1) % len(p.samples)
}

func (p *past) newest() sample {
	return p.samples[(p.next+len(p.samples)-1)%len(p.samples)]
}

// oldest is the answer for a time before every sample. Before the first change
// there is nothing to be older than.
func (p *past) oldest() moment {
	if len(p.samples) == 0 {
		return moment{}
	}
	if len(p.samples) < cap(p.samples) {
		return p.samples[0].m
	}
	return moment{} // nobody knows: everything may have come since
}
