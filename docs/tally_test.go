package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What .ci/run reports rests on .ci/tally, which no package pattern reaches: it
// is built and run here on what "go test -json" prints.
func TestTallyCounts(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "tally")
	out, err := exec.Command("go", "build", "-o", bin, "../.ci/tally/main.go").CombinedOutput()
	require.NoError(t, err, string(out))

	const (
		passA   = `{"Action":"pass","Package":"p","Test":"TestA"}`
		failB   = `{"Action":"fail","Package":"p","Test":"TestB"}`
		saidB   = `{"Action":"output","Package":"p","Test":"TestB","Output":"what B said\n"}`
		skipC   = `{"Action":"skip","Package":"p","Test":"TestC"}`
		pass    = `{"Action":"pass","Package":"p"}`
		fail    = `{"Action":"fail","Package":"p"}`
		panicky = `{"Action":"output","Package":"p","Output":"panic: p\n"}`
		noTests = `{"Action":"skip","Package":"p"}`
	)
	for _, c := range []struct {
		name, counts, says string
		ok                 bool
		lines              []string
	}{
		{"all pass", "1 0", "1 passed, 0 failed, 0 skipped", true, []string{passA, pass}},
		{"one fails", "1 1", "what B said", false, []string{passA, saidB, failB, fail}},
		{"a package fails by itself", "1 1", "panic: p", false, []string{passA, panicky, fail}},
		{"a test panics after another failed", "1 2", "panic: B", false, []string{passA, `{"Action":"fail","Package":"p","Test":"TestZ"}`,
			`{"Action":"output","Package":"p","Test":"TestB","Output":"panic: B\n"}`, fail}},
		{"skipped is said", "1 0", "1 skipped", true, []string{passA, skipC, pass}},
		{"nothing ran", "0 0", "0 passed", false, []string{noTests}},
		{"not JSON", "1 0", "go: downloading", true, []string{"go: downloading x", passA, pass}},
	} {
		t.Run(c.name, func(t *testing.T) {
			counts := filepath.Join(t.TempDir(), "counts")
			cmd := exec.Command(bin, "-counts", counts)
			cmd.Stdin = strings.NewReader(strings.Join(c.lines, "\n"))
			out, err := cmd.CombinedOutput()
			require.Equal(t, c.ok, err == nil, string(out))
			require.Contains(t, string(out), c.says)
			written, err := os.ReadFile(counts)
			require.NoError(t, err)
			require.Equal(t, c.counts, strings.TrimSpace(string(written)))
		})
	}
}
