package nemesis_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// patch is a change of a file of the standard library: in is replaced by out.
type patch struct{ file, in, out string }

// patches give a process a wall clock that jumps and a disk that is full when the
// nemesis says so. Nothing of it is in nearside: the go command puts the changed
// files in place of GOROOT's while it builds the binaries of a run.
var patches = []patch{
	{"time/time.go", "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n", "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n\tsec = jumped(sec)\n"},
	{"os/file_posix.go", "func (f *File) write(b []byte) (n int, err error) {\n", "func (f *File) write(b []byte) (n int, err error) {\n\tif err := f.full(); err != nil {\n\t\treturn 0, err\n\t}\n"},
	{"os/file_posix.go", "func (f *File) pwrite(b []byte, off int64) (n int, err error) {\n", "func (f *File) pwrite(b []byte, off int64) (n int, err error) {\n\tif err := f.full(); err != nil {\n\t\treturn 0, err\n\t}\n"},
}

// overlay writes the changed files into dir and returns the path of the list of
// them that the go command takes.
func overlay(t *testing.T, dir string) string {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	require.NoError(t, err)
	src := filepath.Join(strings.TrimSpace(string(out)), "src")
	replace := also(t)
	for _, p := range patches {
		from := filepath.Join(src, p.file)
		to := filepath.Join(dir, strings.ReplaceAll(p.file, "/", "_"))
		path := from
		if replace[from] != "" {
			path = to // changed already
		}
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		changed := strings.Replace(string(text), p.in, p.out, 1)
		require.NotEqual(t, string(text), changed, "%s is not what this test knows: mend its patches", from)
		require.NoError(t, os.WriteFile(to, []byte(changed), 0o600))
		replace[from] = to
	}
	for _, pkg := range []string{"time", "os"} {
		added, err := filepath.Abs(filepath.Join("testdata", "overlay", pkg+".go"))
		require.NoError(t, err)
		replace[filepath.Join(src, pkg, "nemesis.go")] = added
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	require.NoError(t, err)
	path := filepath.Join(dir, "overlay.json")
	require.NoError(t, os.WriteFile(path, list, 0o600))
	return path
}

// also returns the files that the caller wants changed (see the flag overlay).
func also(t *testing.T) map[string]string {
	list := struct{ Replace map[string]string }{make(map[string]string)}
	if *overlaid != "" {
		text, err := os.ReadFile(*overlaid)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &list))
	}
	return list.Replace
}

// binaries are what a run starts: nearside, and this package's test binary as the
// NATS server (see serve), both with the overlay.
type binaries struct{ nearside, server string }

var builds string // folder of the binaries, once there are any

// build makes them once for all tests.
func build(t *testing.T) binaries {
	if builds != "" {
		return binariesIn(builds)
	}
	dir, err := os.MkdirTemp("", "nearside-nemesis-build-") //nolint:usetesting // outlives the test
	require.NoError(t, err)
	builds = dir
	b, list := binariesIn(dir), overlay(t, dir)
	const module = "github.com/nearside-cache/nearside/"
	for _, args := range [][]string{
		{"build", "-overlay", list, "-o", b.nearside, module + "cmd/nearside"},
		{"test", "-c", "-overlay", list, "-o", b.server, module + "sidecar/sidecartest/nemesis"},
	} {
		out, err := exec.Command("go", args...).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	return b
}

func binariesIn(dir string) binaries {
	return binaries{filepath.Join(dir, "nearside"), filepath.Join(dir, "server")}
}
