package plot_test

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/docs/benchmarks/plot"
)

func chart() plot.Chart {
	return plot.Chart{
		Title: "GET <hits>", One: "redis", Series: []string{"nearside", "memcached"},
		Panels: []plot.Panel{{Title: "throughput", Rows: []plot.Row{
			{Label: "50 × 1 × 100 B", Dots: []plot.Dot{{"nearside", 0.5, 1, 4}, {"memcached", 0.1, 0.25, 99}}},
			{Label: "empty"},
		}}},
	}
}

func TestChart(t *testing.T) {
	var b strings.Builder
	require.NoError(t, chart().Write(&b))
	d := xml.NewDecoder(strings.NewReader(b.String()))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
	}
	require.Contains(t, b.String(), "GET &lt;hits&gt;")
	require.Contains(t, b.String(), `<circle cx="600.0" cy="`, "a ratio of 1 stands in the middle")
	require.Contains(t, b.String(), `<circle cx="340.0" cy="`, "a quarter, at the left end")
	require.Contains(t, b.String(), `x2="860.0"`, "what is beyond ends at the right end")
	require.Contains(t, b.String(), "memcached: 0.25 (0.10–99.00)")
	require.Contains(t, b.String(), ">1/4<")
}

func TestWhatIsNoRatioIsRefused(t *testing.T) {
	for _, dot := range []plot.Dot{
		{"nearside", 0, 1, 2}, {"nearside", 2, 1, 3}, {"nearside", 1, 3, 2}, {"nearside", 1, math.NaN(), 2},
		{"nearside", 1, 1, math.Inf(1)}, {"somebody", 1, 1, 1},
	} {
		c := chart()
		c.Panels[0].Rows[0].Dots[0] = dot
		require.Error(t, c.Write(io.Discard), dot)
	}
	c := chart()
	c.Series = make([]string, 9)
	require.Error(t, c.Write(io.Discard))
}
