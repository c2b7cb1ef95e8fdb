package nemesis

import (
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// register is the history of one key's STRONG reads and versioned writes, to be
// linearized (I6). It is cut into segments where nothing is under way, and each
// is checked by itself: commits are single steps at the origin and versions
// grow, so at such a moment the register holds the newest version.
type register struct {
	open  int    // operations under way
	known uint64 // newest version acknowledged or returned
	state uint64 // what the register held when the segment began
	ops   []porcupine.Operation
}

// registerCounts says what porcupine said.
type registerCounts struct {
	operations int
	segments   int
	longest    int // operations of one segment
	undecided  int
}

const (
	segmentLength = 400              // operations from which on a segment may end
	segmentTime   = 60 * time.Second // that porcupine may take for one
)

// access is a read or a write of the register.
type access struct {
	write   bool
	version uint64
}

// model is a register whose writes carry growing versions.
func model(state uint64) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return state },
		Step: func(state, input, _ any) (bool, any) {
			held, a := state.(uint64), input.(access)
			if a.write {
				return true, max(held, a.version)
			}
			return a.version == held, held
		},
		Equal: func(a, b any) bool { return a == b },
	}
}

// closeRead ends a STRONG read. h.mu is held.
func (j *judge) closeRead(r read, h *history, version uint64) {
	if version < r.strong {
		j.broken("I6", "a STRONG read of %s through %v, begun at %.3fs, returned version %d after version %d had been acknowledged or returned",
			r.key, r.life, r.called.Seconds(), version, r.strong)
	}
	j.close(r.key, h, porcupine.Operation{
		Input: access{version: version}, Call: int64(r.called), Return: int64(j.clock()),
	})
}

// closeWrite ends a write. h.mu is held.
func (j *judge) closeWrite(w write, h *history, now time.Duration) {
	j.close(w.key, h, porcupine.Operation{
		Input: access{write: true, version: w.version}, Call: int64(w.called), Return: int64(now),
	})
}

// close takes an operation that ended and checks the segment if it ends here.
func (j *judge) close(key string, h *history, op porcupine.Operation) {
	reg := &h.register
	reg.ops = append(reg.ops, op)
	reg.known = max(reg.known, op.Input.(access).version)
	if reg.open--; reg.open == 0 && len(reg.ops) >= segmentLength {
		j.cut(key, reg)
	}
}

// cut gives the segment to porcupine and begins the next one.
func (j *judge) cut(key string, reg *register) {
	ops, state := reg.ops, reg.state
	reg.ops, reg.state = nil, max(reg.state, reg.known)
	j.checks.Go(func() {
		result := porcupine.CheckOperationsTimeout(model(state), ops, segmentTime)
		if result == porcupine.Illegal {
			j.broken("I6", "no order of %d STRONG reads and writes of %s explains their answers: %s", len(ops), key, culprit(state, ops))
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		j.segments.operations += len(ops)
		j.segments.segments++
		j.segments.longest = max(j.segments.longest, len(ops))
		if result == porcupine.Unknown {
			j.segments.undecided++
		}
	})
}

// finish checks what is left. unknown are the writes that were never
// acknowledged: they may take effect at any time since their call.
func (j *judge) finish(unknown []write) {
	for _, w := range unknown {
		if !w.versioned {
			continue
		}
		h := j.keys[w.key]
		h.mu.Lock()
		h.register.ops = append(h.register.ops, porcupine.Operation{
			Input: access{write: true, version: w.version}, Call: int64(w.called), Return: math.MaxInt64,
		})
		h.mu.Unlock()
	}
	for key, h := range j.keys {
		h.mu.Lock()
		// The writes that are on their way for good say nothing more of any read.
		for _, r := range h.waiting {
			j.judgePrefix(key, h, r)
		}
		h.waiting = nil
		if len(h.register.ops) > 0 {
			j.cut(key, &h.register)
		}
		h.mu.Unlock()
	}
	j.checks.Wait()
}

// culprit finds the shortest history that cannot be explained: the first
// operations, by return, up to the one that makes it impossible.
func culprit(state uint64, ops []porcupine.Operation) string {
	slices.SortFunc(ops, func(a, b porcupine.Operation) int { return int(min(1, max(-1, a.Return-b.Return))) })
	for n := range ops {
		// An operation that returns later may have taken effect before.
		some := slices.Clone(ops)
		for i := n + 1; i < len(some); i++ {
			if !some[i].Input.(access).write {
				some = slices.Delete(some, i, i+1)
				i--
			}
		}
		if !porcupine.CheckOperations(model(state), some) {
			return describe(ops[n])
		}
	}
	return "only all of them together"
}

func describe(op porcupine.Operation) string {
	a := op.Input.(access)
	verb := "the read of version"
	if a.write {
		verb = "the write of version"
	}
	return verb + " " + formatUint(a.version) + " from " + seconds(op.Call) + " to " + seconds(op.Return)
}
