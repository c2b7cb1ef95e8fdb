package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/coherence"
)

// Sizes of a sidecar: a ring of 1 MiB, about 2,200 fences and 780 misses.
const (
	memory   = 3 << 20
	maxValue = 64 << 10
)

// Nobody looks at them; to make them is dear.
var metrics = cache.NewMetrics(prometheus.NewRegistry())

// slot is one pod's place: its processes come one after the other.
type slot struct {
	number  int
	process *process // nil while none runs
	lives   int
	machine int           // counts the machines that it was on
	base    time.Duration // its machine's clock at the beginning of the run
	drift   int64         // in ppm of true time
	record  record
}

// record is what a life leaves to the next on the same machine.
type record struct {
	exists, readable bool
	at               time.Duration // of the machine's clock
	judging          coherence.Judging
}

// recordEvery is how often a life is written down.
const recordEvery = 200 * time.Millisecond

// recall is what a new life knows of the one before, as the sidecar finds it out
// (ADR 0002).
func (s *slot) recall(now time.Duration) (first bool, e coherence.Judging) {
	r := s.record
	switch {
	case !r.exists:
		return true, e
	case !r.readable:
		return false, e
	case now > r.at+window+2*recordEvery:
		return true, e
	}
	return false, r.judging
}

// record keeps the record of p's life.
func (p *process) record() {
	if p.dead || p.w.over {
		return
	}
	if p.paused <= p.w.now {
		p.slot.record = record{exists: true, readable: true, at: p.slot.local(p.w.now), judging: p.cache.Judging()}
	}
	p.w.after(recordEvery, p.record)
}

// local is what the slot's clock shows at a true moment.
func (s *slot) local(t time.Duration) time.Duration {
	return s.base + t + t/1_000_000*time.Duration(s.drift)
}

// true is the inverse of local.
func (s *slot) true(t time.Duration) time.Duration {
	t -= s.base
	return t - t/1_000_000*time.Duration(s.drift)
}

// process is one life of a sidecar: the real cache and follower, with this
// package in the place of the bus and the driver.
type process struct {
	w        *world
	slot     *slot
	id       string
	dead     bool
	paused   time.Duration // until then it takes no step
	link     *link
	cache    *cache.Cache
	follower *bus.Follower
	watch    *watch // the cache's and the checker's handler
	hesitate func() // if set, runs once when the cache reads its clock
	driver   *actor
	ended    bool            // its driver has
	running  int             // actors that work for its cache
	waiting  []*actor        // for any of them to be over
	loading  map[string]bool // keys that its cache loads from the origin
	inbox    []input

	due       time.Duration // of the next Recover; never = not set
	notBefore time.Duration
	retry     time.Duration
}

const never = time.Duration(1 << 62)

func (p *process) String() string { return p.id }

// start begins a new life in the slot.
func (w *world) start(s *slot) {
	s.lives++
	p := &process{w: w, slot: s, id: fmt.Sprintf("s%d.%d", s.number, s.lives), due: never, loading: map[string]bool{}}
	p.link = &link{p: p}
	p.watch = newWatch(p)
	clock := func() time.Duration { return s.local(w.now) }
	first, earlier := s.recall(clock())
	var err error
	p.cache, err = cache.New(cache.Config{
		Memory: memory, MaxValue: maxValue, Policies: policies, Bus: attachment{p}, Clock: p.clock,
		// On the real clock: it must never end here, where nothing waits for long.
		PublishTimeout: 20 * time.Second,
		Origins:        source{p}, Tiers: p, Go: p.background, Wait: p.wait, Hash: xxhash.Sum64String,
		FirstLife: first, Earlier: earlier, Metrics: metrics, Logger: hclog.NewNullLogger(),
	})
	if err == nil {
		p.follower, err = bus.NewFollower(bus.FollowerConfig{
			Subjects: subjects, Log: p.link, Handler: p.watch, Process: p.id,
			Follow: bus.FollowConfig{
				Window: window, History: policies.History(), Earlier: p.cache.Earlier, Clock: clock, PulseInterval: interval,
			},
			Monotonic: clock,
			// Calls end in virtual time.
			CallTimeout: time.Hour,
		})
	}
	if err != nil {
		panic(err) // only a fault of this package
	}
	s.process = p
	p.record()
	p.driver = w.spawn(p.drive)
	w.trace("%v: starts, first life %t", p, first)
}

// clock is the cache's. Half of a hesitation's answers are of before it.
func (p *process) clock() time.Duration {
	t := p.slot.local(p.w.now)
	if f := p.hesitate; f != nil {
		p.hesitate = nil
		if f(); p.w.chance(0.5) {
			t = p.slot.local(p.w.now)
		}
	}
	return t
}

// kill ends the process between two of its steps.
func (p *process) kill() {
	p.w.trace("%v: is killed", p)
	p.dead = true
	p.slot.process = nil
	p.driver.wake()
}

