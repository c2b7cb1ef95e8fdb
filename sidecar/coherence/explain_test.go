package coherence_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/coherence"
)

func TestExplainTellsForHowLongSetsAreDropped(t *testing.T) {
	c := coherence.New(config(), shelf{})
	c.Resume(bus.Resume{}, 0)
	require.Zero(t, c.Explain("a", time.Second).Blind, "nothing is unknown")

	c.Doubt(time.Second)
	c.Resume(bus.Resume{Blind: 10 * time.Second}, time.Second)
	require.Equal(t, 7*time.Second, c.Explain("a", 4*time.Second).Blind)

	_, verdict := c.PlainSet("a", coherence.SetFill, 4*time.Second, 0)
	require.Equal(t, coherence.Blind, verdict)
	e := c.Explain("a", 5*time.Second)
	require.True(t, e.Decided)
	require.Equal(t, coherence.Blind, e.Verdict)
	require.Equal(t, time.Second, e.Age)
}
