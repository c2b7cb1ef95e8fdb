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

// report prints a table in Markdown of the results in a file.
func report(file string, w io.Writer) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	cells, err := readCells(f)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
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
		fmt.Fprintf(&b, "| %d × %d × %s | %s |", c.Conns, c.Depth, size(c.Size), c.generator)
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
	var ratios []float64
	for _, theirs := range c.results[server] {
		for _, ours := range c.results["nearside"] {
			if ours.Round == theirs.Round && value(theirs) > 0 {
				ratios = append(ratios, value(ours)/value(theirs))
			}
		}
	}
	if len(ratios) == 0 {
		return "–"
	}
	return fmt.Sprintf("**%.2f** (%.2f–%.2f)", median(ratios), slices.Min(ratios), slices.Max(ratios))
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