// pass gives way for d, and for as long as the process is paused. False says
// that the process is dead or the run over.
func (p *process) pass(a *actor, d time.Duration) bool {
	if d > 0 && !a.sleep(d) {
		return false
	}
	for p.paused > p.w.now && !p.dead {
		if !a.sleep(min(p.paused-p.w.now, 100*time.Millisecond)) { // a pause may be cut short
			return false
		}
	}
	return !p.dead && !p.w.over
}

// input is one thing that the driver is told.
type input struct {
	message   *bus.Message
	disturbed bool
	ack       *bus.Ack
	pulse     *bus.RolePulse
	mapped    *clockAnswer
}

type clockAnswer struct {
	process         string
	asked, answered time.Duration
	err             error
}

func (p *process) tell(i input) {
	p.inbox = append(p.inbox, i)
	p.driver.wake()
}

// drive does what bus.Drive does, in virtual time.
func (p *process) drive(a *actor) {
	for p.pass(a, 0) {
		for len(p.inbox) > 0 {
			p.receive()
			if len(p.inbox) > 0 {
				i := p.inbox[0]
				p.inbox = p.inbox[1:]
				p.take(i)
			}
		}
		p.plan()
		if p.w.now >= p.due {
			p.recover()
			continue
		}
		wait := min(p.due, p.w.now+time.Hour) - p.w.now
		wait = min(wait, p.beat())
		if len(p.inbox) == 0 && wait > 0 {
			a.wait(wait)
		}
	}
	p.ended = true
	p.close()
}

// receive takes the messages that lie ready, at once.
func (p *process) receive() {
	var ready []bus.Message
	for len(p.inbox) > 0 && p.inbox[0].message != nil {
		ready = append(ready, *p.inbox[0].message)
		p.inbox = p.inbox[1:]
	}
	p.follower.ReceiveAll(ready)
}

// take takes what is no message.
func (p *process) take(i input) {
	f := p.follower
	switch {
	case i.disturbed:
		f.Disturbed()
		p.retry, p.notBefore, p.due = 0, 0, never
	case i.ack != nil:
		f.Expect(*i.ack)
	case i.pulse != nil:
		_ = f.Pulsed(*i.pulse) // it is tried again
	case i.mapped != nil:
		f.Mapped(i.mapped.process, i.mapped.asked, i.mapped.answered, i.mapped.err)
	}
}

func (p *process) plan() {
	var wait time.Duration
	switch p.follower.Pending() {
	case bus.PendingNothing:
		p.due = never
		return
	case bus.PendingAcked:
		wait = 50 * time.Millisecond
	case bus.PendingGap:
		wait = 5 * time.Millisecond
	case bus.PendingNow:
	}
	p.due = min(p.due, max(p.w.now+wait, p.notBefore))
}

func (p *process) recover() {
	p.due = never
	err := p.follower.Recover(context.Background())
	if err == nil {
		p.retry, p.notBefore = 0, 0
		return
	}
	p.w.trace("%v: %v", p, err)
	p.retry = min(max(2*p.retry, 20*time.Millisecond), time.Second)
	p.notBefore = p.w.now + p.retry/2 + within(p.w.rng, 0, p.retry)
}

// beat begins the role pulse and the question for a clock that are due, and
// returns how long it is until the next.
func (p *process) beat() time.Duration {
	next := time.Hour
	if wait, ok := p.follower.PulseDue(); ok {
		if wait <= 0 {
			pulse := p.follower.TakePulse()
			p.w.spawn(func(*actor) {
				pulse = p.follower.PublishPulse(context.Background(), pulse)
				p.tell(input{pulse: &pulse})
			})
		} else {
			next = min(next, wait)
		}
	}
	if other, wait, ok := p.follower.PingDue(); ok {
		if wait <= 0 {
			answer := clockAnswer{process: other, asked: p.follower.TakePing()}
			p.w.spawn(func(a *actor) {
				answer.answered, answer.err = p.ping(a, other)
				p.tell(input{mapped: &answer})
			})
		} else {
			next = min(next, wait)
		}
	}
	return next + time.Microsecond // clocks drift: not a moment too early
}

// peer finds another process that can be reached.
func (p *process) peer(id string) *process {
	for _, s := range p.w.slots {
		if q := s.process; q != nil && q.id == id && !q.link.callsDown && !p.link.callsDown {
			return q
		}
	}
	return nil
}

