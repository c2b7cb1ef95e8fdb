package coherence

import (
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// Judging is what the next start, of this life or of a later one, must know to
// judge plain SETs from its first moment (C3, ADR 0002, ADR 0008).
type Judging struct {
	Epoch      bus.Epoch     // followed; zero = none yet
	Seq        uint64        // applied two windows ago, or where what is known of the stream begins
	BlindUntil time.Duration // the moment up to which plain SETs cannot be judged
}

// Judging tells how plain SETs are judged. lag is the most by which a source that
// readers load from may lag.
func (c *Core) Judging(lag time.Duration) Judging {
	if len(c.marks.list) == 0 {
		return Judging{}
	}
	j := Judging{Epoch: c.applied.Epoch, Seq: c.marks.list[0].seq}
	if lag > 0 || c.birth <= c.knownFrom {
		j.BlindUntil = max(0, c.knownFrom+c.cfg.Window+lag)
	}
	return j
}

// Blind is for how long from now no plain SET can be judged where no source lags.
func (c *Core) Blind(now time.Duration) time.Duration {
	if c.birth > c.knownFrom {
		return 0
	}
	return max(0, c.knownFrom+c.cfg.Window-now)
}

// marks remember what was applied when by the sidecar's own clock, as far back as
// two windows: the stream's clock, by which a start reads history back, may jump.
type marks struct {
	span  time.Duration
	epoch bus.Epoch // at the last resume
	list  []mark    // oldest first; the first one is older than span, or all there is
}

type mark struct {
	at  time.Duration
	seq uint64
}

// marksPerSpan is how many marks two windows have.
const marksPerSpan = 8

func (m *marks) note(now time.Duration, seq uint64) {
	if last := len(m.list) - 1; last < 0 || now-m.list[last].at < m.span/marksPerSpan {
		return
	}
	m.list = append(m.list, mark{now, seq})
	for m.list[1].at <= now-m.span {
		m.list = m.list[1:]
	}
}

// resume begins anew where the stream is another one, or may have lost what was
// marked.
func (m *marks) resume(r bus.Resume, now time.Duration) {
	if len(m.list) == 0 || m.epoch != r.Position.Epoch {
		m.epoch, m.list = r.Position.Epoch, []mark{{now - m.span, r.HistoryFrom}}
	}
	m.note(now, r.Position.Seq)
}
