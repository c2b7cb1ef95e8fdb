// Package docs_test holds the code and the documents to what they say of each
// other: who may import whom, the size budgets, and links that lead somewhere.
package docs_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/nearside-cache/nearside"

// pkg is a package of this module as "go list" describes it.
type pkg struct {
	ImportPath   string
	Dir          string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// name is the package's path inside the module.
func (p pkg) name() string { return inside(p.ImportPath) }

// isTestHelper reports whether p exists for tests only, as net/http/httptest.
func (p pkg) isTestHelper() bool { return strings.HasSuffix(p.name(), "test") }

// inside returns path without the module, or "" if path is not of this module.
func inside(path string) string {
	name, ok := strings.CutPrefix(path, module+"/")
	if !ok {
		return ""
	}
	return name
}

// area is the first element of a path inside the module.
func area(name string) string {
	first, _, _ := strings.Cut(name, "/")
	return first
}

// within reports whether a package is one of roots or below one.
func within(name string, roots ...string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		return name == root || strings.HasPrefix(name, root+"/")
	})
}

// areas says which areas of the module each area may import.
var areas = map[string][]string{
	"api":        {"api"},
	"bus":        {"bus"},
	"localstore": {"localstore"},
	"sidecar":    {"sidecar", "api", "bus", "localstore"},
	"sdk":        {"sdk", "api"},
	"kube":       {"kube"},
	"cmd":        {"cmd", "sidecar", "api", "bus", "localstore", "sdk", "kube"},
	"docs":       {"docs", "api", "sdk"},
}

const areasReason = "api, bus and localstore do not know one another, the sidecar puts them together, and an SDK must not pull the daemon into an app"

// rule forbids imports. It returns why p must not import path, or "".
type rule func(p pkg, path string, fromTest bool) string

var concreteBuses = []string{"bus/natsbus", "bus/membus", "bus/embedded"}

var rules = []rule{
	func(p pkg, path string, fromTest bool) string {
		to := inside(path)
		if to == "" || slices.Contains(areas[area(p.name())], area(to)) {
			return ""
		}
		if fromTest && area(p.name()) == "sdk" {
			return "" // an SDK's tests run against a real sidecar
		}
		if within(p.name(), "sidecar/sidecartest/nemesis") && area(to) == "sdk" {
			return "" // it torments whole pods, apps with an L0 too
		}
		return areasReason
	},
	func(p pkg, path string, fromTest bool) string {
		if !strings.HasPrefix(path, "github.com/nats-io/") || fromTest || within(p.name(), "bus/natsbus", "bus/embedded") {
			return ""
		}
		return "only bus/natsbus and bus/embedded know NATS: everything else is written against the bus contract"
	},
	func(p pkg, path string, _ bool) string {
		if !strings.HasPrefix(path, "github.com/allegro/bigcache") || within(p.name(), "localstore") {
			return ""
		}
		return "only localstore knows bigcache and its traps"
	},
	func(p pkg, path string, _ bool) string {
		if !strings.HasPrefix(path, "k8s.io/") && !strings.HasPrefix(path, "sigs.k8s.io/") || within(p.name(), "kube") {
			return ""
		}
		return "only kube knows Kubernetes: a sidecar runs wherever there is a socket"
	},
	func(p pkg, path string, _ bool) string {
		if !strings.HasPrefix(path, "k8s.io/") || !within(p.name(), "kube/inject") || within(path, "k8s.io/api", "k8s.io/apimachinery") {
			return ""
		}
		return "kube/inject is pure: it knows pods, and no cluster"
	},
	func(p pkg, path string, fromTest bool) string {
		to := inside(path)
		if !within(to, concreteBuses...) || fromTest || p.isTestHelper() || within(p.name(), "cmd") || within(p.name(), concreteBuses...) {
			return ""
		}
		return "only cmd names a concrete bus: the sidecar works with any that keeps the contract"
	},
	func(p pkg, path string, fromTest bool) string {
		if !within(p.name(), "sidecar/coherence") || fromTest || path == "sync/atomic" || !within(path, "os", "net", "io", "context", "sync", "log", "syscall", "unsafe", "math/rand", "golang.org/x/sys") {
			return ""
		}
		return "the coherence core is pure: no clock, no I/O, no goroutine, so that its rules can be tested in every order of events"
	},
}

