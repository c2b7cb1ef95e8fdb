package nemesis

import (
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// judge hears of every operation when it begins and when it ends, and decides
// which answers break an invariant. What an answer must not be older than is
// looked up when its read begins, so that every finding is certain; only what
// needs the positions of events (I1) and the register (I6) is decided later.
//
// It is safe for concurrent use. All times are of one monotonic clock.
type judge struct {
	clock  func() time.Duration
	origin *origin
	keys   map[string]*history // fixed

	checks sync.WaitGroup // of registers, see register.go

	mu         sync.Mutex
	violations map[string]int // by invariant
	evidence   []string       // of the first ones
	segments   registerCounts
	pauses     map[string]time.Duration // when a pod went on after its last pause
	jumped     bool                     // a pod's wall clock was wrong once
}

// history is what the judge knows of one key.
type history struct {
	mu    sync.Mutex
	lives map[life]uint64 // newest version that a sidecar's life served
	own   map[life]uint64 // newest version that was written through it
	acks  []ack           // by time

	// Of I1 and I11: the events by position, for each stream that there was by its
	// creation time; how many writes are not acknowledged yet; and the reads that
	// wait for these to be judged. Which of two streams is newer only the clocks of
	// the servers that made them say, and these jump: their events are not compared.
	marks    map[int64][]mark
	onTheWay int
	waiting  []rested

	read, written token // newest ones, for ATLEAST

	register register
	loads    loads
}

// ack is an acknowledged write. INVARIANT: version is the newest of all up to
// this one.
type ack struct {
	at      time.Duration
	version uint64
}

// mark is an event's position. INVARIANT: version is the newest of all events up
// to this one.
type mark struct {
	position bus.Position
	version  uint64
}

// rested is a served version (of an absence that does not say which, the newest that
// it can be) and what the sidecar had applied before the read.
type rested struct {
	life    life
	version uint64
	absent  bool
	applied bus.Position
}

// token is one that a client holds, and the version that it stands for.
type token struct {
	text    string
	version uint64
}

// life is one process of a sidecar.
type life struct {
	name   string
	number int
	l0     bool // the L0 of the app beside it, which hears of everything a little later
}

// sidecar is the life of the sidecar itself.
func (l life) sidecar() life { return life{name: l.name, number: l.number} }

func (l life) String() string {
	if l.l0 {
		return fmt.Sprintf("the app of %v", l.sidecar())
	}
	return fmt.Sprintf("%s (life %d)", l.name, l.number)
}

func newJudge(keys []string, o *origin, clock func() time.Duration) *judge {
	j := &judge{
		clock: clock, origin: o, keys: make(map[string]*history, len(keys)), violations: make(map[string]int),
		pauses: make(map[string]time.Duration),
	}
	for _, k := range keys {
		j.keys[k] = &history{
			lives: make(map[life]uint64), own: make(map[life]uint64), marks: make(map[int64][]mark),
			register: register{state: firstVersion},
			loads: loads{
				given: make(map[uint64]map[string]time.Duration), absent: make(map[string]time.Duration), refused: make(map[uint64]refusal),
			},
		}
	}
	return j
}

const maxEvidence = 20

// broken notes a violation.
func (j *judge) broken(invariant, format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.violations[invariant]++; len(j.evidence) < maxEvidence {
		j.evidence = append(j.evidence, fmt.Sprintf("%8.3fs %s: %s", j.clock().Seconds(), invariant, fmt.Sprintf(format, args...)))
	}
}

// write is one under way.
type write struct {
	key       string
	version   uint64
	called    time.Duration
	versioned bool
}

// writing is told right before the commit.
func (j *judge) writing(key string, versioned bool) write {
	h := j.keys[key]
	h.mu.Lock()
	defer h.mu.Unlock()
	h.onTheWay++
	if versioned {
		h.register.open++
	}
	return write{key: key, called: j.clock(), versioned: versioned}
}

// tried is told when a sidecar answered the write, be it with an error: it has
// dropped the entry and voided the key's leases (C8, I4).
func (j *judge) tried(w write, l life) {
	h := j.keys[w.key]
	h.mu.Lock()
	defer h.mu.Unlock()
	h.own[l] = max(h.own[l], w.version)
	h.own[l.sidecar()] = max(h.own[l.sidecar()], w.version)
}

// wrote is told when a write was acknowledged, with its position and the token
// that its writer holds. A zero position is an unknown one.
func (j *judge) wrote(w write, p bus.Position, text string, versioned bool) {
	h := j.keys[w.key]
	h.mu.Lock()
	defer h.mu.Unlock()
	now := j.clock() // under the lock: who begins a read later finds the ack
	a := ack{now, w.version}
	if n := len(h.acks); n > 0 {
		a.version = max(a.version, h.acks[n-1].version)
	}
	h.acks = append(h.acks, a)
	if text != "" && w.version > h.written.version {
		h.written = token{text, w.version}
	}
	if !p.IsZero() {
		h.mark(mark{p, w.version})
	}
	if h.onTheWay--; h.onTheWay == 0 {
		for _, r := range h.waiting {
			j.judgePrefix(w.key, h, r)
		}
		h.waiting = nil
	}
	if versioned {
		j.closeWrite(w, h, now)
	}
}

// mark keeps the marks in order, whatever the order of acknowledgements.
func (h *history) mark(m mark) {
	stream := m.position.Epoch.Created
	marks := h.marks[stream]
	i := sort.Search(len(marks), func(i int) bool { return marks[i].position.Covers(m.position) })
	marks = slices.Insert(marks, i, m)
	for i = max(i, 1); i < len(marks); i++ {
		marks[i].version = max(marks[i].version, marks[i-1].version)
	}
	h.marks[stream] = marks
}

// freshness is the invariant that an answer breaks which is older than what was
// applied.
func freshness(key string, absent bool) string {
	switch {
	case isPage(key):
		return "I11"
	case absent:
		return "I12"
	}
	return "I1"
}

// judgePrefix judges I1 and I11. h.mu is held.
func (j *judge) judgePrefix(key string, h *history, r rested) {
	marks := h.marks[r.applied.Epoch.Created]
	i := sort.Search(len(marks), func(i int) bool { return !r.applied.Covers(marks[i].position) })
	if i > 0 && r.version < marks[i-1].version {
		j.broken(freshness(key, r.absent), "%v served version %d of %s though it had applied the invalidation of version %d at %v (applied %v)",
			r.life, r.version, key, marks[i-1].version, marks[i-1].position, r.applied)
	}
}

// mode is how fresh a read must be.
type mode string

// Modes of reads. plain is a Redis client's GET, or a NEAR.GET that asks for nothing,
// critical one of a key whose class makes it STRONG, regular a STRONG read of a key whose fills do not all carry versions.
const (
	anyFresh mode = "ANY"
	maxStale mode = "MAXSTALE"
	atLeast  mode = "ATLEAST"
	strong   mode = "STRONG"
	regular  mode = "STRONG without versions"
	plain    mode = "GET"
	critical mode = "GET of class critical"
)

// linear reports whether answers with versions must be linearizable.
func (m mode) linear() bool { return m == strong || m == critical }

// read is one under way, with what it must not be older than.
type read struct {
	key    string
	mode   mode
	life   life
	called time.Duration
	bound  time.Duration // of staleness; 0: none
	wait   time.Duration // for the mode to hold; negative: the sidecar's own
	token  token         // for atLeast

	served uint64 // by this life before (I2)
	own    uint64 // written through this life before (I4)
	acked  uint64 // longer than bound ago (I5), or at all before a linear read (I6)
	strong uint64 // acknowledged, or returned by a STRONG read (I6)
}

// seen is what an answer showed.
type seen struct {
	version uint64 // 0: an absence that does not say of which deletion it is
	absent  bool
	old     bool   // it said that the value is past its soft TTL
	serial  uint64 // of the load that brought the value; 0: of none, or unknown
	token   string // for what has a version
	byL0    bool
}

// reading is told right before the call. fromRead says which token an ATLEAST
// read shall present.
func (j *judge) reading(key string, m mode, l life, bound time.Duration, fromRead bool) read {
	h := j.keys[key]
	h.mu.Lock()
	defer h.mu.Unlock()
	r := read{key: key, mode: m, life: l, called: j.clock(), bound: bound, wait: -1, served: h.lives[l], own: h.own[l]}
	if r.token = h.written; fromRead {
		r.token = h.read
	}
	if bound > 0 {
		if i := sort.Search(len(h.acks), func(i int) bool { return h.acks[i].at >= r.called-bound }); i > 0 {
			r.acked = h.acks[i-1].version
		}
	}
	if m.linear() {
		h.register.open++
		r.strong = h.register.known
		if n := len(h.acks); n > 0 {
			r.acked = h.acks[n-1].version
		}
	}
	return r
}

// served is told of every answer with a value, or that there is none, and with what
// had been applied before the call if that is known.
func (j *judge) served(r read, x seen, applied bus.Position) {
	h := j.keys[r.key]
	h.mu.Lock()
	defer h.mu.Unlock()
	newest, oldest := j.versions(r, x)
	if newest == 0 {
		j.end(r, h)
		return
	}
	j.compare(r, newest)
	j.kept(h, r, x)
	h.lives[r.life] = max(h.lives[r.life], oldest)
	if !x.byL0 {
		h.lives[r.life.sidecar()] = max(h.lives[r.life.sidecar()], oldest)
	}
	if x.token != "" && newest > h.read.version {
		h.read = token{x.token, newest}
	}
	if !applied.IsZero() {
		x := rested{r.life, newest, x.absent, applied}
		if h.onTheWay > 0 {
			h.waiting = append(h.waiting, x)
		} else {
			j.judgePrefix(r.key, h, x)
		}
	}
	switch {
	case r.mode.linear() && x.version != 0:
		j.closeRead(r, h, newest)
	case r.mode.linear() && newest < r.acked:
		j.broken("I6", "%v answered a %s read of %s, which began at %.3fs, by the absence of version %d after version %d had been acknowledged",
			r.life, r.mode, r.key, r.called.Seconds(), newest, r.acked)
		fallthrough
	default:
		j.end(r, h)
	}
}

// versions returns the newest and the oldest version that an answer can be of, or 0
// when there never was such a value or absence (I10, I12).
func (j *judge) versions(r read, x seen) (newest, oldest uint64) {
	if x.version != 0 {
		if was, absent := j.origin.absent(r.key, x.version); !was || absent != x.absent {
			j.broken("I10", "%v answered version %d of %s by %s (an absence: %t), which never was", r.life, x.version, r.key, r.mode, x.absent)
			return 0, 0
		}
		return x.version, x.version
	}
	// The answer cannot be older than these without breaking an invariant.
	from := max(r.served, r.own, r.acked)
	if r.mode == atLeast {
		from = max(from, r.token.version)
	}
	newest, oldest = j.origin.deletions(r.key, from)
	if newest == 0 {
		j.broken("I12", "%v answered that there is no %s by %s, which was never deleted", r.life, r.key, r.mode)
	}
	if oldest == 0 {
		oldest = newest
	}
	return newest, oldest
}

// compare holds an answer against what it must not be older than.
func (j *judge) compare(r read, version uint64) {
	if version < r.served {
		j.broken("I2", "%v served version %d of %s by %s after version %d had been served by it before the call", r.life, version, r.key, r.mode, r.served)
	}
	if version < r.own {
		j.broken("I4", "%v served version %d of %s by %s after it had answered the write of version %d", r.life, version, r.key, r.mode, r.own)
	}
	if version < r.acked && !r.mode.linear() {
		invariant := "I5"
		if r.mode == regular {
			invariant = "I6"
		}
		j.broken(invariant, "%v served version %d of %s by %s within %v though version %d was acknowledged longer than that before the call at %.3fs",
			r.life, version, r.key, r.mode, r.bound, r.acked, r.called.Seconds())
	}
	if r.mode == atLeast && version < r.token.version {
		j.broken("I4", "%v served version %d of %s to a client with the token %s of version %d", r.life, version, r.key, r.token.text, r.token.version)
	}
}

// loaded is told of a STRONG read that returns what it loaded itself, once the
// sidecar has answered its fill.
func (j *judge) loaded(r read, version uint64) {
	h := j.keys[r.key]
	h.mu.Lock()
	defer h.mu.Unlock()
	j.closeRead(r, h, version)
}

// dropped is told of a read that returned nothing.
func (j *judge) dropped(r read) {
	h := j.keys[r.key]
	h.mu.Lock()
	defer h.mu.Unlock()
	j.end(r, h)
}

// end ends a read that is none of the register. h.mu is held.
func (j *judge) end(r read, h *history) {
	if r.mode.linear() {
		h.register.open--
	}
}
