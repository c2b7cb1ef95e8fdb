package charts_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// docs is where the metrics and the runbooks are.
const docs = "../docs"

var metric = regexp.MustCompile(`\bnearside_[a-z_]+`)

// known returns every metric that the documents name.
func known(t *testing.T) []string {
	var names []string
	for _, pattern := range []string{"*.md", "kubernetes/*.md"} {
		files, err := filepath.Glob(filepath.Join(docs, pattern))
		require.NoError(t, err)
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			names = append(names, metric.FindAllString(string(text), -1)...)
		}
	}
	return names
}

// Alerts and the dashboard ask for metrics that there are.
func TestMetricsExist(t *testing.T) {
	names := known(t)
	for _, file := range []string{"alerts.yaml", "dashboard.json"} {
		text, err := os.ReadFile(filepath.Join("nearside", "files", file))
		require.NoError(t, err)
		found := metric.FindAllString(string(text), -1)
		require.NotEmpty(t, found)
		for _, name := range found {
			require.Contains(t, names, strings.TrimSuffix(name, "_bucket"), "%s asks for a metric that no document names", file)
		}
	}
}

// alert is one of files/alerts.yaml. The template of the rule reads them all.
type alert struct {
	Alert, Expr, For, Severity, Summary, Description, Runbook string
}

// Whoever is woken by an alert finds out what to do.
func TestAlertsHaveRunbooks(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("nearside", "files", "alerts.yaml"))
	require.NoError(t, err)
	var groups map[string][]alert
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	decoder.KnownFields(true)
	require.NoError(t, decoder.Decode(&groups))
	for _, group := range groups {
		for _, a := range group {
			require.Contains(t, []string{"warning", "critical"}, a.Severity, a.Alert)
			require.NotEmpty(t, a.Expr, a.Alert)
			require.NotEmpty(t, a.For, a.Alert)
			require.True(t, strings.HasSuffix(a.Summary, ".") && strings.HasSuffix(a.Description, "."), a.Alert)
			file, anchor, _ := strings.Cut(a.Runbook, "#")
			page, err := os.ReadFile(filepath.Join(docs, file))
			require.NoError(t, err, a.Alert)
			require.True(t, anchor == "" || slices.Contains(anchors(string(page)), anchor), "%s: %s has no heading #%s", a.Alert, file, anchor)
		}
	}
}

// anchors returns what a page's headings are called in links.
func anchors(page string) []string {
	var all []string
	for line := range strings.Lines(page) {
		if title, ok := strings.CutPrefix(strings.TrimLeft(strings.TrimSpace(line), "#"), " "); ok && strings.HasPrefix(line, "#") {
			title = regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(title), "")
			all = append(all, strings.ReplaceAll(title, " ", "-"))
		}
	}
	return all
}

// The table of settings in docs/kubernetes/values.md names every value of a sidecar,
// and flags that serve has.
func TestSettingsTable(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(docs, "kubernetes", "values.md"))
	require.NoError(t, err)
	table := string(text)
	leaves(readValues(t, filepath.Join("nearside", "values.yaml")), func(v *value) {
		require.True(t, v.path[0] != "sidecar" || strings.Contains(table, "`"+v.name()+"`"), "%s is not in the table", v.name())
	})
	for _, name := range regexp.MustCompile("`sidecar\\.[a-zA-Z.]+`").FindAllString(table, -1) {
		name = strings.Trim(name, "`")
		found := false
		leaves(readValues(t, filepath.Join("nearside", "values.yaml")), func(v *value) { found = found || strings.HasPrefix(v.name(), name) })
		require.True(t, found, "there is no value %s", name)
	}
	cli, err := os.ReadFile(filepath.Join(docs, "cli.md"))
	require.NoError(t, err)
	_, serve, ok := strings.Cut(string(cli), "## nearside serve\n")
	require.True(t, ok)
	for _, flag := range regexp.MustCompile("`(--[a-z-]+)`").FindAllStringSubmatch(table, -1) {
		if flag[1] != "--origin" { // of config show
			require.Contains(t, serve, " "+flag[1]+" ", "serve has no such flag")
		}
	}
}

// Commands that are copied from the documents do what stands beside them: an upgrade
// keeps the release's values, and the logs of a test that failed are shown though some
// of its containers never started.
func TestCommands(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(docs, "kubernetes", "*.md"))
	require.NoError(t, err)
	found := 0
	for _, page := range append(pages, filepath.Join("nearside", "templates", "NOTES.txt"), filepath.Join("..", "README.md")) {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
			command := strings.TrimSpace(line)
			if strings.HasPrefix(command, "helm upgrade ") {
				found++
				require.Regexp(t, ` (-f values\.yaml|--reset-then-reuse-values)`, command, page)
			}
			if strings.HasPrefix(command, "kubectl logs ") && strings.Contains(command, "--all-containers") {
				found++
				require.Contains(t, command, " --ignore-errors", page)
			}
		}
	}
	require.Equal(t, 7, found)
}
