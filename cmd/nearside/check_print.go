package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/nearside-cache/nearside/kube/check"
)

// maxItems is how many items of a check people are shown; programs get them all.
const maxItems = 10

// checkPrinter prints outcomes as they come, or all at the end as JSON.
type checkPrinter struct {
	w     io.Writer
	json  bool
	color bool
	group string
	all   []check.Outcome
	err   error // of the first write that failed
}

// marks are what outcomes begin with, and their colours on a terminal.
var marks = map[check.Result]struct{ sign, color string }{
	check.OK:      {"✓", "32"},
	check.Warning: {"!", "33"},
	check.Failed:  {"✗", "31"},
	check.Skipped: {"-", "2"},
}

func (p *checkPrinter) print(o check.Outcome) {
	p.all = append(p.all, o)
	if p.json {
		return
	}
	if o.Group != p.group {
		p.heading(o.Group)
	}
	m := marks[o.Result]
	sign := m.sign
	if p.color {
		sign = "\x1b[" + m.color + "m" + sign + "\x1b[0m"
	}
	p.line("%s %s", sign, o.Name)
	if o.Summary != "" {
		p.wrapped(o.Summary)
	}
	for i, item := range o.Items {
		if i == maxItems {
			p.wrapped(fmt.Sprintf("and %d more: see -o json", len(o.Items)-i))
			break
		}
		p.line("    %s", printable(item))
	}
	if o.Hint != "" {
		p.wrapped("hint: " + o.Hint)
		p.line("    see %s", o.Link)
	}
}

func (p *checkPrinter) heading(group string) {
	if p.group != "" {
		p.line("")
	}
	p.group = group
	p.line("%s\n%s", group, strings.Repeat("-", len(group)))
}

// wrapped prints text below a check, in lines that fit.
func (p *checkPrinter) wrapped(text string) {
	for _, line := range wrap(printable(text), columns-4) {
		p.line("    %s", line)
	}
}

func (p *checkPrinter) line(format string, args ...any) {
	if _, err := fmt.Fprintf(p.w, format+"\n", args...); err != nil && p.err == nil {
		p.err = err
	}
}

// end prints what it comes to.
func (p *checkPrinter) end(count map[check.Result]int) error {
	if p.json {
		return printJSON(p.w, []pair{
			{"checks", p.all}, {"ok", count[check.OK]}, {"warnings", count[check.Warning]},
			{"failed", count[check.Failed]}, {"skipped", count[check.Skipped]},
		})
	}
	verdict := "all is in order"
	switch {
	case count[check.Failed] > 0:
		verdict = "something has to be mended"
	case count[check.Warning] > 0:
		verdict = "something deserves a look"
	}
	p.line("\n%d in order, %d warnings, %d failed, %d skipped: %s",
		count[check.OK], count[check.Warning], count[check.Failed], count[check.Skipped], verdict)
	return p.err
}
