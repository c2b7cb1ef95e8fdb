package bustest

import (
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"github.com/stretchr/testify/require"
)

// seedVariable repeats a run of the random case.
const seedVariable = "NEARSIDE_TEST_SEED"

// steps is how many faults the random case makes.
const steps = 12

// caseRandom makes random faults between random publishes, then heals them all
// and asks the oracle.
func caseRandom(s *scene) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(seedVariable); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(s.t, err, seedVariable)
	}
	s.t.Logf("%s=%d", seedVariable, seed)
	random := rand.New(rand.NewPCG(seed, seed))

	sidecars := s.pulse(2)
	s.publish(3)
	s.snapshot()
	for range steps {
		side := sidecars[random.IntN(len(sidecars))]
		fault := faults[random.IntN(len(faults))]
		s.t.Log(fault.name)
		fault.make(s, side, random)
		s.publish(random.IntN(4))
	}
	s.stopDropping()
	// What was lost on the wire, seqs reused included, is known a pulse later.
	for _, side := range sidecars {
		side.waitRolePulses(s.t, 3)
	}
	s.settle()
	s.checkFresh()
}

func (s *scene) stopDropping() {
	for _, side := range s.sidecars {
		side.DropNext(0)
	}
}

var faults = []struct {
	name string
	make func(*scene, *sidecar, *rand.Rand)
}{
	{"drop", func(_ *scene, side *sidecar, r *rand.Rand) { side.DropNext(1 + r.IntN(3)) }},
	{"duplicate", func(_ *scene, side *sidecar, r *rand.Rand) { side.DuplicateNext(1 + r.IntN(3)) }},
	{"disconnect", func(s *scene, side *sidecar, r *rand.Rand) {
		side.Disconnect(s.t)
		s.publish(r.IntN(4))
		side.Reconnect(s.t)
	}},
	{"trim", func(s *scene, side *sidecar, r *rand.Rand) {
		side.Disconnect(s.t)
		events := s.publish(3)
		s.h.Trim(s.t, events[r.IntN(3)].Position.Seq)
		side.Reconnect(s.t)
	}},
	{"purge", func(s *scene, _ *sidecar, _ *rand.Rand) { s.h.Purge(s.t) }},
	{"publish own", func(s *scene, side *sidecar, r *rand.Rand) { s.publishOn(side, r.IntN(4)) }},
	{"restart", func(s *scene, _ *sidecar, _ *rand.Rand) { s.h.Restart(s.t) }},
	{"snapshot", func(s *scene, _ *sidecar, _ *rand.Rand) { s.snapshot() }},
	{"roll back", func(s *scene, _ *sidecar, _ *rand.Rand) { s.rollback() }},
	{"re-create", func(s *scene, _ *sidecar, _ *rand.Rand) {
		s.h.DeleteStream(s.t)
		s.h.Recreate(s.t)
		s.snapshot()
	}},
}
