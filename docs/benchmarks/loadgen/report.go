//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// cell is one load from one generator, measured on several servers in turn.
type cell struct {
	load
	generator string
	results   map[string][]result // by server, in the order of the rounds
}

// servers in the order of the columns; all are compared with the last.
var servers = []string{"redis", "memcached", "nearside"}

// report prints a table in Markdown of the results in a file, and draws them into
// another, if it has a name.
func report(file, picture string, w io.Writer) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	cells, err := readCells(f)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if picture != "" {
		if err := drawPlot(cells, picture); err != nil {
			return err
		}
	}
	_, err = io.WriteString(w, table(cells))
	return err
}

// readCells groups results, in the order in which their loads came first.
func readCells(r io.Reader) ([]*cell, error) {
	var cells []*cell
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var one result
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return nil, fmt.Errorf("%.80q: %w", lines.Text(), err)
		}
		i := slices.IndexFunc(cells, func(c *cell) bool { return c.load == one.load && c.generator == one.Generator })
		if i < 0 {
			i = len(cells)
			cells = append(cells, &cell{load: one.load, generator: one.Generator, results: map[string][]result{}})
		}
		cells[i].results[one.Server] = append(cells[i].results[one.Server], one)
	}
	return cells, lines.Err()
}

func table(cells []*cell) string {
	var b strings.Builder
	b.WriteString("| load | generator |")
	for _, s := range servers {
		fmt.Fprintf(&b, " %s |", s)
	}
	b.WriteString(" ÷ redis: throughput | p99 | CPU | ÷ memcached: throughput | p99 | CPU |\n|---|---|")
	b.WriteString(strings.Repeat("---|", len(servers)+6) + "\n")
	for _, c := range cells {
		fmt.Fprintf(&b, "| %s | %s |", c.label(), c.generator)
		for _, s := range servers {
			fmt.Fprintf(&b, " %s |", c.figures(s))
		}
		for _, s := range servers[:len(servers)-1] {
			fmt.Fprintf(&b, " %s | %s | %s |", c.ratio(s, throughput), c.ratio(s, p99), c.ratio(s, cpu))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// label names the load.
func (c *cell) label() string {
	text := fmt.Sprintf("%d × %d × %s", c.Conns, c.Depth, size(c.Size))
	if c.Keys >= manyKeys {
		text += fmt.Sprintf(", %d keys", c.Keys)
	}
	return text
}

// manyKeys do not fit the processor's caches, and so are another load.
const manyKeys = 100_000

func size(bytes int) string {
	if bytes >= 1024 && bytes%1024 == 0 {
		return fmt.Sprintf("%d KiB", bytes/1024)
	}
	return fmt.Sprintf("%d B", bytes)
}

func throughput(r result) float64 { return r.OpsPerSecond }
func p50(r result) float64        { return r.P50 }
func p99(r result) float64        { return r.P99 }
func cpu(r result) float64        { return r.CPU }

// figures are the medians of a server's rounds.
func (c *cell) figures(server string) string {
	all := c.results[server]
	if len(all) == 0 {
		return "–"
	}
	of := func(value func(result) float64) float64 {
		var values []float64
		for _, r := range all {
			values = append(values, value(r))
		}
		return median(values)
	}
	text := fmt.Sprintf("%.0f k/s, %.0f / %.0f µs", of(throughput)/1e3, of(p50), of(p99))
	if used := of(cpu); used > 0 {
		text += fmt.Sprintf(", CPU %.2f µs", used)
	}
	return text
}

// ratio is the median of nearside's value to a server's of the same round, with
// the lowest and the highest: neighbours on the machine disturb a round more
// than the servers within it.
func (c *cell) ratio(server string, value func(result) float64) string {
	ratios := c.ratios("nearside", server, value)
	if len(ratios) == 0 {
		return "–"
	}
	return fmt.Sprintf("**%.2f** (%.2f–%.2f)", median(ratios), slices.Min(ratios), slices.Max(ratios))
}

// ratios are those of one server's values to another's, round by round.
func (c *cell) ratios(server, to string, value func(result) float64) []float64 {
	var ratios []float64
	for _, theirs := range c.results[to] {
		for _, ours := range c.results[server] {
			if ours.Round == theirs.Round && value(theirs) > 0 && value(ours) > 0 {
				ratios = append(ratios, value(ours)/value(theirs))
			}
		}
	}
	return ratios
}

// median of one value or more.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	mid := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[mid]
	}
	return (sorted[mid-1] + sorted[mid]) / 2
}
