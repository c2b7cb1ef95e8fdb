package main

import (
	"fmt"
	"strings"
)

// markdown is the table as docs/testing.md shows it.
func (t table) markdown() string {
	var b strings.Builder
	b.WriteString("| rule | taken out, or done instead | breaks | turns red |\n|---|---|---|---|\n")
	for _, m := range t.Mutants {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", m.Rule, cell(m.What), strings.Join(m.Breaks, " "), m.detectors())
	}
	b.WriteString("\nNot built yet, and so without a mutant:\n\n")
	for _, text := range t.Later {
		fmt.Fprintf(&b, "- %s\n", text)
	}
	return b.String()
}

func cell(text string) string { return strings.ReplaceAll(text, "|", "\\|") }

// detectors lists what turns red, each suite once.
func (m mutant) detectors() string {
	var parts []string
	for _, s := range suites {
		args := argsFor(s, []mutant{m})
		switch {
		case len(args) == 0:
		case s.args == nil:
			parts = append(parts, fmt.Sprintf("%s `%s`", s.name, strings.Join(args, "`, `")))
		default:
			parts = append(parts, "**"+s.name+"**")
		}
	}
	return strings.Join(parts, "; ")
}

// The lines of docs/testing.md between which the table stands.
const (
	tableBegins = "<!-- The table is written by `go test ./sidecar/sidecartest/mutants -run TestReference -update`. -->\n"
	tableEnds   = "<!-- The table ends here. -->\n"
)

// inside returns doc with text between the lines where the table stands.
func inside(doc, text string) (string, error) {
	before, rest, begins := strings.Cut(doc, tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		return "", fmt.Errorf("there is no place for the table: it stands between the lines %q and %q", tableBegins, tableEnds)
	}
	return before + tableBegins + "\n" + text + "\n" + tableEnds + after, nil
}
