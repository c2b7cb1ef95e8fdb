package nemesis

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestChooseFaults(t *testing.T) {
	all, err := choose("all", 3)
	require.NoError(t, err)
	require.Len(t, all, len(Faults())-1, "all but what needs a server alone")
	names := make(map[string]bool)
	for _, f := range all {
		require.False(t, names[f.Name], f.Name)
		require.NotEmpty(t, f.About)
		names[f.Name] = true
	}
	none, err := choose("none", 3)
	require.NoError(t, err)
	require.Empty(t, none)
	two, err := choose("deaf, kill-leader", 3)
	require.NoError(t, err)
	require.Len(t, two, 2)
	_, err = choose("deaf,kill-leader", 1)
	require.ErrorContains(t, err, `there is no fault "kill-leader" on 1 servers`)
}
