package docs_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The budgets that keep the code readable.
const (
	maxFileLines     = 500
	maxFunctionLines = 60 // what stands between the braces
	mostFunctions    = 35 // nine functions of ten have fewer lines
)

// source is one parsed Go file.
type source struct {
	path string // inside the module
	set  *token.FileSet
	file *ast.File
}

func (s source) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", s.path, s.set.Position(n.Pos()).Line)
}

func (s source) lines() int { return s.set.File(s.file.FileStart).LineCount() }

// parse reads Go source that stands, or pretends to stand, at path.
func parse(t *testing.T, path string, src any) source {
	set := token.NewFileSet()
	name := path
	if src == nil {
		name = filepath.Join("..", path)
	}
	file, err := parser.ParseFile(set, name, src, parser.ParseComments|parser.SkipObjectResolution)
	require.NoError(t, err)
	return source{path: path, set: set, file: file}
}

// walk calls visit for every file of the repository with the extension, except
// what tests read, what tools wrote and what belongs to others.
func walk(t *testing.T, ext string, visit func(path string)) {
	require.NoError(t, filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		hidden := strings.HasPrefix(name, ".") && name != ".."
		if d.IsDir() && (hidden || slices.Contains([]string{"testdata", "node_modules", "bin", "dist"}, name)) {
			return fs.SkipDir
		}
		if !d.IsDir() && filepath.Ext(name) == ext {
			rel, err := filepath.Rel("..", path)
			if err != nil {
				return err
			}
			visit(filepath.ToSlash(rel))
		}
		return nil
	}))
}

// sources returns the module's Go files that are neither tests nor generated.
func sources(t *testing.T) []source {
	var all []source
	walk(t, ".go", func(path string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		if s := parse(t, path, nil); !ast.IsGenerated(s.file) {
			all = append(all, s)
		}
	})
	require.NotEmpty(t, all)
	return all
}

func TestBudgets(t *testing.T) {
	var lengths []int
	for _, s := range sources(t) {
		for _, v := range overBudget(s) {
			t.Error(v)
		}
		for _, f := range functions(s.file) {
			lengths = append(lengths, bodyLines(s, f))
		}
	}
	slices.Sort(lengths)
	if p90 := lengths[len(lengths)*9/10]; p90 >= mostFunctions {
		t.Errorf("one function in ten has %d lines or more: nine of ten must stay under %d, so that most fit on a screen with their callers", p90, mostFunctions)
	}
}

// overBudget returns the file and the functions that are too long. A function
// is excused by a nolint:funlen in its comment, which must carry the reason.
func overBudget(s source) []string {
	var found []string
	if n := s.lines(); n > maxFileLines {
		found = append(found, fmt.Sprintf("%s has %d lines, at most %d: split it along its nouns", s.path, n, maxFileLines))
	}
	for _, f := range functions(s.file) {
		excused := f.Doc != nil && strings.Contains(commentText(f.Doc), "nolint:funlen // ")
		if n := bodyLines(s, f); n > maxFunctionLines && !excused {
			found = append(found, fmt.Sprintf("%s: %s has %d lines, at most %d: a step of it has a name", s.at(f), f.Name.Name, n, maxFunctionLines))
		}
	}
	return found
}

// commentText is the text of a comment, directives included.
func commentText(g *ast.CommentGroup) string {
	var b strings.Builder
	for _, c := range g.List {
		b.WriteString(c.Text + "\n")
	}
	return b.String()
}

func functions(file *ast.File) []*ast.FuncDecl {
	var all []*ast.FuncDecl
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
			all = append(all, f)
		}
	}
	return all
}

func bodyLines(s source, f *ast.FuncDecl) int {
	return max(0, s.set.Position(f.Body.Rbrace).Line-s.set.Position(f.Body.Lbrace).Line-1)
}

func TestEverythingExportedIsDocumented(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		dir := filepath.ToSlash(filepath.Dir(s.path))
		documented[dir] = documented[dir] || s.file.Doc != nil
		for _, v := range undocumented(s) {
			t.Error(v)
		}
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("package %s says nowhere what it is for: one of its files needs a package comment", dir)
		}
	}
}

