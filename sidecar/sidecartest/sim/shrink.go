package sim

import (
	"slices"
	"time"
)

// Shrink looks for a smaller plan that breaks the same invariant, with at most so
// many runs: with fewer actions, then with fewer sidecars, then in less time; and
// again, as long as that helps. The same seed is always shrunk to the same.
func (r Result) Shrink(runs int) Result {
	s := shrinker{best: r, runs: runs}
	for better := true; better && s.runs > 0; {
		better = s.actions()
		better = s.sidecars() || better
		better = s.time() || better
	}
	return s.best
}

type shrinker struct {
	best Result
	runs int
}

// try takes p if it breaks what the best plan breaks.
func (s *shrinker) try(p plan) bool {
	if s.runs <= 0 {
		return false
	}
	s.runs--
	t := run(p, false)
	found := t.Violation != nil && t.Violation.Invariant == s.best.Violation.Invariant
	if found {
		s.best = t
	}
	return found
}

// actions removes runs of actions, first long ones, in the end single ones.
func (s *shrinker) actions() (better bool) {
	for size := (len(s.best.plan.actions) + 1) / 2; size > 0; size /= 2 {
		// The last first: what came after the violation goes at once.
		for to := len(s.best.plan.actions); to > 0; to -= size {
			p := s.best.plan
			p.actions = slices.Delete(slices.Clone(p.actions), max(0, to-size), to)
			better = s.try(p) || better
			to = min(to, len(s.best.plan.actions)+size)
		}
	}
	return better
}

// sidecars removes the last one with what it does, or gives that to the first.
func (s *shrinker) sidecars() (better bool) {
	for s.best.plan.slots > 1 {
		p, last := s.best.plan, s.best.plan.slots-1
		p.slots = last
		p.actions = slices.DeleteFunc(slices.Clone(p.actions), func(x action) bool { return x.slot == last })
		if !s.try(p) {
			p.actions = slices.Clone(s.best.plan.actions)
			for i := range p.actions {
				p.actions[i].slot %= last
			}
			if !s.try(p) {
				break
			}
		}
		better = true
	}
	return better
}

// shortest is the shortest pause that is worth being cut.
const shortest = 50 * time.Millisecond

// time cuts the pauses between actions: to nothing, or else to half.
func (s *shrinker) time() (better bool) {
	for i := range s.best.plan.actions {
		for _, part := range []time.Duration{1, 2} {
			p := s.best.plan
			before := time.Duration(0)
			if i > 0 {
				before = p.actions[i-1].at
			}
			pause := p.actions[i].at - before
			if pause < shortest {
				break
			}
			p.actions = slices.Clone(p.actions)
			for j := i; j < len(p.actions); j++ {
				p.actions[j].at -= pause / part
			}
			if s.try(p) {
				better = true
				break
			}
		}
	}
	return better
}
