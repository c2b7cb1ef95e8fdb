package demo

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// screen shows reports: a table that refreshes in place on a terminal, a line a
// second anywhere else.
type screen struct {
	out   io.Writer
	every time.Duration // between reports
	live  bool          // refresh in place
	paint paint
	drawn int // lines of the last table
}

func newScreen(out io.Writer) *screen {
	s := &screen{out: out, every: time.Second}
	f, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return s
	}
	s.paint.on = os.Getenv("NO_COLOR") == ""
	// A line that wraps would take the cursor to the wrong place.
	if columns, rows, err := term.GetSize(int(f.Fd())); err == nil && columns >= width && rows > len(table(report{}, paint{}))+len(names) {
		s.live, s.every = true, 250*time.Millisecond
	}
	return s
}

// Sequences of a terminal.
const (
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
	clearRest  = "\x1b[K" // of the line
	cursorUp   = "\x1b[%dA"
)

// show replaces the last table, or appends a line.
func (s *screen) show(r report) {
	if !s.live {
		fmt.Fprintln(s.out, progress(r))
		return
	}
	s.draw(table(r, s.paint))
}

func (s *screen) draw(lines []string) {
	var b strings.Builder
	b.WriteString(hideCursor)
	if s.drawn > 0 {
		fmt.Fprintf(&b, cursorUp, s.drawn)
	}
	for _, l := range lines {
		b.WriteString(l + clearRest + "\n")
	}
	b.WriteString(showCursor) // at once: nothing can leave it hidden
	s.drawn = len(lines)
	fmt.Fprint(s.out, b.String())
}

// finish shows the last report for good, as a table in any case.
func (s *screen) finish(r report) {
	lines := table(r, s.paint)
	if s.live {
		s.draw(lines)
	} else {
		fmt.Fprintln(s.out, "\n"+strings.Join(lines, "\n"))
	}
	s.drawn = 0
}

// say prints lines below.
func (s *screen) say(lines ...string) {
	fmt.Fprintln(s.out, strings.Join(lines, "\n"))
}