// undocumented returns the exported names of a file that have no comment.
func undocumented(s source) []string {
	var found []string
	missing := func(n *ast.Ident) {
		found = append(found, fmt.Sprintf("%s: %s is exported and has no comment: say its units, errors, owner of slices and what is safe concurrently", s.at(n), n.Name))
	}
	for _, d := range s.file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && d.Doc == nil && isOfExported(d) {
				missing(d.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				for _, n := range bareNames(d, spec) {
					missing(n)
				}
			}
		}
	}
	return found
}

// bareNames returns the exported names of a declaration without a comment of
// their own, on their line or on their group.
func bareNames(d *ast.GenDecl, spec ast.Spec) []*ast.Ident {
	var names []*ast.Ident
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		if spec.Doc == nil && (d.Doc == nil || d.Lparen.IsValid()) {
			names = []*ast.Ident{spec.Name}
		}
	case *ast.ValueSpec:
		if spec.Doc == nil && spec.Comment == nil && d.Doc == nil {
			names = spec.Names
		}
	}
	return slices.DeleteFunc(slices.Clone(names), func(n *ast.Ident) bool { return !n.IsExported() })
}

// isOfExported reports whether f is a function, or a method of an exported type.
func isOfExported(f *ast.FuncDecl) bool {
	if f.Recv == nil {
		return true
	}
	exported := false
	ast.Inspect(f.Recv.List[0].Type, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok {
			exported = id.IsExported()
			return false
		}
		return !exported
	})
	return exported
}

// The coherence core gets the time from its caller and starts nothing.
func TestCoreIsPure(t *testing.T) {
	for _, s := range sources(t) {
		if !within(s.path, "sidecar/coherence") {
			continue
		}
		for _, v := range impure(s) {
			t.Error(v)
		}
	}
}

func impure(s source) []string {
	clock := []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}
	var found []string
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			found = append(found, s.at(n)+": the core starts no goroutine: its rules must hold in an order that the test chooses")
		case *ast.SelectorExpr:
			if id, ok := n.X.(*ast.Ident); ok && id.Name == "time" && slices.Contains(clock, n.Sel.Name) {
				found = append(found, fmt.Sprintf("%s: time.%s: the core reads no clock: the moment is an argument", s.at(n), n.Sel.Name))
			}
		}
		return true
	})
	return found
}

// Every check turns the test red.
func TestSourceChecksCatch(t *testing.T) {
	long := func(n int) string { return strings.Repeat("\tprintln()\n", n) }
	require.Len(t, overBudget(parse(t, "x.go", "package x\n"+strings.Repeat("\n", 500))), 1)
	require.Empty(t, overBudget(parse(t, "x.go", "package x\n"+strings.Repeat("\n", 498))))
	require.Len(t, overBudget(parse(t, "x.go", "package x\nfunc f() {\n"+long(61)+"}\n")), 1)
	require.Empty(t, overBudget(parse(t, "x.go", "package x\nfunc f() {\n"+long(60)+"}\n")))
	require.Empty(t, overBudget(parse(t, "x.go", "package x\n// f is a table.\n//\n//nolint:funlen // one case a line\nfunc f() {\n"+long(61)+"}\n")))

	for _, bare := range []string{
		"func F() {}", "type T struct{}", "var V int", "const C = 1", "const (\n\tC = 1\n)",
		"// T is.\ntype T int\nfunc (*T) M() {}", "// T is.\ntype T[K any] int\nfunc (t T[K]) M() {}", "// Types.\ntype (\n\tT int\n)",
	} {
		require.Len(t, undocumented(parse(t, "x.go", "package x\n"+bare+"\n")), 1, bare)
	}
	for _, good := range []string{
		"// F is.\nfunc F() {}", "func f() {}", "type t int\nfunc (t) M() {}", "// All.\nconst (\n\tC = 1\n)", "const (\n\tC = 1 // one\n)",
	} {
		require.Empty(t, undocumented(parse(t, "x.go", "package x\n"+good+"\n")), good)
	}

	for _, dirty := range []string{"func f() { go f() }", "import \"time\"\nvar v = time.Now()", "import \"time\"\nvar v = time.Since"} {
		require.Len(t, impure(parse(t, "x.go", "package x\n"+dirty+"\n")), 1, dirty)
	}
	require.Empty(t, impure(parse(t, "x.go", "package x\nimport \"time\"\nvar v = time.Second\n")))
}