// violations returns what pkgs import against the rules, one line each.
func violations(pkgs []pkg) []string {
	var found []string
	for _, p := range pkgs {
		check := func(imports []string, fromTest bool) {
			for _, path := range imports {
				for _, forbidden := range rules {
					if why := forbidden(p, path, fromTest); why != "" {
						found = append(found, fmt.Sprintf("%s imports %s: %s", p.name(), path, why))
					}
				}
			}
		}
		check(p.Imports, false)
		check(p.TestImports, true)
		check(p.XTestImports, true)
	}
	return found
}

// packages lists the packages of this module.
func packages(t *testing.T) []pkg {
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = ".."
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	var pkgs []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		pkgs = append(pkgs, p)
	}
	require.NotEmpty(t, pkgs)
	return pkgs
}

func TestImports(t *testing.T) {
	for _, v := range violations(packages(t)) {
		t.Error(v)
	}
}

// Every rule turns the test red.
func TestImportRulesCatch(t *testing.T) {
	of := func(name string, imports ...string) pkg {
		return pkg{ImportPath: module + "/" + name, Imports: imports}
	}
	inTest := func(name string, imports ...string) pkg {
		return pkg{ImportPath: module + "/" + name, XTestImports: imports}
	}
	for _, p := range []pkg{
		of("api/resp", module+"/bus"),
		of("bus", module+"/localstore"),
		inTest("bus", module+"/localstore"),
		of("localstore", module+"/api"),
		of("sidecar", module+"/cmd/nearside"),
		of("sdk/go/nearside", module+"/sidecar"),
		of("unheard/of", module+"/api"),
		of("sidecar", "github.com/nats-io/nats.go"),
		of("bus", "github.com/nats-io/nats.go/jetstream"),
		of("sidecar", "github.com/allegro/bigcache/v3"),
		inTest("sidecar", "github.com/allegro/bigcache/v3"),
		of("sidecar", module+"/bus/natsbus"),
		of("sidecar", module+"/kube/inject"),
		of("kube/webhook", module+"/sidecar"),
		of("cmd/nearside", "k8s.io/api/core/v1"),
		of("kube/inject", "k8s.io/client-go/kubernetes"),
		of("sidecar/coherence", "os"),
		of("sidecar/coherence", "net/http"),
		of("sidecar/coherence", "sync"),
	} {
		require.Len(t, violations([]pkg{p}), 1, "%+v", p)
	}
	require.Empty(t, violations([]pkg{
		of("api/resp", module+"/api"),
		of("bus/natsbus", module+"/bus", "github.com/nats-io/nats.go"),
		of("bus/natsbus", module+"/bus/embedded"),
		of("localstore", "github.com/allegro/bigcache/v3", "sync"),
		of("sidecar", module+"/api", module+"/bus", module+"/localstore", module+"/sidecar/coherence", "net"),
		of("sidecar/sidecartest", module+"/bus/membus"),
		inTest("sidecar", module+"/bus/membus"),
		of("sidecar/coherence", module+"/bus", "time", "hash/maphash"),
		inTest("sidecar/coherence", "os"),
		of("cmd/nearside", module+"/bus/natsbus", module+"/sidecar", module+"/kube/webhook"),
		of("kube/webhook", module+"/kube/inject", "k8s.io/api/core/v1"),
		of("kube/inject", "k8s.io/api/core/v1", "k8s.io/apimachinery/pkg/api/resource"),
		inTest("sdk/go/nearside", module+"/sidecar/sidecartest"),
	}))
}

// topLevel is everything that the repository's first folder may hold.
var topLevel = []string{
	"api", "bus", "charts", "cmd", "docs", "kube", "localstore", "sdk", "sidecar",
	"CHANGELOG.md", "Dockerfile", "LICENSE", "Makefile", "README.md", "go.mod", "go.sum",
	"bin", "dist", "nearside", // built, and ignored by git
}

func TestTopLevelEntries(t *testing.T) {
	entries, err := os.ReadDir("..")
	require.NoError(t, err)
	for _, e := range entries {
		ignored := slices.Contains([]string{".out", ".prof", ".test"}, filepath.Ext(e.Name()))
		if !ignored && !strings.HasPrefix(e.Name(), ".") && !slices.Contains(topLevel, e.Name()) {
			t.Errorf("%s does not belong at the top: a newcomer must see the whole shape in one listing; put it below one of %q", e.Name(), topLevel)
		}
	}
}
