package main

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

// suite is a package's tests. One without args is asked for tests by their names,
// and each of them must fail; one with args is run as it is, and must name an
// invariant that the mutant breaks.
type suite struct {
	name string
	pkg  string
	test string // of those asked for, the parent; of those with args, the test
	args []string
	// builds says that it builds the binary itself, and must do so with the mutant.
	builds bool
}

// suites are all that may notice a mutant, the quickest first.
//
// A simulation ends at the first seed that breaks something: many seeds cost time
// only where a mutant survives. All seeds are fixed, so that the same code always
// gives the same result.
var suites = []suite{
	{name: "script", pkg: "./sidecar/coherence", test: "TestScripts"},
	{name: "core", pkg: "./sidecar/coherence"},
	{name: "bus", pkg: "./bus"},
	{name: "membus", pkg: "./bus/membus"},
	{name: "cache", pkg: "./sidecar/cache"},
	{name: "session", pkg: "./sidecar/session"},
	{name: "native", pkg: "./sidecar/native"},
	{name: "model", pkg: "./sidecar/coherence", test: "TestModel", args: []string{
		"-rapid.seed=7", "-rapid.checks=40000", "-rapid.shrinktime=1ns", "-rapid.nofailfile",
	}},
	{name: "sim", pkg: "./sidecar/sidecartest/sim", test: "TestSim", args: []string{"-sim.seeds=2000", "-sim.shrink=0"}},
	{name: "natsbus", pkg: "./bus/natsbus"},
	{name: "nemesis", pkg: "./sidecar/sidecartest/nemesis", test: "TestNemesis", builds: true, args: []string{
		"-faults=all", "-seed=1", "-duration=20s", "-servers=1",
	}},
}

func find(all []suite, name string) (suite, bool) {
	i := slices.IndexFunc(all, func(s suite) bool { return s.name == name })
	if i < 0 {
		return suite{}, false
	}
	return all[i], true
}

// name is the whole name of a test that the suite is asked for.
func (s suite) testName(arg string) string { return strings.Trim(s.test+"/"+arg, "/") }

// pattern is for go test's -run.
func pattern(tests []string) string {
	var all []string
	for _, name := range tests {
		var parts []string
		for part := range strings.SplitSeq(name, "/") {
			parts = append(parts, "^"+regexp.QuoteMeta(part)+"$")
		}
		all = append(all, strings.Join(parts, "/"))
	}
	return strings.Join(all, "|")
}

// outcome is what the output of a run of tests says.
type outcome struct {
	failed     []string // names of tests
	invariants []string // that were named as broken
	took       time.Duration
}

func (o outcome) red() bool { return len(o.failed) > 0 }

var (
	failedTest = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)
	// These name what was broken: the simulator and the model, and the nemesis, which
	// counts. C2 is the simulator's: what is loaded when all is well must be kept.
	breaks = regexp.MustCompile(`(?m)(?:seed \d+ breaks|Messages:)\s+(I\d+|C2): |\d+ +violations((?: +I\d+: \d+)+)$`)
	named  = regexp.MustCompile(`I\d+|C2`)
)

// read reads go test's output.
func read(output string) (o outcome) {
	for _, m := range failedTest.FindAllStringSubmatch(output, -1) {
		o.failed = append(o.failed, m[1])
	}
	for _, m := range breaks.FindAllStringSubmatch(output, -1) {
		for _, i := range named.FindAllString(m[1]+m[2], -1) {
			if !slices.Contains(o.invariants, i) {
				o.invariants = append(o.invariants, i)
			}
		}
	}
	return o
}
