package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	// windowMax is how many messages a window covers at most (B3a): of more, the
	// newest.
	windowMax = 4096
	// windowLag is how many messages of a window, that a replica lacks, are read
	// from the leader, one by one.
	windowLag = 256
	// pingPause is between two questions for a clock.
	pingPause = 250 * time.Millisecond
	// pingSlow is from when on an answer ties the clocks too loosely to be kept.
	pingSlow = 100 * time.Millisecond
	// forkMax bounds what a body may say of forks, so that more can follow.
	forkMax = 1 << 62
)

// ForkOf returns the fork part of the epoch that m proves, 0 for most messages.
// A fork event begins an epoch above that of its publisher, so that a rollback
// beyond an earlier fork event does not make positions go backwards (ADR 0004).
func ForkOf(s Subjects, m Message) uint64 {
	var kind Kind
	switch m.Subject {
	case s.Pulse():
		kind = KindPulse
	case s.Fork():
		kind = KindFork
	default:
		return 0
	}
	e, err := Decode(kind, m.Data)
	known := e.Pulse.Fork
	if err != nil || known > forkMax {
		known = 0
	}
	if kind == KindFork {
		return max(m.Seq, known+1) // the former whatever the body says
	}
	return known
}

// Pulse returns a pulse without a role, stamped now (B4): one that starts,
// proves or is a barrier. Any goroutine may call it.
func (f *Follower) Pulse() Event {
	return Event{Op: OpPulse, Pulse: Pulse{
		Process: f.config.Process, Sent: f.config.Follow.Clock(), Fork: f.fork.Load(),
	}}
}

// Clock reads the clock of the pulses. Any goroutine may call it.
func (f *Follower) Clock() time.Duration { return f.config.Follow.Clock() }

// Pulser returns the process that holds the role, when that is another one and
// known. Any goroutine may call it.
func (f *Follower) Pulser() string {
	if p := f.peer.Load(); p != nil && *p != f.config.Process {
		return *p
	}
	return ""
}

// HoldsRole reports whether this process is the pulser. Any goroutine may call
// it.
func (f *Follower) HoldsRole() bool {
	p := f.peer.Load()
	return p != nil && *p == f.config.Process && *p != ""
}

// hearPulse takes the pulse applied at seq and returns how fresh the handler is
// with it (B5).
func (f *Follower) hearPulse(p Pulse, seq uint64) (fresh time.Duration) {
	now := f.Clock()
	if p.Role && p.Process != "" {
		f.hearRole(p.Process, seq, now)
	}
	switch {
	case !f.agrees(p.Window, seq):
		return 0 // what was applied below it may be of another history
	case p.Process == "":
		return 0
	case p.Process != f.config.Process:
		return f.clocks.bound(p.Process, p.Sent, now)
	case p.Sent < 0 || p.Sent > now:
		return 0 // not ours, whatever it says
	default:
		return p.Sent
	}
}

func (f *Follower) hearRole(process string, seq uint64, now time.Duration) {
	if p := f.peer.Load(); p == nil || *p != process {
		kept := strings.Clone(process) // it is a part of a message
		f.peer.Store(&kept)
	}
	f.pulser.hear(*f.peer.Load(), seq, now)
	f.replan++
	if process != f.config.Process {
		f.retry = RolePulse{}
	}
}

// agrees holds what was applied against the window that the pulse at seq names
// (B3a). Log matching becomes due where they differ.
func (f *Follower) agrees(w Window, seq uint64) bool {
	if w.From >= w.To || w.To >= seq || w.To-w.From > windowMax {
		return true
	}
	f.windowed = max(f.windowed, w.To)
	digest, covered := f.ring.fold(w.From, w.To)
	switch {
	case !covered:
		return true
	case digest != w.Digest:
		f.suspectAt(w.From + 1)
		if f.mismatch != (Window{}) {
			w.From, w.To = min(w.From, f.mismatch.From), max(w.To, f.mismatch.To)
		}
		f.mismatch = w
		return false
	case w.From <= f.matched:
		f.matched = max(f.matched, w.To)
	default:
		f.matchDue = true // nobody vouches for what lies between
	}
	return true
}

// beginPulses takes from the history who holds the role, unless it is as before,
// and up to where windows were named.
func (f *Follower) beginPulses(r Resume) {
	now := f.Clock()
	f.windowed, f.retry = r.HistoryFrom, RolePulse{}
	f.hearRole(f.pulser.holder, r.Position.Seq, now)
	for _, d := range r.History {
		if p := d.Event.Pulse; d.Event.Op == OpPulse && p.Role && p.Process != "" {
			f.hearRole(p.Process, d.Position.Seq, now)
			if p.Window.To != 0 && p.Window.To < d.Position.Seq {
				f.windowed = p.Window.To
			}
		}
	}
}

// PulseDue returns how long it is until a role pulse is due (B4); false says
// that none is as things are.
func (f *Follower) PulseDue() (time.Duration, bool) {
	at, ok := f.pulser.due()
	if !f.started || !ok {
		return 0, false
	}
	return at - f.Clock(), true
}

// RolePulse is a pulse to be published with PublishPulse.
type RolePulse struct {
	life     uint64 // doubts so far: of another life it means nothing here
	from, to uint64 // the window to be read back
	fork     uint64
	id       string
	tried    bool          // it is a retry
	sent     time.Duration // read before the first try
	seq      uint64        // where it was acknowledged
	err      error         // why it was not
	window   error         // why it names no window
}

