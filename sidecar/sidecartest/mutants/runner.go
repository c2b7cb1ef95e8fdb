package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// runner runs suites of the module at root with and without mutants.
type runner struct {
	root    string
	scratch string
	suites  []suite
	out     io.Writer
}

// all runs the mutants, and before them, as the control, their suites without one.
func (r runner) all(ctx context.Context, mutants []mutant, control bool) error {
	if len(mutants) == 0 {
		return errors.New("no mutant matches")
	}
	began := time.Now()
	if control {
		if err := r.control(ctx, mutants); err != nil {
			return err
		}
	}
	failed := 0
	for i, m := range mutants {
		word := "caught"
		notes, err := r.mutant(ctx, m)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed++
			word, notes = "FAILED", append(notes, err.Error())
		}
		fmt.Fprintf(r.out, "%3d/%d %s  %v\n        %s\n", i+1, len(mutants), word, m, strings.Join(notes, "; "))
	}
	fmt.Fprintf(r.out, "%d mutants, %d caught, %d not, in %v\n",
		len(mutants), len(mutants)-failed, failed, time.Since(began).Round(time.Second))
	if failed > 0 {
		return fmt.Errorf("%d mutants were not caught as the table says", failed)
	}
	return nil
}

// control runs without a mutant what the mutants will be shown to. What fails
// without one proves nothing.
func (r runner) control(ctx context.Context, mutants []mutant) error {
	for _, s := range r.suites {
		args := argsFor(s, mutants)
		if len(args) == 0 {
			continue
		}
		result, err := r.suite(ctx, s, args, "")
		if err != nil {
			return err
		}
		if result.red() {
			return fmt.Errorf("the suite %s fails without a mutant, and so proves nothing: %v %v", s.name, result.failed, result.invariants)
		}
		fmt.Fprintf(r.out, "control: %s is green without a mutant, in %v\n", s.name, result.took)
	}
	return nil
}

// argsFor collects what a suite is asked for on behalf of the mutants.
func argsFor(s suite, mutants []mutant) (args []string) {
	for _, m := range mutants {
		for _, d := range m.Red {
			if d.suite == s.name && !slices.Contains(args, d.arg) {
				args = append(args, d.arg)
			}
		}
	}
	return args
}

// mutant shows m to its suites. It returns who noticed, and an error where one did
// not, or when m cannot be built.
func (r runner) mutant(ctx context.Context, m mutant) (notes []string, err error) {
	dir, err := os.MkdirTemp(r.scratch, "")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	overlay, err := m.overlay(r.root, dir)
	if err != nil {
		return nil, err
	}
	if out, err := r.command(ctx, "go", append([]string{"build", "-overlay", overlay}, m.packages()...)...); err != nil {
		return nil, fmt.Errorf("does not build: %w: %s", err, out)
	}
	var missed []error
	for _, s := range r.suites {
		args := argsFor(s, []mutant{m})
		if len(args) == 0 {
			continue
		}
		result, err := r.suite(ctx, s, args, overlay)
		if err != nil {
			return notes, err
		}
		if err := s.noticed(m, args, result); err != nil {
			missed = append(missed, err)
			continue
		}
		notes = append(notes, s.note(args, result))
	}
	return notes, errors.Join(missed...)
}

// noticed holds the outcome of a suite against what the mutant must do to it.
func (s suite) noticed(m mutant, args []string, o outcome) error {
	if s.args == nil {
		for _, arg := range args {
			if !slices.Contains(o.failed, s.testName(arg)) {
				return fmt.Errorf("SURVIVES %s %s", s.name, arg)
			}
		}
		return nil
	}
	if !o.red() {
		return fmt.Errorf("SURVIVES %s", s.name)
	}
	expected := func(i string) bool { return slices.Contains(m.Breaks, i) }
	if !slices.ContainsFunc(o.invariants, expected) {
		return fmt.Errorf("%s fails (%v), but not by %v: it names %v", s.name, o.failed, m.Breaks, o.invariants)
	}
	return nil
}

func (s suite) note(args []string, o outcome) string {
	what := strings.Join(args, ", ")
	if s.args != nil {
		what = strings.Join(o.invariants, ", ")
	}
	return fmt.Sprintf("%s: %s, %v", s.name, what, o.took)
}

// suite runs what a suite is asked for, under the overlay if one is named. An error
// says that it could not be run.
func (r runner) suite(ctx context.Context, s suite, args []string, overlay string) (outcome, error) {
	began := time.Now()
	call := []string{"test", "-vet=off", "-timeout", "5m"}
	if overlay != "" {
		call = append(call, "-overlay", overlay)
	}
	names := []string{s.test}
	if s.args == nil {
		names = nil
		for _, arg := range args {
			names = append(names, s.testName(arg))
		}
	}
	call = append(call, s.pkg, "-run", pattern(names))
	if s.args != nil {
		call = append(append(call, "-args"), s.args...)
	}
	if s.builds && overlay != "" {
		call = append(call, "-overlay", overlay)
	}
	out, err := r.command(ctx, "go", call...)
	o := read(out)
	o.took = time.Since(began).Round(100 * time.Millisecond)
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || len(o.failed) == 0) {
		return o, fmt.Errorf("run the suite %s: %w: %s", s.name, err, out)
	}
	return o, nil
}

// command runs a command in the module and returns all that it prints. When ctx
// ends, it ends with everything that it has started.
func (r runner) command(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = r.root
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	return string(out), err
}
