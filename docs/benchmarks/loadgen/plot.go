//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/nearside-cache/nearside/docs/benchmarks/plot"
)

// ratioTo1 is what the plot compares with.
const ratioTo1 = "redis"

// drawPlot writes a plot of the ratios to Redis as SVG.
func drawPlot(cells []*cell, path string) (err error) {
	c := plot.Chart{Title: "GET hits: ratios to Redis within a round, median and range", One: ratioTo1, Series: []string{"nearside", "memcached"}}
	for _, quantity := range []struct {
		title string
		of    func(result) float64
	}{
		{"throughput (more is better)", throughput}, {"p99 (less is better)", p99}, {"CPU of the server for a request (less is better)", cpu}} {
		panel := plot.Panel{Title: quantity.title}
		for _, cell := range cells {
			row := plot.Row{Label: cell.label() + ", " + cell.generator}
			for _, server := range c.Series {
				if ratios := cell.ratios(server, ratioTo1, quantity.of); len(ratios) > 0 {
					row.Dots = append(row.Dots, plot.Dot{Series: server, Low: slices.Min(ratios), Mid: median(ratios), Up: slices.Max(ratios)})
				}
			}
			if len(row.Dots) > 0 {
				panel.Rows = append(panel.Rows, row)
			}
		}
		c.Panels = append(c.Panels, panel)
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := c.Write(file); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