// Err returns why it was not acknowledged, nil if it was.
func (p RolePulse) Err() error { return p.err }

// TakePulse begins a role pulse that PulseDue says is due. It must be published
// and given back. A retry keeps its id and the moment it was sent (B4), and names
// no window: what was read back before the first try need not be what the log
// holds when it is stored.
func (f *Follower) TakePulse() RolePulse {
	f.pulser.take(f.Clock())
	f.replan++
	if f.retry.tried {
		return f.retry
	}
	return RolePulse{life: f.doubts.Load(), from: f.windowed, to: f.applied, fork: f.epoch.Fork, id: rand.Text()}
}

// PublishPulse reads back the pulse's window and tries once to publish it. It
// may run beside all other methods.
func (f *Follower) PublishPulse(ctx context.Context, p RolePulse) RolePulse {
	var window Window
	if !p.tried {
		// Slow answers must not silence the pulser.
		read, cancel := context.WithTimeout(ctx, f.pulser.interval)
		w, err := f.readWindow(read, p.from, p.to)
		cancel()
		if window = w; err != nil {
			p.window = fmt.Errorf("read back the window of a pulse: %w", err)
		}
		// The clock is read last, before the publish call (B4).
		p.tried, p.sent = true, f.Clock()
	}
	body, err := Encode(Event{Op: OpPulse, Pulse: Pulse{
		Process: f.config.Process, Sent: p.sent, Role: true, Fork: p.fork, Window: window,
	}})
	if err != nil {
		p.err = err
		return p
	}
	p.seq, p.err = f.log.Append(ctx, f.config.Subjects.Pulse(), p.id, body)
	return p
}

// Pulsed takes back a role pulse from PublishPulse and returns what failed, if
// anything did; the next attempt is then put off.
func (f *Follower) Pulsed(p RolePulse) error {
	f.pulser.done(p.err == nil, f.Clock())
	f.replan++
	if f.started && p.life == f.doubts.Load() {
		f.retry = RolePulse{}
		if p.err != nil {
			f.retry = RolePulse{life: p.life, fork: p.fork, id: p.id, tried: true, sent: p.sent}
		} else {
			f.pulses.Add(1)
			f.Expect(Ack{Seq: p.seq, MsgID: p.id})
		}
		if errors.Is(p.window, ErrNotFound) {
			f.matchDue = true // the leader lacks what was applied here
		}
	}
	if p.err != nil {
		return fmt.Errorf("publish a role pulse: %w", p.err)
	}
	return p.window
}

// readWindow reads back the messages with from < seq <= to: from any replica,
// and what that lacks from the leader. It names the newest part without a hole,
// and proves by the last message that the leader holds what a replica answered.
func (f *Follower) readWindow(ctx context.Context, from, to uint64) (Window, error) {
	if to-min(from, to) > windowMax {
		from = to - windowMax
	}
	var read fold
	var last Message
	for next := from + 1; next <= to; {
		messages, err := f.log.Range(ctx, next, int(min(to-next+1, batch)))
		if err != nil {
			return Window{}, err
		}
		begun := next
		for _, m := range messages {
			if m.Seq < next || m.Seq > to {
				break
			}
			if m.Seq > next { // trimmed, or a hole: begin above it
				from, read = m.Seq-1, fold{}
			}
			read.add(m.Digest())
			last, next = m, m.Seq+1
		}
		if next == begun {
			break // it lags
		}
	}
	return f.endWindow(ctx, from, to, last, read)
}

// endWindow reads from the leader the last message that a replica answered, and
// what is missing up to to, some of it where that is much.
func (f *Follower) endWindow(ctx context.Context, from, to uint64, last Message, read fold) (Window, error) {
	if last.Seq > from {
		leaders, err := f.log.At(ctx, last.Seq)
		if err != nil {
			return Window{}, err
		}
		if leaders.Digest() != last.Digest() {
			return Window{}, fmt.Errorf("%w: a replica holds another message at seq %d than the leader", ErrBehind, last.Seq)
		}
	}
	w := Window{From: from, To: max(last.Seq, from)}
	for to = min(to, w.To+windowLag); w.To < to; w.To++ {
		m, err := f.log.At(ctx, w.To+1)
		if err != nil {
			return Window{}, err
		}
		read.add(m.Digest())
	}
	if w.To == w.From {
		return Window{}, nil
	}
	w.Digest = read.sum()
	return w, nil
}

// PingDue returns which process's clock should be asked for, and how soon (B5);
// false says that none should.
func (f *Follower) PingDue() (process string, wait time.Duration, ok bool) {
	process = f.Pulser()
	if !f.started || f.pinging || process == "" {
		return "", 0, false
	}
	spread := time.Duration(hashOf(f.config.Process, 0) % uint64(mappingRenewal/3))
	at := f.clocks.due(process, pingSlow, pingPause, spread)
	return process, max(at, f.pingAfter) - f.Clock(), true
}

// TakePing begins a question that PingDue says is due and returns the moment of
// asking. Its answer must be given to Mapped.
func (f *Follower) TakePing() (asked time.Duration) {
	f.pinging = true
	f.replan++
	return f.Clock()
}

// Mapped takes what process's clock showed after asked (B5), or why it did not
// answer.
func (f *Follower) Mapped(process string, asked, answered time.Duration, err error) {
	now := f.Clock()
	f.pinging, f.pingAfter = false, now+pingPause
	f.replan++
	if err == nil {
		f.clocks.learn(process, asked, answered, now)
	}
}
