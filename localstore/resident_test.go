//go:build linux && !race

package localstore_test

import (
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/localstore"
)

// resident returns the resident memory of this process in bytes.
func resident(t testing.TB) int64 {
	b, err := os.ReadFile("/proc/self/statm")
	require.NoError(t, err)
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	require.NoError(t, err)
	return pages * int64(os.Getpagesize())
}

// freshProcess is set in the environment of a process that is to measure itself.
const freshProcess = "NEARSIDE_TEST_FRESH_PROCESS"

// An idle store costs next to nothing, and a full one what was promised, also as
// the operating system counts. (The race detector's shadow memory is counted
// too, hence not with it.)
func TestResident(t *testing.T) {
	if os.Getenv(freshProcess) == "" {
		// Memory that other tests have left behind would be cleared when it is
		// used again, and so be resident.
		cmd := exec.Command(os.Args[0], "-test.run=^TestResident$", "-test.v")
		cmd.Env = append(os.Environ(), freshProcess+"=1")
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		require.NoError(t, err)
		require.Contains(t, string(out), "full: ")
		return
	}
	const budget = 256 << 20
	debug.FreeOSMemory()
	before := resident(t)
	s := open(t, localstore.Config{Budget: budget})
	idle := resident(t) - before
	t.Logf("idle: %d KiB", idle>>10)
	require.Less(t, idle, int64(budget/40))

	fill(t, s, 100, 1.3)
	debug.FreeOSMemory()
	full := resident(t) - before
	t.Logf("full: %d MiB of %d", full>>20, budget>>20)
	require.Less(t, full, int64(budget*5/4))
	require.Greater(t, full, s.Stats().Capacity*9/10, "it is measured at all")
}
