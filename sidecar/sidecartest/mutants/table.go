package main

import (
	"bytes"
	_ "embed" // the table
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

//go:embed mutants.yaml
var tableText []byte

// table is what mutants.yaml holds.
type table struct {
	Mutants []mutant
	// Later names the mutants of what is not built yet.
	Later []string
}

// mutant is one rule taken out.
type mutant struct {
	Rule string
	What string // is taken out, or done instead
	// Breaks are the invariants that may notice: a suite that names another one has
	// found something else.
	Breaks []string
	Edits  []edit
	// Red are the suites that must turn red, each with what it is asked for: see
	// suite.
	Red []detector
}

func (m mutant) String() string { return m.Rule + ": " + m.What }

// edit changes the only occurrence of Old in a file, named within the module.
type edit struct{ File, Old, New string }

// detector is a suite, and which of its tests or faults. Its text form is both,
// with a space in between.
type detector struct{ suite, arg string }

func (d detector) String() string { return strings.TrimSpace(d.suite + " " + d.arg) }

// UnmarshalYAML reads the text form.
func (d *detector) UnmarshalYAML(n *yaml.Node) error {
	var text string
	if err := n.Decode(&text); err != nil {
		return err
	}
	d.suite, d.arg, _ = strings.Cut(text, " ")
	return nil
}

// load reads a table and checks that it is whole.
func load(text []byte) (table, error) {
	var t table
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&t); err != nil {
		return t, fmt.Errorf("read the table of mutants: %w", err)
	}
	var faults []error
	for i, m := range t.Mutants {
		if fault := m.check(); fault != "" {
			faults = append(faults, fmt.Errorf("mutant %d, %v: %s", i+1, m, fault))
		}
	}
	return t, errors.Join(faults...)
}

var invariant = regexp.MustCompile(`^(I([1-9]|1[0-5])|C2)$`)

func (m mutant) check() string {
	switch {
	case m.Rule == "" || m.What == "" || len(m.Edits) == 0:
		return "needs rule, what and edits"
	case len(m.Red) == 0:
		return "needs a suite that turns red"
	case len(m.Breaks) == 0 || slices.ContainsFunc(m.Breaks, func(i string) bool { return !invariant.MatchString(i) }):
		return "needs the invariants that it breaks, I1 to I15 or C2"
	}
	for _, d := range m.Red {
		s, known := find(suites, d.suite)
		if !known {
			return "no suite " + d.suite
		}
		if (s.args == nil) != (d.arg != "") {
			return fmt.Sprintf("%q: a suite of tests needs the name of one, any other suite none", d)
		}
	}
	return ""
}

// chosen returns the mutants whose text form matches.
func (t table) chosen(only *regexp.Regexp) []mutant {
	return slices.DeleteFunc(slices.Clone(t.Mutants), func(m mutant) bool { return !only.MatchString(m.String()) })
}
