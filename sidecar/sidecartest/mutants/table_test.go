package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the table in docs/testing.md anew")

const root = "../../.."

// Every mutant still changes what it is meant to change, and what it makes can be
// built: types are checked here, which is quicker.
func TestMutantsApply(t *testing.T) {
	all, err := load(tableText)
	require.NoError(t, err)
	c := newChecker(t, all.Mutants)
	seen := map[string]bool{}
	for _, m := range all.Mutants {
		require.False(t, seen[m.String()], "%v is listed twice", m)
		seen[m.String()] = true
		changed, err := m.apply(root)
		require.NoError(t, err)
		for name, text := range changed {
			original, err := os.ReadFile(filepath.Join(root, name))
			require.NoError(t, err)
			require.NotEqual(t, string(original), text, "%v changes nothing", m)
		}
		for _, p := range m.packages() {
			require.NoError(t, c.check(p, changed), "%v does not build", m)
		}
	}
}

// checker checks the types of packages, some of their files changed.
type checker struct {
	set      *token.FileSet
	packages map[string]listed // by pattern
	imports  types.Importer
}

// listed is a package as go list describes it.
type listed struct {
	Dir, ImportPath, Export string
	GoFiles                 []string
}

func newChecker(t *testing.T, mutants []mutant) checker {
	args := []string{"list", "-export", "-deps", "-json=Dir,ImportPath,Export,GoFiles"}
	for _, m := range mutants {
		args = append(args, m.packages()...)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	out, err := cmd.Output()
	require.NoError(t, err)
	c := checker{set: token.NewFileSet(), packages: map[string]listed{}}
	base, err := filepath.Abs(root)
	require.NoError(t, err)
	exports := map[string]string{}
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var p listed
		require.NoError(t, d.Decode(&p))
		exports[p.ImportPath] = p.Export
		if rel, err := filepath.Rel(base, p.Dir); err == nil {
			c.packages["./"+filepath.ToSlash(rel)] = p
		}
	}
	c.imports = importer.ForCompiler(c.set, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exports[path])
	})
	return c
}

func (c checker) check(pattern string, changed map[string]string) error {
	p := c.packages[pattern]
	var files []*ast.File
	for _, name := range p.GoFiles {
		var source any
		if text, ok := changed[filepath.ToSlash(filepath.Join(pattern, name))]; ok {
			source = text
		}
		f, err := parser.ParseFile(c.set, filepath.Join(p.Dir, name), source, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	config := types.Config{Importer: c.imports}
	_, err := config.Check(p.ImportPath, c.set, files, nil)
	return err
}

// The tests that the table names exist.
func TestDetectorsExist(t *testing.T) {
	all, err := load(tableText)
	require.NoError(t, err)
	for _, s := range suites {
		args := argsFor(s, all.Mutants)
		if s.args != nil || len(args) == 0 {
			continue
		}
		if s.name == "script" {
			for _, arg := range args {
				require.FileExists(t, filepath.Join(root, "sidecar/testdata/coherence", arg))
			}
			continue
		}
		sources := ""
		files, err := filepath.Glob(filepath.Join(root, s.pkg, "*_test.go"))
		require.NoError(t, err)
		for _, f := range files {
			b, err := os.ReadFile(f)
			require.NoError(t, err)
			sources += string(b)
		}
		for _, arg := range args {
			name := regexp.MustCompile(`^\w+`).FindString(arg)
			require.Contains(t, sources, "func "+name+"(t *testing.T)", "%s of %s", arg, s.name)
		}
	}
}

func TestTableIsRefused(t *testing.T) {
	whole := "mutants:\n- rule: C1\n  what: it\n  breaks: [I1]\n  edits:\n  - {file: a.go, old: x, new: y}\n  red: [model, bus TestX]\n"
	good, err := load([]byte(whole))
	require.NoError(t, err)
	require.Equal(t, []detector{{suite: "model"}, {suite: "bus", arg: "TestX"}}, good.Mutants[0].Red)
	for _, part := range []string{"rule: C1", "what: it", "breaks: [I1]", "red: [model, bus TestX]"} {
		_, err := load([]byte(regexp.MustCompile(regexp.QuoteMeta(part)).ReplaceAllString(whole, "rule: C1")))
		if part != "rule: C1" {
			require.Error(t, err, "without %s", part)
		}
	}
	for old, bad := range map[string]string{
		"I1": "I16", "model": "nosuch", "bus TestX": "bus", "model,": "model TestY,", "what: it": "what: it\n  off: x",
	} {
		_, err := load([]byte(regexp.MustCompile(old).ReplaceAllString(whole, bad)))
		require.Error(t, err, bad)
	}
}

// docs/testing.md shows the table as it is.
func TestReference(t *testing.T) {
	all, err := load(tableText)
	require.NoError(t, err)
	path := filepath.Join(root, "docs", "testing.md")
	is, err := os.ReadFile(path)
	require.NoError(t, err)
	want, err := inside(string(is), all.markdown())
	require.NoError(t, err)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(want), 0o644))
		return
	}
	require.Equal(t, want, string(is), "docs/testing.md does not show the table: run this test with -update")
}
