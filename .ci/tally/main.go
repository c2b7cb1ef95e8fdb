// Command tally reads the output of "go test -json", prints one line for each
// package and everything that a failing test said, and counts the tests, each
// subtest as one. A package that fails without a failing test (it does not
// compile, it panics, it runs out of time) counts as one failed test. It exits
// with 1 if anything failed or nothing ran.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

// event is what "go doc test2json" describes.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build output
	Test       string
	Elapsed    float64
	Output     string
}

// tally is the state of one run. Output is kept until its test has ended.
type tally struct {
	out            io.Writer
	passed, failed int
	skipped        int
	output         map[[2]string][]string // by package and test
	failedIn       map[string]int         // failed tests by package
}

func main() {
	counts := flag.String("counts", "", "also write the numbers of passed and failed tests to this `file`")
	flag.Parse()
	if err := run(os.Stdin, *counts); err != nil {
		fmt.Fprintln(os.Stderr, "tally:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, counts string) error {
	t := tally{out: os.Stdout, output: map[[2]string][]string{}, failedIn: map[string]int{}}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			t.line(line)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("read test output: %w", err)
		}
	}
	fmt.Fprintf(t.out, "tests: %d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
	if counts != "" {
		if err := os.WriteFile(counts, fmt.Appendf(nil, "%d %d\n", t.passed, t.failed), 0o600); err != nil {
			return fmt.Errorf("write counts: %w", err)
		}
	}
	if t.failed > 0 || t.passed == 0 {
		return fmt.Errorf("%d tests failed, %d passed", t.failed, t.passed)
	}
	return nil
}

func (t *tally) line(line []byte) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil {
		fmt.Fprintf(t.out, "%s", line) // the go command speaks for itself
		return
	}
	key := [2]string{e.Package, e.Test}
	switch e.Action {
	case "output":
		t.output[key] = append(t.output[key], e.Output)
	case "build-output":
		fmt.Fprint(t.out, e.Output)
	case "pass", "fail", "skip":
		t.end(e)
		delete(t.output, key)
	}
}

// end counts a test, or a package when e names no test.
func (t *tally) end(e event) {
	if e.Action == "fail" {
		t.print(e)
	}
	switch {
	case e.Test != "" && e.Action == "pass":
		t.passed++
	case e.Test != "" && e.Action == "fail":
		t.failed++
		t.failedIn[e.Package]++
	case e.Test != "":
		t.skipped++
		t.print(e)
	case e.Action == "fail":
		if t.unfinished(e.Package) || t.failedIn[e.Package] == 0 {
			t.failed++
		}
		fmt.Fprintf(t.out, "FAIL  %s (%.1f s)\n", e.Package, e.Elapsed)
	case e.Action == "pass":
		fmt.Fprintf(t.out, "ok    %s (%.1f s)\n", e.Package, e.Elapsed)
	}
}

// unfinished prints what the tests said that were running when their package
// ended, by a panic or for want of time, and reports whether there were any.
func (t *tally) unfinished(pkg string) bool {
	found := false
	for _, key := range slices.SortedFunc(maps.Keys(t.output), func(a, b [2]string) int { return strings.Compare(a[1], b[1]) }) {
		if key[0] == pkg && key[1] != "" {
			t.print(event{Package: pkg, Test: key[1]})
			delete(t.output, key)
			found = true
		}
	}
	return found
}

func (t *tally) print(e event) {
	for _, text := range t.output[[2]string{e.Package, e.Test}] {
		fmt.Fprint(t.out, text)
	}
}
