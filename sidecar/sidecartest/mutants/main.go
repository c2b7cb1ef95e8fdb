// Command mutants takes the rules out of the code, one at a time, and shows which
// test notices, and by which invariant. A suite that finds nothing proves something
// only if it finds what is broken.
//
// A mutant is a change of a few words of the source, listed in mutants.yaml. It is
// laid over the source while go builds the tests (the flag -overlay), so the source
// itself has no hooks and no release can contain one (ADR 0006).
//
// Run it as "make mutants". It ends with 1 when a mutant survives, when the wrong
// invariant notices it, or when a suite fails without any mutant.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	only := flag.String("only", "", "regular expression for the rule and the text of the mutants to run, as docs/testing.md has them")
	control := flag.Bool("control", true, "run each suite without a mutant first")
	flag.Parse()
	chosen, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	t, err := load(tableText)
	if err != nil {
		return err
	}
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("find the module: %w", err)
	}
	scratch, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	r := runner{root: strings.TrimSpace(string(root)), scratch: scratch, suites: suites, out: os.Stdout}
	return r.all(ctx, t.chosen(chosen), *control)
}
