package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// tiny is a module with a suite that asks for tests by name, and one that names
// invariants.
var tiny = map[string]string{
	"go.mod":  "module tiny\n\ngo 1.26\n",
	"tiny.go": "package tiny\n\nfunc Sum(a, b int) int { return a + b }\n\nfunc Less(a, b int) bool { return a < b }\n",
	"tiny_test.go": `package tiny

import "testing"

func TestSum(t *testing.T) {
	t.Run("of_two", func(t *testing.T) {
		if Sum(1, 2) != 3 {
			t.Fatal("no sum")
		}
	})
}

func TestSeeds(t *testing.T) {
	if Sum(2, 2) != 4 {
		t.Fatal("seed 5 breaks I7: as I1: was not")
	}
	if !Less(1, 2) {
		t.Fatal("a nil map")
	}
}
`,
}

var tinySuites = []suite{
	{name: "unit", pkg: ".", test: "TestSum"},
	{name: "seeds", pkg: ".", test: "TestSeeds", args: []string{"-test.v"}},
}

func tinyRunner(t *testing.T) (runner, *bytes.Buffer) {
	dir := t.TempDir()
	for name, text := range tiny {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	var out bytes.Buffer
	return runner{root: dir, scratch: t.TempDir(), suites: tinySuites, out: &out}, &out
}

// tinyMutant takes the plus out.
func tinyMutant(red ...detector) mutant {
	return mutant{
		Rule: "C1", What: "no plus", Breaks: []string{"I2", "I7"},
		Edits: []edit{{"tiny.go", "a + b", "a - b"}}, Red: red,
	}
}

var bySeeds, byUnit = detector{suite: "seeds"}, detector{suite: "unit", arg: "of_two"}

func TestMutantIsCaught(t *testing.T) {
	r, out := tinyRunner(t)
	require.NoError(t, r.all(t.Context(), []mutant{tinyMutant(byUnit, bySeeds)}, true))
	require.Contains(t, out.String(), "control: unit is green")
	require.Contains(t, out.String(), "control: seeds is green")
	require.Contains(t, out.String(), "1/1 caught  C1: no plus")
	require.Contains(t, out.String(), "unit: of_two")
	require.Contains(t, out.String(), "seeds: I7")
	require.Contains(t, out.String(), "1 mutants, 1 caught, 0 not")
	text, err := os.ReadFile(filepath.Join(r.root, "tiny.go"))
	require.NoError(t, err)
	require.Equal(t, tiny["tiny.go"], string(text), "the source stays as it is")
}

func TestMutantIsNotCaught(t *testing.T) {
	other := tinyMutant(byUnit, bySeeds)
	other.Edits = []edit{{"tiny.go", "return a < b", "return a <= b"}}
	wrong := tinyMutant(bySeeds)
	wrong.Breaks = []string{"I1"}
	nameless := tinyMutant(bySeeds)
	nameless.Edits = []edit{{"tiny.go", "return a < b", "return a > b"}}
	unbuilt := tinyMutant(byUnit)
	unbuilt.Edits = []edit{{"tiny.go", "a + b", "a - c"}}
	outdated := tinyMutant(byUnit)
	outdated.Edits = []edit{{"tiny.go", "return", ""}}
	for _, c := range []struct {
		mutant mutant
		says   []string
	}{
		{other, []string{"SURVIVES unit of_two", "SURVIVES seeds"}},
		{wrong, []string{"seeds fails ([TestSeeds]), but not by [I1]: it names [I7]"}},
		{nameless, []string{"but not by [I2 I7]: it names []"}},
		{unbuilt, []string{"does not build", "undefined: c"}},
		{outdated, []string{`holds "return" 2 times`}},
	} {
		r, out := tinyRunner(t)
		require.Error(t, r.all(t.Context(), []mutant{c.mutant}, false))
		require.Contains(t, out.String(), "FAILED")
		for _, text := range c.says {
			require.Contains(t, out.String(), text)
		}
	}
}

// What fails without a mutant, or cannot be run at all, catches none.
func TestControl(t *testing.T) {
	r, _ := tinyRunner(t)
	path := filepath.Join(r.root, "tiny.go")
	require.NoError(t, os.WriteFile(path, bytes.ReplaceAll([]byte(tiny["tiny.go"]), []byte("a + b"), []byte("a * b")), 0o600))
	require.ErrorContains(t, r.all(t.Context(), []mutant{tinyMutant(byUnit)}, true), "fails without a mutant")
	require.NoError(t, os.WriteFile(filepath.Join(r.root, "more_test.go"), []byte("package tiny\n\nvar x int = nil\n"), 0o600))
	require.ErrorContains(t, r.all(t.Context(), []mutant{tinyMutant(byUnit)}, true), "run the suite unit")
}

func TestRead(t *testing.T) {
	o := read("--- FAIL: TestModel (0.09s)\n    model_test.go:415:\n        \tError:      \t\"1\" is not greater\n" +
		"        \tMessages:   \tI11: as to tag, I4: is not it\n    --- FAIL: TestModel/sub (0.00s)\nFAIL\n")
	require.Equal(t, []string{"TestModel", "TestModel/sub"}, o.failed)
	require.Equal(t, []string{"I11"}, o.invariants)
	require.Equal(t, []string{"I1", "I5"}, read("         3  violations  I1: 2  I5: 1\n  I6: evidence\n").invariants)
	require.Empty(t, read("         0  violations\n| `kill` | I5 I6 |\nok  \tx\t0.1s\n"))
}
