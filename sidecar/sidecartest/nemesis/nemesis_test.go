package nemesis_test

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
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
	overlaid = flag.String("overlay", "", "list of changed files that nearside is built with too, as of go build -overlay")
	sidecars = flag.Int("sidecars", 3, "sidecars")
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(asServer); spec != "" {
		if err := serve(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	if builds != "" {
		_ = os.RemoveAll(builds)
	}
	os.Exit(code)
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
	b := build(t)
	subjects, err := bus.NewSubjects(bus.DefaultDomain)
	require.NoError(t, err)
	for i, s := range seeds {
		n := *servers
		if *seed == "" && *duration == 0 && i < len(fixedSeeds) {
			n = 1
		}
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			run(t, nemesis.Config{
				Binary: b.nearside, Broker: broker{subjects, b.server}, Seed: s, Duration: each, Faults: *faults,
				Servers: n, Sidecars: *sidecars, Progress: os.Stdout,
			})
		})
	}
}

// biting are the faults that could do nothing without anybody's noticing.
const biting = "jump-server,disk-full,store-full,jump-sidecar,no-files,crowd," +
	"origin-down,origin-slow,origin-errors,l2-rolled-back,l2-lost,l2-full"

// Each of these faults leaves a sign of the harm that it does: a process was told
// a wrong time, a write failed for want of room, JetStream refused a message, a
// connection was refused, a load failed, a bucket was deleted. Those of routes are in
// TestIsolate.
func TestFaultsBite(t *testing.T) {
	b := build(t)
	subjects, err := bus.NewSubjects(bus.DefaultDomain)
	require.NoError(t, err)
	left := strings.Split(biting, ",")
	for try := 1; len(left) > 0; try++ { // where the machine is busy, a fault may be over before anybody met it
		require.LessOrEqual(t, try, 4, "harmless: %v", left)
		report := run(t, nemesis.Config{
			Binary: b.nearside, Broker: broker{subjects, b.server}, Seed: uint64(try), Duration: time.Duration(try) * short,
			Faults: strings.Join(left, ","), Servers: 1, Sidecars: 2, Each: true, Progress: os.Stdout,
		})
		harmless := report.Harmless(1)
		left = slices.DeleteFunc(left, func(name string) bool {
			return report.Counts["fault "+name] > 0 && !slices.Contains(harmless, "fault "+name)
		})
	}
}

// run runs, and looks for what must not be in a report and for what must.
func run(t *testing.T, c nemesis.Config) nemesis.Report {
	report, err := nemesis.Run(t.Context(), c)
	require.NoError(t, err)
	var text bytes.Buffer
	report.Print(&text)
	t.Log("\n" + text.String())
	require.Empty(t, report.Violations)
	require.Zero(t, report.Undecided, "porcupine did not decide")
	require.NotZero(t, report.Operations)
	require.NotZero(t, report.Entries, "nothing was held at the end")
	require.NotZero(t, report.Counts["answers by an L0"])
	require.Empty(t, report.Harmless(5), "faults that do no harm")
	return report
}
