package nemesis

import (
	"maps"
	"math"
	"time"
)

// loads is what the judge knows of the loads of one key: the answers of the origin and
// the fills of clients. It is guarded by the history's lock.
type loads struct {
	given   map[uint64]map[string]time.Duration // by serial and pod: when it was had from a load last
	absent  map[string]time.Duration            // by pod: when one said last that there is no value
	refused map[uint64]refusal                  // by serial
}

// refusal is that of a value which must not be kept.
type refusal struct {
	by life // zero: nobody may keep it
	at time.Duration
}

const (
	// slack is how long after a load's answer its value may be stored, on a machine
	// that is busy.
	slack = 1500 * time.Millisecond
	// forgotten loads are too old for anybody to hold what they brought.
	forgotten = 2 * time.Minute
	manyLoads = 4096 // of a key, from which on some are forgotten
)

// given is told that a pod has what a load found, or that it was told again that it
// is right.
func (j *judge) given(f found, pod string) {
	h := j.keys[f.key]
	h.mu.Lock()
	defer h.mu.Unlock()
	now := j.clock()
	if f.absent {
		h.loads.absent[pod] = now
		return
	}
	pods := h.loads.given[f.serial]
	if pods == nil {
		pods = make(map[string]time.Duration, 1)
		h.loads.given[f.serial] = pods
	}
	pods[pod] = now
	h.loads.forget(now - forgotten)
}

// refused is told that a life has refused what a load found; a zero one, that all must.
func (j *judge) refused(f found, by life) {
	h := j.keys[f.key]
	h.mu.Lock()
	defer h.mu.Unlock()
	now := j.clock()
	h.loads.refused[f.serial] = refusal{by.sidecar(), now}
	h.loads.forget(now - forgotten)
}

// forget forgets, where there are many, what was last heard of before a moment.
func (l *loads) forget(before time.Duration) {
	if len(l.given) > manyLoads {
		maps.DeleteFunc(l.given, func(_ uint64, pods map[string]time.Duration) bool {
			for _, at := range pods {
				if at >= before {
					return false
				}
			}
			return true
		})
	}
	if len(l.refused) > manyLoads {
		maps.DeleteFunc(l.refused, func(_ uint64, r refusal) bool { return r.at < before })
	}
}

// paused is told that a pod stood still until now: what it had in its hands may be
// older than it could know.
func (j *judge) paused(pod string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.pauses[pod] = j.clock()
}

// fromElsewhere reports whether a value came to the pod of a read by the shared tier:
// its load was another pod's.
func (j *judge) fromElsewhere(r read, x seen) bool {
	h := j.keys[r.key]
	h.mu.Lock()
	defer h.mu.Unlock()
	pods := h.loads.given[x.serial]
	_, own := pods[r.life.name]
	return len(pods) > 0 && !own
}

// kept judges that what was refused is not served (C2), and that what is past its soft
// TTL, or an absence past its TTL, is not served for longer than the policy and the
// reader allow: bounded means bounded (I5, I12). h.mu is held.
func (j *judge) kept(h *history, r read, x seen) {
	s := spaceOf(r.key)
	if no, was := h.loads.refused[x.serial]; was && (no.by == life{} || no.by == r.life.sidecar()) {
		j.broken("I1", "%v served by %s what load %d brought of %s, which had been refused", r.life, r.mode, x.serial, r.key)
	}
	if s == nil {
		return
	}
	if x.old && r.mode.linear() {
		j.broken("I5", "%v answered a %s read of %s by what is past its soft TTL", r.life, r.mode, r.key)
	}
	had, what, invariant := h.loads.given[x.serial], "the value of load "+formatUint(x.serial), "I5"
	limit := s.soft + s.overtime(r, x.old)
	if x.absent {
		had, what, invariant, limit = h.loads.absent, "an absence", "I12", s.negative
	}
	born, known := j.born(had, r.life.name, s.shared && !x.absent)
	switch age := r.called - born; {
	case x.absent && !known:
		j.broken("I12", "%v answered that there is no %s, which nobody told it", r.life, r.key)
	case known && age > limit+slack:
		j.broken(invariant, "%v served %s of %s by %s (past its soft TTL: %t) at %.3fs, %v after it was loaded or confirmed; allowed are %v",
			r.life, what, r.key, r.mode, x.old, r.called.Seconds(), age, limit)
	}
}

// overtime is how long past its soft TTL a value may be for a read (C10, C6). A plain
// answer does not say that it is.
func (s *space) overtime(r read, old bool) time.Duration {
	allowed := plainBound(r.key)
	switch {
	case r.mode.linear(), !old && r.mode != plain:
		return 0
	case r.mode == maxStale:
		allowed = r.bound
	case r.mode == anyFresh || allowed == 0:
		allowed = math.MaxInt64
	}
	return min(allowed, max(s.revalidate, s.onError))
}

// born returns the latest moment at which a pod can have stored what was had, if that
// is known. What is shared it may have from any other, and then its age goes by the
// wall clocks.
func (j *judge) born(had map[string]time.Duration, pod string, shared bool) (at time.Duration, known bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if shared && j.jumped {
		return 0, false
	}
	for p, t := range had {
		if p == pod || shared {
			at, known = max(at, t, j.pauses[p], j.pauses[pod]), true
		}
	}
	return at, known
}

// clocksJump is told before the wall clock of a pod is wrong for the first time.
func (j *judge) clocksJump() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.jumped = true
}
