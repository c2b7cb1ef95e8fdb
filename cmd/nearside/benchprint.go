package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nearside-cache/nearside/cmd/nearside/internal/bench"
)

// measurement is what a benchmark prints. With -o json it is one object, whose
// members docs/benchmarks.md describes; they are append-only.
type measurement struct {
	Schema   int           `json:"schema"`
	Command  string        `json:"command"`
	Servers  []serverInfo  `json:"servers"`
	Machine  bench.Machine `json:"machine"`
	Nearside string        `json:"nearside"` // version of this binary
	Load     loadFigures   `json:"load"`

	Interrupted bool `json:"interrupted"`
	// GeneratorCores is how many processors this process kept busy.
	GeneratorCores float64        `json:"generator_cores"`
	FirstError     string         `json:"first_error,omitempty"`
	Results        []bench.Result `json:"results"`
	Trace          *traceFigures  `json:"trace,omitempty"`
}

// schema is the version of a measurement's members.
const schema = 1

// loadFigures are the flags that decide what was asked.
type loadFigures struct {
	Connections     int     `json:"connections,omitempty"`
	Pipeline        int     `json:"pipeline,omitempty"`
	Size            int     `json:"size,omitempty"`
	Keys            uint64  `json:"keys,omitempty"`
	Zipf            float64 `json:"zipf,omitempty"`
	Reads           float64 `json:"reads,omitempty"`
	Rate            float64 `json:"rate,omitempty"`
	WarmupSeconds   float64 `json:"warmup_seconds,omitempty"`
	DurationSeconds float64 `json:"duration_seconds,omitempty"`
	Invalidation    string  `json:"invalidation,omitempty"`
	Trace           string  `json:"trace,omitempty"`
}

// traceFigures are what a replay tells.
type traceFigures struct {
	HitRatio float64 `json:"hit_ratio"`
	// BestHitRatio is that of a cache that never drops anything.
	BestHitRatio float64 `json:"best_hit_ratio"`
	DistinctKeys uint64  `json:"distinct_keys"`
}

func newMeasurement(command string, load loadFigures, servers ...serverInfo) *measurement {
	return &measurement{
		Schema: schema, Command: command, Servers: servers, Load: load,
		Machine: bench.ThisMachine(), Nearside: readBuild().version, Results: []bench.Result{},
	}
}

// span notes how the run went.
func (m *measurement) span(s bench.Span) {
	m.Interrupted = s.Interrupted
	m.GeneratorCores = float64(int(s.Cores*100+0.5)) / 100
}

// errNothing says that there is nothing to print.
var errNothing = errors.New("interrupted before anything was measured")

// end prints what was measured and returns the error that the command ends with:
// what broke, or else what the answers tell. first is the first that was an error.
func (m *measurement) end(w io.Writer, o output, broke, first error) error {
	if len(m.Results) == 0 {
		if broke == nil {
			broke = errNothing
		}
		return broke
	}
	if broke == nil {
		broke = m.outcome(first)
	}
	return errors.Join(m.print(w, o), broke)
}

// outcome is what the answers tell.
func (m *measurement) outcome(first error) error {
	var all bench.Counts
	for _, r := range m.Results {
		all.Answered += r.Answered
		all.Errors += r.Errors
		all.Unanswered += r.Unanswered
	}
	switch {
	case all.Errors > 0 && first != nil:
		return fmt.Errorf("%d of %d requests were answered with an error, the first: %w", all.Errors, all.Answered, first)
	case all.Answered == 0 && all.Unanswered > 0 && m.Load.Rate == 0:
		return &codeError{codeUnreachable, fmt.Errorf("%d requests were sent, and none was answered", all.Unanswered)}
	}
	return nil
}

