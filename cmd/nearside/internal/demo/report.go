package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nearside-cache/nearside/api/resp"
)

// report is everything that is shown, at one moment.
type report struct {
	records  int
	elapsed  time.Duration
	duration time.Duration // of the load
	pods     []podReport
	writes   uint64
	lag      quantiles // from a commit until it was applied in every sidecar
	behind   quantiles // hits that were behind the origin: for how long
	old      uint64    // fills that came after their own invalidation
	kept     uint64    // of these, served when read right behind
	foreign  uint64    // values served that nobody wrote
	stale    uint64
	first    *verdict // the first stale read
}

// podReport is one sidecar's line.
type podReport struct {
	name             string
	reads, hits      uint64 // as its readers saw them
	stored, rejected int64  // fills, as the sidecar counts them
	appliedSeq       int64
}

// monitor asks the sidecars how they are, over their sockets.
type monitor struct {
	load    *load
	began   time.Time
	length  time.Duration
	clients []*resp.Client // by pod
}

func newMonitor(ctx context.Context, l *load, length time.Duration) (*monitor, error) {
	m := &monitor{load: l, began: time.Now(), length: length}
	for _, p := range l.fleet.pods {
		c, err := resp.Dial(ctx, p.socket, resp.ClientConfig{})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("monitor of %s: %w", p.name, err), m.Close())
		}
		m.clients = append(m.clients, c)
	}
	return m, nil
}

// Close ends the connections.
func (m *monitor) Close() error {
	var faults []error
	for _, c := range m.clients {
		faults = append(faults, c.Close())
	}
	return errors.Join(faults...)
}

// report is how everything is now.
func (m *monitor) report(ctx context.Context) (report, error) {
	l := m.load
	r := report{
		records: len(l.origin.rows),
		elapsed: min(time.Since(m.began), m.length), duration: m.length,
		writes: l.writes.Load(), lag: l.flights.lag.now(), behind: l.behind.now(),
		old: l.old.Load(), kept: l.kept.Load(), foreign: l.foreign.Load(),
	}
	r.stale, r.first = l.oracle.staleReads()
	for i, p := range l.fleet.pods {
		status, err := m.clients[i].Do(ctx, "NEAR.STATUS")
		if err != nil {
			return report{}, fmt.Errorf("monitor of %s: %w", p.name, err)
		}
		line := podReport{name: p.name, reads: l.tallies[p].reads.Load(), hits: l.tallies[p].hits.Load()}
		fields := map[string]*int64{"fills_stored": &line.stored, "fills_rejected": &line.rejected, "applied_seq": &line.appliedSeq}
		for e := status.Elems; len(e) > 1; e = e[2:] {
			if field := fields[e[0].Str]; field != nil {
				*field = e[1].Int
				delete(fields, e[0].Str)
			}
		}
		if len(fields) > 0 {
			return report{}, fmt.Errorf("monitor of %s: NEAR.STATUS lacks %d of the fields that are shown", p.name, len(fields))
		}
		r.pods = append(r.pods, line)
	}
	return r, nil
}

// total is the sum of the sidecars' lines.
func (r report) total() podReport {
	t := podReport{name: "all"}
	for _, p := range r.pods {
		t.reads += p.reads
		t.hits += p.hits
		t.stored += p.stored
		t.rejected += p.rejected
	}
	return t
}

// Outcomes of a run that make the command fail.
var (
	errStale      = errors.New("a sidecar broke its promise")
	errUnmeasured = errors.New("nothing was measured")
)

// verdict says whether the run has proven what it set out to.
func (r report) verdict() error {
	switch t := r.total(); {
	case r.stale > 0:
		return fmt.Errorf("%w: %d stale reads; the first: %v", errStale, r.stale, r.first)
	case r.kept > 0:
		return fmt.Errorf("%w: %d fills were kept that came after their own invalidation", errStale, r.kept)
	case r.foreign > 0:
		return fmt.Errorf("%w: %d values were served that the origin never held", errStale, r.foreign)
	case r.writes == 0 || r.lag.count == 0:
		return fmt.Errorf("%w: no write was invalidated in %v; give it a longer --duration", errUnmeasured, r.elapsed)
	case t.hits == 0:
		return fmt.Errorf("%w: no read hit in %v; give it a longer --duration", errUnmeasured, r.elapsed)
	}
	return nil
}
