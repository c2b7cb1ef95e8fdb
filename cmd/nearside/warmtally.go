package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// warmed is what became of a key.
type warmed struct {
	key     string
	outcome outcome
	err     error // why it failed
}

// outcome is what a key ended as.
type outcome uint8

const (
	wasLoaded outcome = iota // through the namespace's loader, now
	wasHeld                  // already
	isAbsent                 // so says the origin
	notLoaded                // the sidecar answered with a plain miss
	failed
)

// failure is a key that failed, in the summary.
type failure struct {
	Key   string `json:"key"`
	Error string `json:"error"`
}

const (
	shownFailures = 10
	// loaderTries is after how many plain misses, and nothing better, it is taken for
	// granted that nothing is being loaded.
	loaderTries = 8
)

// tally counts what became of keys.
type tally struct {
	namespace string
	began     time.Time
	done      int
	of        [failed + 1]int
	failures  []failure // the first ones
	missed    string    // the first key that was not loaded
}

func (t *tally) add(w warmed) {
	t.done++
	t.of[w.outcome]++
	if w.outcome == notLoaded && t.missed == "" {
		t.missed = w.key
	}
	if w.err != nil && len(t.failures) < shownFailures {
		t.failures = append(t.failures, failure{printable(w.key), w.err.Error()})
	}
}

// nothingLoads reports whether what had to be loaded was not, every time.
func (t *tally) nothingLoads() bool {
	return t.of[notLoaded] > 0 && t.of[wasLoaded] == 0 && t.of[isAbsent] == 0
}

// lacking is how many keys the sidecar can give no answer for.
func (t *tally) lacking() int { return t.of[notLoaded] + t.of[failed] }

func (t *tally) perSecond(now time.Time) float64 {
	return float64(t.done) / max(now.Sub(t.began).Seconds(), 1e-3)
}

// summary prints what became of all of them.
func (t *tally) summary(w io.Writer, o output, interrupted bool) error {
	now := time.Now()
	pairs := []pair{
		{"namespace", t.namespace}, {"keys", t.done}, {"loaded", t.of[wasLoaded]}, {"held_before", t.of[wasHeld]},
		{"absent", t.of[isAbsent]}, {"failed", t.lacking()},
		{"seconds", rounded(now.Sub(t.began).Seconds())}, {"keys_per_second", rounded(t.perSecond(now))}, {"interrupted", interrupted},
	}
	if o.isJSON() {
		return printJSON(w, append(pairs, pair{"failures", append([]failure{}, t.failures...)}))
	}
	if err := o.printPairs(w, pairs); err != nil {
		return err
	}
	if len(t.failures) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\nFailed, %d of %d:\n", len(t.failures), t.lacking())
	for _, f := range t.failures {
		fmt.Fprintf(w, "  %s  %s\n", f.Key, f.Error)
	}
	return nil
}

// rounded leaves one digit behind the point.
func rounded(f float64) float64 { return float64(int64(f*10+0.5)) / 10 }

// line is the progress in one line, with the part of the list that is done, if that
// is known.
func (t *tally) line(now time.Time, part float64) string {
	text := fmt.Sprintf("%d keys: %d loaded, %d held before, %d absent, %d failed  %.0f/s",
		t.done, t.of[wasLoaded], t.of[wasHeld], t.of[isAbsent], t.lacking(), t.perSecond(now))
	if part > 0 {
		left := time.Duration(float64(now.Sub(t.began)) * (1 - part) / part)
		text = fmt.Sprintf("%3.0f%%  %s  %v left", 100*part, text, left.Round(time.Second))
	}
	return text
}

// progressLine is the last line of a terminal, which is written over.
type progressLine struct {
	out   io.Writer
	width int // 0: no terminal, nothing is shown
	shown bool
}

func newProgressLine(out io.Writer) *progressLine {
	p := &progressLine{out: out}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		p.width = columns
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			p.width = width
		}
	}
	return p
}

const clearLine = "\r\x1b[K"

// show writes over what is shown. A line that wraps could not be written over.
func (p *progressLine) show(text string) {
	if p.width > 0 {
		fmt.Fprint(p.out, clearLine, text[:min(len(text), p.width-1)])
		p.shown = true
	}
}

// clear makes room for what is printed next.
func (p *progressLine) clear() {
	if p.shown {
		fmt.Fprint(p.out, clearLine)
		p.shown = false
	}
}
