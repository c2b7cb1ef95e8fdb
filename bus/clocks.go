package bus

import "time"

// Bounds of the mapping of clocks (B5).
const (
	// driftPart is 1/ρ: between two moments, two clocks count spans that differ
	// by at most one part in so many, 200 ppm.
	driftPart   = 5000
	mappingLife = 60 * time.Second
	// mappingRenewal is the age at which a mapping is asked for anew.
	mappingRenewal = 30 * time.Second
	// mappingsMax bounds how many processes are known at a time. Only that of
	// the pulser is needed, and pulsers change rarely.
	mappingsMax = 16
	// pulseAgeMax is the age from which on a pulse is no news at all.
	pulseAgeMax = time.Hour
)

// mapping ties a moment of another process's clock to our own: the other clock
// showed answered at or after our own showed asked.
type mapping struct {
	asked    time.Duration // ours, read before the question
	answered time.Duration // theirs, read for the answer
	took     time.Duration // until the answer came: how far the tie may be off
}

// clocks maps the clocks of other processes to our own. All moments of ours are
// passed in.
type clocks struct{ known map[string]mapping }

// learn takes the answer to a question. A mapping that may be further off than
// the present one replaces it only when that is due for renewal.
func (c *clocks) learn(process string, asked, answered, now time.Duration) {
	if answered < 0 || asked > now {
		return
	}
	m := mapping{asked: asked, answered: answered, took: now - asked}
	old, ok := c.known[process]
	if ok && now-old.asked < mappingRenewal && m.took > old.took {
		return
	}
	if c.known == nil {
		c.known = make(map[string]mapping)
	}
	if !ok && len(c.known) == mappingsMax {
		c.forgetOldest()
	}
	c.known[process] = m
}

func (c *clocks) forgetOldest() {
	oldest := ""
	for process, m := range c.known {
		if oldest == "" || m.asked < c.known[oldest].asked {
			oldest = process
		}
	}
	delete(c.known, oldest)
}

// bound returns a moment of our clock not after the one at which process's
// clock showed sent, or 0 when there is none to be had. now is the moment of
// receipt.
func (c *clocks) bound(process string, sent, now time.Duration) time.Duration {
	m, ok := c.known[process]
	if !ok || sent < 0 {
		return 0
	}
	if now-m.asked > mappingLife {
		delete(c.known, process)
		return 0
	}
	at, ahead := m.asked, sent-m.answered // neither is negative: no overflow
	switch {
	case ahead < -pulseAgeMax:
		return 0
	case ahead < 0:
		at += ahead - driftOf(-ahead)
	case ahead > 2*mappingLife: // further than any drift explains
		at = now + 1
	default:
		at += ahead - driftOf(ahead)
	}
	if at > now {
		// It was sent before it was received: this is no clock that we know.
		delete(c.known, process)
		return 0
	}
	return max(at, 0)
}

// driftOf is by how much the clocks may disagree on a span, rounded up.
func driftOf(span time.Duration) time.Duration { return span/driftPart + 1 }

// due returns when process should be asked: at once when there is no mapping.
func (c *clocks) due(process string, slow, pause, spread time.Duration) time.Duration {
	m, ok := c.known[process]
	switch {
	case !ok:
		return 0
	case m.took > slow:
		return m.asked + pause
	default:
		return m.asked + mappingRenewal + spread
	}
}
