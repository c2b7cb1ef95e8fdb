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
	clock func() time.Duration
	keys  map[string]*history // fixed

	checks sync.WaitGroup // of registers, see register.go

	mu         sync.Mutex
	violations map[string]int // by invariant
	evidence   []string       // of the first ones
	segments   registerCounts
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

// rested is a served version and what the sidecar had applied before the read.
type rested struct {
	life    life
	version uint64
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
}

func (l life) String() string { return fmt.Sprintf("%s (life %d)", l.name, l.number) }

func newJudge(keys []string, clock func() time.Duration) *judge {
	j := &judge{clock: clock, keys: make(map[string]*history, len(keys)), violations: make(map[string]int)}
	for _, k := range keys {
		j.keys[k] = &history{
			lives: make(map[life]uint64), own: make(map[life]uint64), marks: make(map[int64][]mark),
			register: register{state: firstVersion},
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

// freshness is the invariant that a served value breaks which is older than what
// was applied.
func freshness(key string) string {
	if isPage(key) {
		return "I11"
	}
	return "I1"
}

// judgePrefix judges I1 and I11. h.mu is held.
func (j *judge) judgePrefix(key string, h *history, r rested) {
	marks := h.marks[r.applied.Epoch.Created]
	i := sort.Search(len(marks), func(i int) bool { return !r.applied.Covers(marks[i].position) })
	if i > 0 && r.version < marks[i-1].version {
		j.broken(freshness(key), "%v served version %d of %s though it had applied the invalidation of version %d at %v (applied %v)",
			r.life, r.version, key, marks[i-1].version, marks[i-1].position, r.applied)
	}
}

// mode is how fresh a read must be.
type mode string

// Modes of reads. plain is a Redis client's GET, regular a STRONG read of a key
// whose fills do not all carry versions.
const (
	anyFresh mode = "ANY"
	maxStale mode = "MAXSTALE"
	atLeast  mode = "ATLEAST"
	strong   mode = "STRONG"
	regular  mode = "STRONG of pages"
	plain    mode = "GET"
)

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
	acked  uint64 // longer than bound ago (I5)
	strong uint64 // acknowledged, or returned by a STRONG read (I6)
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
	if m == strong {
		h.register.open++
		r.strong = h.register.known
	}
	return r
}

// served is told of every value that a sidecar served, with the token of the
// answer, and with what had been applied before the call if that is known.
func (j *judge) served(r read, version uint64, text string, applied bus.Position) {
	h := j.keys[r.key]
	h.mu.Lock()
	defer h.mu.Unlock()
	if version < r.served {
		j.broken("I2", "%v served version %d of %s by %s after version %d had been served by it before the call", r.life, version, r.key, r.mode, r.served)
	}
	if version < r.own {
		j.broken("I4", "%v served version %d of %s by %s after it had answered the write of version %d", r.life, version, r.key, r.mode, r.own)
	}
	if version < r.acked {
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
	h.lives[r.life] = max(h.lives[r.life], version)
	if text != "" && version > h.read.version {
		h.read = token{text, version}
	}
	if !applied.IsZero() {
		x := rested{r.life, version, applied}
		if h.onTheWay > 0 {
			h.waiting = append(h.waiting, x)
		} else {
			j.judgePrefix(r.key, h, x)
		}
	}
	if r.mode == strong {
		j.closeRead(r, h, version)
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

// dropped is told of a STRONG read that returned nothing.
func (j *judge) dropped(r read) {
	h := j.keys[r.key]
	h.mu.Lock()
	defer h.mu.Unlock()
	h.register.open--
}
