package bus

import (
	"encoding/binary"
	"time"

	"github.com/cespare/xxhash/v2"
)

// DefaultPulseInterval is how often the pulser publishes.
const DefaultPulseInterval = 250 * time.Millisecond

// pulser decides when this process publishes a role pulse (B4). There is no
// election: the role belongs to the publisher of the last role pulse in stream
// order, so whoever applies the stream knows it; others step in after a silence.
//
// Invariant: at most one attempt is under way, and attempts are an interval
// apart.
type pulser struct {
	self     string
	interval time.Duration // not positive: never takes the role

	holder    string        // publisher of the last role pulse applied
	heard     time.Duration // when it was applied here
	patience  time.Duration // how long after it we step in, unless we hold the role
	notBefore time.Duration // of the next attempt
	taken     time.Duration // when the last attempt began
	busy      bool          // an attempt is under way
}

// hear takes a role pulse applied, or at the start (seq that of the position)
// the newest one in the history, whose publisher may be unknown.
func (p *pulser) hear(process string, seq uint64, now time.Duration) {
	p.holder, p.heard = process, now
	p.patience = 2*p.interval + p.interval/2 + p.jitter(seq)
	if process == p.self {
		// The interval counts from the attempt, but an attempt that was long
		// under way gives the pulses of others, which waited with it, a moment
		// to be applied first.
		p.heard = max(p.taken, now-p.interval/2)
	}
}

// due returns when the next attempt is to begin; false when none is.
func (p *pulser) due() (time.Duration, bool) {
	if p.interval <= 0 || p.busy || p.self == "" {
		return 0, false
	}
	wait := p.patience
	if p.holder == p.self {
		wait = p.interval
	}
	return max(p.heard+wait, p.notBefore), true
}

// take begins an attempt.
func (p *pulser) take(now time.Duration) {
	p.busy, p.taken, p.notBefore = true, now, now+p.interval
}

// done ends it. An acknowledgement may come before the pulses, our own and those
// of others, are applied. After a failure the next attempt is put off at random,
// so that a fleet that was cut off together does not come back in step.
func (p *pulser) done(ok bool, now time.Duration) {
	p.busy = false
	if !ok {
		p.notBefore = now + p.interval + p.jitter(uint64(now))
		return
	}
	p.notBefore = max(p.notBefore, now+p.interval/2)
}

// jitter is less than an interval, and different for each process and salt. A
// hash makes it reproducible.
func (p *pulser) jitter(salt uint64) time.Duration {
	if p.interval <= 0 {
		return 0
	}
	return time.Duration(hashOf(p.self, salt) % uint64(p.interval))
}

func hashOf(text string, salt uint64) uint64 {
	return xxhash.Sum64(binary.LittleEndian.AppendUint64([]byte(text), salt))
}