// print prints the measurement.
func (m *measurement) print(w io.Writer, o output) error {
	if o.isJSON() {
		return json.NewEncoder(w).Encode(m)
	}
	var b strings.Builder
	for _, s := range m.Servers {
		fmt.Fprintln(&b, strings.TrimSpace(fmt.Sprintf("%s  %s %s", printable(s.Address), printable0(s.Name), printable0(s.Version))))
	}
	fmt.Fprintf(&b, "%s\n%s\n\n", m.Load, m.describeMachine())
	m.table(&b)
	m.remarks(&b)
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// printable0 is printable, but for nothing.
func printable0(text string) string {
	if text == "" {
		return ""
	}
	return printable(text)
}

func (m *measurement) describeMachine() string {
	parts := []string{fmt.Sprintf("%d processors", m.Machine.CPUs)}
	for _, part := range []string{m.Machine.CPU, m.Machine.Kernel, m.Machine.Platform, m.Machine.Go, "nearside " + m.Nearside} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(wrap(strings.Join(parts, ", "), columns), "\n")
}

// String says in a line what was asked.
func (l loadFigures) String() string {
	var parts []string
	add := func(given bool, format string, args ...any) {
		if given {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(l.Trace != "", "%s", printable0(l.Trace))
	add(l.Invalidation != "", "%s", strings.ToUpper(l.Invalidation))
	add(l.Connections == 1, "one connection")
	add(l.Connections > 1, "%d connections", l.Connections)
	add(l.Pipeline > 1, "pipeline %d", l.Pipeline)
	add(l.Size > 0, "values of %d B", l.Size)
	add(l.Keys > 0 && l.Zipf == 0, "%d keys alike", l.Keys)
	add(l.Keys > 0 && l.Zipf > 0, "%d keys by Zipf %v", l.Keys, l.Zipf)
	add(l.Reads > 0 && l.Reads < 1, "%.4g %% reads", 100*l.Reads)
	add(l.Rate > 0, "%.6g requests/s planned", l.Rate)
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	add(l.DurationSeconds > 0 && l.WarmupSeconds == 0, "%v", seconds(l.DurationSeconds))
	add(l.DurationSeconds > 0 && l.WarmupSeconds > 0, "%v after %v of warm-up", seconds(l.DurationSeconds), seconds(l.WarmupSeconds))
	return strings.Join(wrap(strings.Join(parts, ", "), columns), "\n")
}

// table prints a line for each result.
func (m *measurement) table(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	several, reads := false, false
	for _, r := range m.Results {
		several = several || r.Server != ""
		reads = reads || r.Hits+r.Misses > 0
	}
	row := func(name, perSecond string, l [5]string, hits, server string) {
		fmt.Fprintf(t, "%s\t%s\t%s\t", name, perSecond, strings.Join(l[:], "\t"))
		if reads {
			fmt.Fprintf(t, "%s\t", hits)
		}
		if several {
			fmt.Fprintf(t, "  %s", server) // what ends a line is aligned to the left
		}
		fmt.Fprintln(t)
	}
	row("", "per second", [5]string{"p50", "p90", "p99", "p99.9", "max"}, "hits", "")
	for _, r := range m.Results {
		hits := ""
		if r.Hits+r.Misses > 0 {
			hits = fmt.Sprintf("%.2f %%", 100*r.HitRatio())
		}
		row(r.Name, fmt.Sprintf("%.0f", r.PerSecond), latencies(r.Latency), hits, printable0(r.Server))
		if r.Service != nil {
			row("from sending", "", latencies(*r.Service), "", "")
		}
	}
	_ = t.Flush() // into memory
}

func latencies(l bench.Latency) [5]string {
	if l.Count == 0 {
		return [5]string{"–", "–", "–", "–", "–"}
	}
	return [5]string{latency(l.P50), latency(l.P90), latency(l.P99), latency(l.P999), latency(l.Max)}
}

// latency is a time in microseconds with three digits or so.
func latency(us float64) string {
	switch {
	case us >= 999_500:
		return fmt.Sprintf("%.2f s", us/1e6)
	case us >= 99_950:
		return fmt.Sprintf("%.0f ms", us/1e3)
	case us >= 9_995:
		return fmt.Sprintf("%.1f ms", us/1e3)
	case us >= 999.5:
		return fmt.Sprintf("%.2f ms", us/1e3)
	case us >= 99.95:
		return fmt.Sprintf("%.0f µs", us)
	}
	return fmt.Sprintf("%.1f µs", us)
}

// remarks prints what a reader of the table has to know.
func (m *measurement) remarks(w io.Writer) {
	say := func(format string, args ...any) {
		fmt.Fprintln(w, strings.Join(wrap(fmt.Sprintf(format, args...), columns), "\n"))
	}
	fmt.Fprintln(w)
	if f := m.Trace; f != nil {
		say("Hit ratio %.2f %%. The trace has %d keys: a cache that drops nothing would have %.2f %%.", 100*f.HitRatio, f.DistinctKeys, 100*f.BestHitRatio)
	}
	var reached float64
	var unanswered uint64
	for _, r := range m.Results {
		reached += r.PerSecond
		unanswered += r.Unanswered
	}
	if m.Load.Rate > 0 && unanswered > 0 {
		say("%d requests that were planned had no answer until the end; they count as slow as they were old.", unanswered)
	} else if unanswered > 0 {
		say("%d requests had no answer.", unanswered)
	}
	if m.Load.Rate > 0 && reached < 0.99*m.Load.Rate {
		say("The rate was not kept: %.0f of %.0f a second were answered.", reached, m.Load.Rate)
	}
	say("This process kept %.2f processors busy.", m.GeneratorCores)
	if m.Interrupted {
		say("It was interrupted: this is what was measured until then.")
	}
}
