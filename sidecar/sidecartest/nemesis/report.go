package nemesis

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"runtime"
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

// set is the faults that are under way.
type set struct {
	mu    sync.Mutex
	names []string
	harm  int // how many of them harm servers, sidecars, or what is between
}

// add takes one that begins; harm says that it harms servers or sidecars.
func (s *set) add(name string, harm bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = append(s.names, name)
	if harm {
		s.harm++
	}
}

// harms returns how many are under way that harm servers or sidecars.
func (s *set) harms() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.harm
}

func (s *set) remove(name string, harm bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if harm {
		s.harm--
	}
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
	Command    string          // that runs the same again
	Counts     map[string]int  // of reads by mode and status, writes, faults
	Operations int             // of STRONG reads and writes that porcupine judged
	Segments   int             // that these were cut into
	Longest    int             // operations of one segment
	Undecided  int             // segments that porcupine did not decide in time
	Recoveries []time.Duration // from the end of a fault until a sidecar was live, sorted
	Fresh      time.Duration   // from healing until every sidecar served fresh reads
	Healed     time.Duration   // from the last write until every sidecar had applied everything
	Entries    int             // compared with the origin at the end
	Violations map[string]int  // by invariant
	Evidence   []string        // of the first violations
}

func (r *run) report() Report {
	r.judge.mu.Lock()
	defer r.judge.mu.Unlock()
	faults, s := cmp.Or(r.Faults, "all"), r.judge.segments
	return Report{
		Seed:    r.Seed,
		Command: fmt.Sprintf("make nemesis SEED=%d FAULTS=%s DURATION=%v SERVERS=%d", r.Seed, faults, r.Duration, r.Servers),
		Counts:  r.counts.all(), Operations: s.operations, Segments: s.segments, Longest: s.longest, Undecided: s.undecided,
		Recoveries: r.recoveries.sorted(), Fresh: r.fresher, Healed: r.healed, Entries: r.entries,
		Violations: maps.Clone(r.judge.violations), Evidence: slices.Clone(r.judge.evidence),
	}
}

// Harmless returns the faults that came at least often times, and left no sign
// though they count their signs.
func (r Report) Harmless(often int) (names []string) {
	for name, n := range r.Counts {
		fault, isSign := strings.CutSuffix(name, bitten)
		if isSign && n == 0 && r.Counts[fault] >= often {
			names = append(names, fault)
		}
	}
	return names
}

// Names of what a run is to show, and how its counts are called.
const (
	loadedAnswers     = "origin: 200"
	confirmedAnswers  = "origin: 304"
	absentAnswers     = "origin: 404"
	olderAnswers      = "origin: answers older than what was asked for"
	sharedAnswers     = "answers from the shared tier"
	whileRevalidating = "answers past their soft TTL, by stale-while-revalidate"
	whileFailing      = "answers past their soft TTL, by stale-if-error"
	negativeAnswers   = "answers that there is no value"
	rejectedFills     = "FILL rejected"
	answersByL0       = "answers by an L0"
)

// Unseen returns what did not happen in the run, and so was not tried by it.
func (r Report) Unseen() (names []string) {
	for _, name := range []string{
		loadedAnswers, confirmedAnswers, absentAnswers, olderAnswers, sharedAnswers,
		whileRevalidating, whileFailing, negativeAnswers, rejectedFills, answersByL0,
	} {
		if r.Counts[name] == 0 {
			names = append(names, name)
		}
	}
	return names
}

// totals sums up counts.
func totals(counts map[string]int) (reads, writes, faults int) {
	for name, n := range counts {
		first, last := name[:strings.IndexByte(name+" ", ' ')], name[strings.LastIndexByte(name, ' ')+1:]
		switch {
		case first == "write" && !strings.Contains(name, ":"):
			writes += n
		case first == "fault" && !strings.Contains(name, ":"):
			faults += n
		case slices.Contains([]string{"HIT", "STALE", "NEGATIVE", "MISS", "REGULAR", "BEHIND", "BYPASS", "hit", "miss"}, last):
			reads += n
		}
	}
	return reads, writes, faults
}

// Print writes the report for people.
func (r Report) Print(w io.Writer) {
	for _, n := range slices.Sorted(maps.Keys(r.Counts)) {
		fmt.Fprintf(w, "%10d  %s\n", r.Counts[n], n)
	}
	reads, writes, faults := totals(r.Counts)
	fmt.Fprintf(w, "%10d  reads answered, %d writes acknowledged, %d faults\n", reads, writes, faults)
	fmt.Fprintf(w, "%10d  STRONG reads and writes linearized by porcupine, in %d segments of up to %d, %d undecided\n",
		r.Operations, r.Segments, r.Longest, r.Undecided)
	if n := len(r.Recoveries); n > 0 {
		fmt.Fprintf(w, "%10d  times a sidecar was looked at after a lone fault until it was live: median %v, 95%% within %v, all within %v\n", n,
			r.Recoveries[n/2].Round(time.Millisecond), r.Recoveries[n*95/100].Round(time.Millisecond), r.Recoveries[n-1].Round(time.Millisecond))
	}
	fmt.Fprintf(w, "%10d  entries compared with the origin at the end; fresh %v after all was healed, caught up %v after the last write\n",
		r.Entries, r.Fresh.Round(time.Millisecond), r.Healed.Round(time.Millisecond))
	for _, name := range r.Unseen() {
		fmt.Fprintf(w, "         0  %s: NOT SEEN in this run\n", name)
	}
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

const progressEvery = 10 * time.Second

// progress prints a line every few seconds until ctx ends, and what was found since
// the last one.
func (r *run) progress(ctx context.Context) {
	printed := 0
	for wait(progressEvery, ctx.Done()) {
		reads, writes, faults := totals(r.counts.all())
		var memory runtime.MemStats
		runtime.ReadMemStats(&memory)
		r.judge.mu.Lock()
		evidence, linearized := slices.Clone(r.judge.evidence), r.judge.segments.operations
		broken := 0
		for _, n := range r.judge.violations {
			broken += n
		}
		r.judge.mu.Unlock()
		for ; printed < len(evidence); printed++ {
			fmt.Fprintln(r.Progress, evidence[printed])
		}
		fmt.Fprintf(r.Progress, "%6.0fs  %d reads  %d writes  %d linearized  %d faults (%v)  %d MiB  %d violations\n",
			r.judge.clock().Seconds(), reads, writes, linearized, faults, &r.now, memory.HeapAlloc>>20, broken)
	}
}