// ping asks another process for its clock; ways there and back may differ much.
func (p *process) ping(a *actor, id string) (time.Duration, error) {
	ways := [2]time.Duration{}
	for i := range ways {
		ways[i] = within(p.w.rng, 50*time.Microsecond, time.Millisecond)
		if p.w.chance(0.1) {
			ways[i] = within(p.w.rng, 0, 400*time.Millisecond)
		}
	}
	q := p.peer(id)
	if q == nil || !p.pass(a, ways[0]) || q.dead {
		return 0, errAway
	}
	if q.paused > p.w.now && (q.paused-p.w.now > time.Second || !p.pass(a, q.paused-p.w.now)) {
		return 0, errAway
	}
	answered := q.follower.Clock()
	if !p.pass(a, ways[1]) || p.peer(id) == nil {
		return 0, errAway
	}
	return answered, nil
}

// attachment is the process's bus.Bus. Its calls take virtual time, and return
// when what they published is applied: then nothing in the cache waits.
type attachment struct{ p *process }

// publishTimeout is how long one publish is tried, in virtual time.
const publishTimeout = 1500 * time.Millisecond

// Publish implements bus.Bus.
func (b attachment) Publish(_ context.Context, namespace string, e bus.Event) (bus.Position, error) {
	p := b.p
	a := p.w.acting
	ev := a.event
	if ev == nil { // a version made known for a STRONG read (C12)
		kv := e.Keys[0]
		n := p.w.origin.commitOf(kv.Key, kv.Version, p.watch.sources[namespace])
		ev = p.w.newEvent(fmt.Sprintf("confirm %s %d", kv.Key, n), []write{p.w.origin.versionWrite(kv.Key, n)})
	}
	subject, err := subjects.For(namespace, e.Op)
	if err != nil {
		return bus.Position{}, err
	}
	data, err := bus.Encode(e)
	if err != nil {
		return bus.Position{}, err
	}
	at, err := p.append(a, subject, ev.id, data)
	if err != nil {
		return bus.Position{}, err
	}
	p.w.check.acked(ev)
	return at, nil
}

// append tries until a message is acknowledged and applied here.
func (p *process) append(a *actor, subject, id string, data []byte) (bus.Position, error) {
	deadline := p.w.now + publishTimeout
	for {
		seq, err := p.link.Append(context.Background(), subject, id, data)
		if err == nil {
			if e := p.w.byID[id]; e != nil {
				p.w.check.acked(e)
			}
			return p.follow(a, seq, id, deadline)
		}
		if p.w.now > deadline || !p.pass(a, within(p.w.rng, 5*time.Millisecond, 60*time.Millisecond)) {
			return bus.Position{}, fmt.Errorf("%w: %w", bus.ErrNotAcknowledged, err)
		}
	}
}

// follow waits until the message acknowledged at seq is applied.
func (p *process) follow(a *actor, seq uint64, id string, deadline time.Duration) (bus.Position, error) {
	applied := make(chan bus.Position, 1)
	p.tell(input{ack: &bus.Ack{Seq: seq, MsgID: id, Applied: applied}})
	var at bus.Position
	for {
		select {
		case at = <-applied:
			at.Seq = min(at.Seq, seq)
		default:
		}
		// The cache would wait on the real clock.
		if !at.IsZero() && p.cache.Applied().Satisfies(at) {
			return at, nil
		}
		if p.w.now > deadline || !p.pass(a, 2*time.Millisecond) {
			return bus.Position{}, bus.ErrNotAcknowledged
		}
	}
}

// Barrier implements bus.Bus: the pulser's pulse (B6), or else one of our own.
func (b attachment) Barrier(context.Context) (bus.Position, error) {
	p := b.p
	a := p.w.acting
	deadline := p.w.now + publishTimeout
	if q := p.peer(p.follower.Pulser()); q != nil && p.pass(a, within(p.w.rng, 50*time.Microsecond, time.Millisecond)) && q.paused <= p.w.now && !q.dead {
		if seq, id, err := q.pulse(); err == nil && p.peer(q.id) != nil && !p.dead {
			q.tell(input{ack: &bus.Ack{Seq: seq, MsgID: id}})
			return p.follow(a, seq, id, deadline)
		}
	}
	if p.dead || p.w.over {
		return bus.Position{}, errDead
	}
	seq, id, err := p.pulse()
	if err != nil {
		return bus.Position{}, fmt.Errorf("%w: %w", bus.ErrNotAcknowledged, err)
	}
	return p.follow(a, seq, id, deadline)
}

// pulse publishes a pulse without a role.
func (p *process) pulse() (seq uint64, id string, err error) {
	data, err := bus.Encode(p.follower.Pulse())
	if err != nil {
		return 0, "", err
	}
	id = fmt.Sprintf("barrier-%d", p.w.rng.Uint64())
	seq, err = p.link.Append(context.Background(), subjects.Pulse(), id, data)
	return seq, id, err
}

// Follow implements bus.Bus; drive does it here.
func (attachment) Follow(context.Context, bus.Handler, bus.FollowConfig) error {
	return errors.ErrUnsupported
}

// Status implements bus.Bus.
func (attachment) Status() bus.Status { return bus.Status{} }

// Close implements bus.Bus.
func (attachment) Close() error { return nil }
