// Hitratio measures how often caches hit at equal bytes of memory: nearside's store, otter,
// ristretto, LRU and bigcache alone, on Zipf with and without scans, and on traces.
//
// A cache's budget is of memory, not of values: what an entry of each takes of the heap is
// measured first, and counts.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nearside-cache/nearside/docs/benchmarks/store/internal/plot"
)

const keyLen = 16

func main() {
	n := flag.Int("n", 4_000_000, "reads of each Zipf workload; the first half is not counted")
	keys := flag.Int("keys", 500_000, "keys of each Zipf workload")
	traces := flag.String("traces", "", "folder of traces in LIRS or ARC form, gzipped or not, besides")
	out := flag.String("out", "", "folder to write a plot to for each workload")
	only := flag.String("only", "", "only workloads whose name contains this")
	caches := flag.String("caches", "", "only caches whose names are in this list")
	flag.Parse()
	kinds = slices.DeleteFunc(kinds, func(k kind) bool { return *caches != "" && !strings.Contains(*caches, k.name) })
	if err := run(*n, *keys, *traces, *out, *only); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// workloads are made one at a time: each takes some memory.
func workloads(n, keys int, folder string) ([]func() (workload, error), error) {
	var all []func() (workload, error)
	for _, s := range []float64{0.8, 0.99, 1.1} {
		all = append(all,
			func() (workload, error) {
				return zipfian(fmt.Sprintf("Zipf %g, 100 B", s), n, keys, s, false, constant(100)), nil
			},
			func() (workload, error) {
				return zipfian(fmt.Sprintf("Zipf %g with scans, 100 B", s), n, keys, s, true, constant(100)), nil
			},
			func() (workload, error) {
				return zipfian(fmt.Sprintf("Zipf %g with scans, 100 B to 4 KiB", s), n, keys/10, s, true, mixed), nil
			})
	}
	if folder == "" {
		return all, nil
	}
	files, err := filepath.Glob(filepath.Join(folder, "*"))
	for _, path := range files {
		all = append(all, func() (workload, error) { return readTrace(path) })
	}
	return all, err
}

func run(n, keys int, traces, out, only string) error {
	all, err := workloads(n, keys, traces)
	if err != nil {
		return err
	}
	overheads := map[string]int{}
	for _, load := range all {
		w, err := load()
		if err != nil {
			return err
		}
		if !strings.Contains(w.name, only) {
			continue
		}
		chart := measure(w, overheads)
		if out == "" {
			continue
		}
		name := strings.NewReplacer(" ", "-", ",", "").Replace(w.name) + ".svg"
		if err := os.WriteFile(filepath.Join(out, name), chart.SVG(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// measure runs a workload through every cache with every budget, and prints a table.
func measure(w workload, overheads map[string]int) plot.Chart {
	total, _ := w.weight()
	chart := plot.Chart{
		Title: w.name, X: "budget, % of the bytes of all keys and values", Y: "hits, %",
		Series: make([]plot.Series, len(kinds)),
	}
	fmt.Printf("\n**%s**: %d reads, %.1f MiB of keys and values\n\n| budget |", w.name, len(w.keys), float64(total)/(1<<20))
	for i, k := range kinds {
		fmt.Printf(" %s |", k.name)
		chart.Series[i].Name = k.name
	}
	fmt.Printf(" nearside − best of otter, ristretto |\n|---|%s\n", strings.Repeat("---|", len(kinds)+1))
	for _, share := range w.shares {
		budget := max(int64(share*float64(total)), least)
		fmt.Printf("| %.0f %%, %.1f MiB |", share*100, float64(budget)/(1<<20))
		ratios := map[string]float64{}
		for i, k := range kinds {
			r := 100 * ratio(k, w, budget, overheads)
			ratios[k.name] = r
			fmt.Printf(" %.2f |", r)
			chart.Series[i].Points = append(chart.Series[i].Points, plot.Point{X: share * 100, Y: r})
		}
		fmt.Printf(" **%+.2f** |\n", ratios["nearside"]-max(ratios["otter"], ratios["ristretto"]))
	}
	return chart
}

// least is the smallest budget that is measured: below, nearside's buffers count.
const least = 1 << 20

// ratio returns the share of counted reads that hit.
func ratio(k kind, w workload, budget int64, overheads map[string]int) float64 {
	size := w.mean() - keyLen
	id := fmt.Sprint(k.name, size)
	if _, ok := overheads[id]; !ok {
		overheads[id] = k.overhead(size)
		fmt.Fprintf(os.Stderr, "%s: %d beside key and value of %d\n", k.name, overheads[id], size)
	}
	c := k.open(budget, overheads[id], w.mean())
	defer c.close()
	value := make([]byte, maxValue)
	hits := 0
	for i, id := range w.keys {
		key := fmt.Sprintf("%016d", id)
		switch hit := c.get(key); {
		case !hit:
			c.set(key, value[:w.size(id)])
		case i >= w.warm:
			hits++
		}
	}
	return float64(hits) / float64(len(w.keys)-w.warm)
}
