package sim_test

import (
	"flag"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside-cache/nearside/sidecar/sidecartest/sim"
)

var (
	seeds = flag.Int("sim.seeds", 100, "how many seeds TestSim runs")
	limit = flag.Int("sim.shrink", 2000, "how many runs may go into a minimal history of a failure")
	first = flag.Uint64("sim.seed", 0, "the first of them; set alone, the only one")
)

// TestSim runs seeds until one breaks an invariant.
func TestSim(t *testing.T) {
	begin, n := *first, *seeds
	if begin == 0 {
		begin = 1
	} else if !given("sim.seeds") {
		n = 1
	}
	start := time.Now()
	var (
		next, done atomic.Uint64
		mu         sync.Mutex
		total      sim.Counts
		failed     *sim.Result
		group      sync.WaitGroup
	)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for i := next.Add(1) - 1; i < uint64(n); i = next.Add(1) - 1 {
				r := sim.Run(begin + i)
				mu.Lock()
				total.Add(r.Counts)
				if r.Violation != nil && (failed == nil || r.Seed < failed.Seed) {
					failed = &r
					next.Store(uint64(n))
				}
				mu.Unlock()
				if d := done.Add(1); d%1000 == 0 {
					t.Logf("%d seeds, %v", d, time.Since(start).Round(time.Second))
				}
			}
		})
	}
	group.Wait()
	t.Logf("%d seeds from %d in %v: %+v", done.Load(), begin, time.Since(start).Round(time.Millisecond), total)
	if failed != nil {
		t.Error(failed.Shrink(*limit).Report())
	}
}

func given(name string) (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name || f.Name == "test."+name })
	return set
}

// TestReplay holds a run against itself: a seed must fix all that happens.
func TestReplay(t *testing.T) {
	for seed := range uint64(6) {
		one, two := sim.Run(seed+1).Trace(), sim.Run(seed+1).Trace()
		for i := range min(len(one.History), len(two.History)) {
			if one.History[i] != two.History[i] {
				t.Fatalf("seed %d: step %d was %q, and then %q", seed+1, i, one.History[i], two.History[i])
			}
		}
		if len(one.History) != len(two.History) || one.Counts != two.Counts {
			t.Fatalf("seed %d: %d steps, and then %d", seed+1, len(one.History), len(two.History))
		}
	}
}
