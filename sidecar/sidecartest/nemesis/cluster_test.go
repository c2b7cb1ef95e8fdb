package nemesis

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A cut-off server is cut off from every other one in the directions asked for,
// the others hear each other, and what stands at a closed gate is counted.
func TestIsolate(t *testing.T) {
	cases := map[string]struct{ says, hears bool }{
		"isolated": {true, true}, "deaf": {false, true}, "mute": {true, false},
	}
	for name, cut := range cases {
		t.Run(name, func(t *testing.T) {
			c := &cluster{direct: make(map[[2]int]*proxy)}
			for from := range 3 {
				for to := range 3 {
					if from != to {
						c.direct[[2]int{from, to}], _ = echo(t)
					}
				}
			}
			c.isolate(1, cut.says, cut.hears)
			for ends, p := range c.direct {
				says, hears := &p.up, &p.down // of the one that dialled
				switch {
				case ends[0] != 1 && ends[1] != 1:
					require.False(t, says.shut() || hears.shut(), ends)
					continue
				case ends[1] == 1:
					says, hears = hears, says
				}
				require.Equal(t, cut.says, says.shut(), ends)
				require.Equal(t, cut.hears, hears.shut(), ends)
			}
			c.open()
			for ends, p := range c.direct {
				require.False(t, p.up.shut() || p.down.shut(), ends)
			}
		})
	}
}
