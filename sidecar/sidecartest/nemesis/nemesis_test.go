package nemesis_test

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/sidecartest/nemesis"
)

var (
	faults   = flag.String("faults", "all", "names of faults, separated by commas; all; none; list prints them")
	seed     = flag.String("seed", "", "of one run; empty: a random one")
	duration = flag.Duration("duration", 0, "of one run; 0: a few short ones")
	servers  = flag.Int("servers", 3, "NATS servers")
	sidecars = flag.Int("sidecars", 3, "sidecars")
	binary   = flag.String("binary", "", "nearside; empty: built from this module")
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(asServer); spec != "" {
		if err := serve(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// short is how long one of the runs takes that every change must pass.
const short = 5 * time.Second

// fixedSeeds are those of runs that every change must pass, besides a random one.
// They have a server alone, which recovers without an election.
var fixedSeeds = []uint64{1}

// No answer of any sidecar breaks an invariant, whatever is done to processes,
// connections and the stream.
func TestNemesis(t *testing.T) {
	if *faults == "list" {
		for _, f := range nemesis.Faults() {
			fmt.Printf("  %-16s %s\n", f.Name, f.About)
		}
		return
	}
	seeds, each := append(fixedSeeds, rand.Uint64()>>32), short
	if *duration > 0 {
		each, seeds = *duration, seeds[len(fixedSeeds):]
	}
	if *seed != "" {
		var given uint64
		_, err := fmt.Sscan(*seed, &given)
		require.NoError(t, err, "-seed")
		seeds = []uint64{given}
	}
	path := *binary
	if path == "" {
		path = build(t)
	}
	subjects, err := bus.NewSubjects(bus.DefaultDomain)
	require.NoError(t, err)
	for i, s := range seeds {
		n := *servers
		if *seed == "" && *duration == 0 && i < len(fixedSeeds) {
			n = 1
		}
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			report, err := nemesis.Run(t.Context(), nemesis.Config{
				Binary: path, Broker: broker{subjects}, Seed: s, Duration: each, Faults: *faults,
				Servers: n, Sidecars: *sidecars, Progress: os.Stdout,
			})
			require.NoError(t, err)
			var text bytes.Buffer
			report.Print(&text)
			t.Log("\n" + text.String())
			require.Empty(t, report.Violations)
			require.Zero(t, report.Undecided, "porcupine did not decide")
			require.NotZero(t, report.Operations)
		})
	}
}

// build returns the path of a binary made from this module.
func build(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "nearside")
	out, err := exec.Command("go", "build", "-o", path, "github.com/nearside-cache/nearside/cmd/nearside").CombinedOutput()
	require.NoError(t, err, string(out))
	return path
}
