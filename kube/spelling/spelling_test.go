package spelling_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/kube/spelling"
)

func TestNearest(t *testing.T) {
	known := []string{"inject", "memory", "cpu", "mode"}
	for name, want := range map[string]string{
		"inject": "inject", "Inject": "inject", "injct": "inject", "injetc": "inject", "injekted": "",
		"memroy": "memory", "memorry": "memory", "mod": "mode", "cpus": "cpu", "moed": "mode", "": "", "status": "",
	} {
		require.Equal(t, want, spelling.Nearest(name, known, 2), name)
	}
	require.Empty(t, spelling.Nearest("memroy", known, 0))
	require.Equal(t, "cpu", spelling.Nearest("", known, 3), "all letters are added")
}
