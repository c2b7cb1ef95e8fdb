package nemesis

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// counts counts by name. The zero value is ready; it is safe for concurrent use.
type counts struct {
	mu sync.Mutex
	m  map[string]int
}

func (c *counts) add(name string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = make(map[string]int)
	}
	c.m[name] += n
}

func (c *counts) all() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.m)
}

// set is what goes on now.
type set struct {
	mu    sync.Mutex
	names []string
}

func (s *set) add(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = append(s.names, name)
}

func (s *set) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.names, name); i >= 0 {
		s.names = slices.Delete(s.names, i, i+1)
	}
}

func (s *set) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.names, " ")
}

// unknown are the writes that nobody acknowledged.
type unknown struct {
	mu     sync.Mutex
	writes []write
}

func (u *unknown) add(w write) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.writes = append(u.writes, w)
}

func (u *unknown) list() []write {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.writes)
}

// Report is what came of a run.
type Report struct {
	Seed       uint64
	Command    string         // that runs the same again
	Counts     map[string]int // of reads by mode and status, writes, faults
	Operations int            // of STRONG reads and writes that porcupine judged
	Segments   int            // that these were cut into
	Undecided  int            // segments that porcupine did not decide in time
	Fresh      time.Duration  // from healing until every sidecar served fresh reads
	Healed     time.Duration  // from the last write until every sidecar had applied everything
	Entries    int            // compared with the origin at the end
	Violations map[string]int // by invariant
	Evidence   []string       // of the first violations
}

func (r *run) report() Report {
	r.judge.mu.Lock()
	defer r.judge.mu.Unlock()
	faults := cmp.Or(r.Faults, "all")
	return Report{
		Seed:    r.Seed,
		Command: fmt.Sprintf("make nemesis SEED=%d FAULTS=%s DURATION=%v SERVERS=%d", r.Seed, faults, r.Duration, r.Servers),
		Counts:  r.counts.all(), Operations: r.judge.segments.operations, Segments: r.judge.segments.segments,
		Undecided: r.judge.segments.undecided, Fresh: r.fresher, Healed: r.healed, Entries: r.entries,
		Violations: maps.Clone(r.judge.violations), Evidence: slices.Clone(r.judge.evidence),
	}
}

// Print writes the report for people.
func (r Report) Print(w io.Writer) {
	names := slices.Sorted(maps.Keys(r.Counts))
	for _, n := range names {
		fmt.Fprintf(w, "%10d  %s\n", r.Counts[n], n)
	}
	fmt.Fprintf(w, "%10d  STRONG reads and writes linearized by porcupine, in %d segments, %d undecided\n", r.Operations, r.Segments, r.Undecided)
	fmt.Fprintf(w, "%10d  entries compared with the origin at the end; fresh %v after all was healed, caught up %v after the last write\n",
		r.Entries, r.Fresh.Round(time.Millisecond), r.Healed.Round(time.Millisecond))
	total := 0
	for _, n := range r.Violations {
		total += n
	}
	fmt.Fprintf(w, "%10d  violations", total)
	for _, i := range slices.Sorted(maps.Keys(r.Violations)) {
		fmt.Fprintf(w, "  %s: %d", i, r.Violations[i])
	}
	fmt.Fprintln(w)
	for _, e := range r.Evidence {
		fmt.Fprintln(w, "  "+e)
	}
	fmt.Fprintln(w, "again: "+r.Command)
}

const progressEvery = 5 * time.Second

// progress prints a line every few seconds until ctx ends.
func (r *run) progress(ctx context.Context) {
	for wait(progressEvery, ctx.Done()) {
		reads, writes, faults := 0, 0, 0
		for name, n := range r.counts.all() {
			switch {
			case name == "writes":
				writes = n
			case strings.HasPrefix(name, "fault "):
				faults += n
			case strings.HasSuffix(name, "HIT"), strings.HasSuffix(name, "MISS"), strings.HasPrefix(name, "GET "):
				reads += n
			}
		}
		r.judge.mu.Lock()
		broken := len(r.judge.evidence)
		r.judge.mu.Unlock()
		fmt.Fprintf(r.Progress, "%6.0fs  %d reads  %d writes  %d faults (%v)  %d violations\n",
			r.judge.clock().Seconds(), reads, writes, faults, &r.now, broken)
	}
}
