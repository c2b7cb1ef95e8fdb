package inject_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/nearside-cache/nearside/kube/inject"
)

const (
	root    = "../.."
	library = root + "/charts/nearside-sidecar"
)

// generated writes, or compares, a file that is made of the Go source.
func generated(t *testing.T, path, text string) {
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, text, string(got), "%s: run this test with -update", path)
}

// tables is what templates have from Go: the version, the defaults and the
// annotations.
func tables(t *testing.T) string {
	var chart struct{ AppVersion string }
	text, err := os.ReadFile(filepath.Join(library, "Chart.yaml"))
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, &chart))
	require.NotEmpty(t, chart.AppVersion)
	defaults, err := yaml.Marshal(inject.Defaults())
	require.NoError(t, err)
	var rules []map[string]string
	for _, a := range inject.Annotations() {
		rules = append(rules, map[string]string{"name": a.Name, "setting": a.Setting, "pattern": a.Allowed.String(), "want": a.Want})
	}
	annotations, err := yaml.Marshal(rules)
	require.NoError(t, err)
	return fmt.Sprintf("{{- define \"nearside.sidecar.version\" -}}\n%s\n{{- end }}\n\n"+
		"{{- define \"nearside.sidecar.defaults\" -}}\n%s{{- end }}\n\n"+
		"{{- define \"nearside.sidecar.annotations\" -}}\n%s{{- end }}\n", chart.AppVersion, defaults, annotations)
}

const byTest = "{{- /* Written by `go test ./kube/inject -run TestTemplates -update`%s; a test compares it. */ -}}\n"

// The chart has the templates of the library chart as a copy: a chart that
// depends on another cannot be installed from its folder.
func TestTemplates(t *testing.T) {
	text := tables(t)
	generated(t, filepath.Join(library, "templates", "_annotations.tpl"), fmt.Sprintf(byTest, "")+text)
	container, err := os.ReadFile(filepath.Join(library, "templates", "_container.tpl"))
	require.NoError(t, err)
	generated(t, filepath.Join(root, "charts", "nearside", "templates", "_injection-sidecar.tpl"),
		fmt.Sprintf(byTest, " from the library chart nearside-sidecar")+text+"\n"+string(container))
}

// The table of annotations in the documents is made of the Go source.
func TestAnnotationsAreDocumented(t *testing.T) {
	var table bytes.Buffer
	table.WriteString("| annotation | setting | allowed | what it decides |\n|---|---|---|---|\n")
	fmt.Fprintf(&table, "| `%s` | | true or false | Whether the pod gets a sidecar. |\n", inject.AnnotationInject)
	for _, a := range inject.Annotations() {
		fmt.Fprintf(&table, "| `%s%s` | `sidecar.%s` | %s | %s |\n", inject.Prefix, a.Name, a.Setting, a.Want, a.Does)
	}
	path := filepath.Join(root, "docs", "kubernetes", "injection.md")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	const begin, end = "<!-- annotations: written by go test ./kube/inject -update -->\n", "<!-- end of annotations -->\n"
	before, rest, found := strings.Cut(string(text), begin)
	require.True(t, found)
	_, after, found := strings.Cut(rest, end)
	require.True(t, found)
	generated(t, path, before+begin+table.String()+end+after)
}
