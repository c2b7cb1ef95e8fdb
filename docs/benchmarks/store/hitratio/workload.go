package main

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// workload is a run of reads. Who misses fills.
type workload struct {
	name   string
	keys   []uint32            // in the order in which they are read
	size   func(id uint32) int // of a key's value in bytes
	warm   int                 // reads at the beginning that are not counted
	shares []float64           // budgets, as parts of what all entries weigh
}

// zipf draws ranks with probability proportional to 1/rank^s; any s, below 1 too.
type zipf struct {
	sums []float64
	r    *rand.Rand
}

func newZipf(n int, s float64, r *rand.Rand) *zipf {
	z := &zipf{make([]float64, n), r}
	sum := 0.0
	for i := range z.sums {
		sum += math.Pow(float64(i+1), -s)
		z.sums[i] = sum
	}
	return z
}

func (z *zipf) draw() uint32 {
	return uint32(sort.SearchFloat64s(z.sums, z.r.Float64()*z.sums[len(z.sums)-1]))
}

// zipfian reads n times from keys by Zipf's law. With scans, a fifth of the reads are
// sequential runs through keys that nobody else reads.
func zipfian(name string, n, keys int, s float64, scans bool, size func(uint32) int) workload {
	const run = 5000
	r := rand.New(rand.NewPCG(1, uint64(s*1000)))
	z := newZipf(keys, s, r)
	w := workload{name: name, size: size, warm: n / 2, shares: []float64{0.05, 0.1, 0.2}}
	for next := uint32(keys); len(w.keys) < n; {
		for range 4 * run {
			w.keys = append(w.keys, z.draw())
		}
		for range run {
			if scans {
				w.keys = append(w.keys, next)
				next++
			}
		}
	}
	return w
}

// mixed gives half the keys 100 bytes, a third 1 KiB and the others 4 KiB.
func mixed(id uint32) int {
	switch h := id * 2654435761 >> 16 % 6; {
	case h < 3:
		return 100
	case h < 5:
		return 1 << 10
	}
	return 4 << 10
}

func constant(n int) func(uint32) int { return func(uint32) int { return n } }

// readTrace reads a trace, gzipped or not, of one read a line: LIRS (a block number; *
// is a comment) or ARC (first block, number of blocks, and what is ignored).
func readTrace(path string) (workload, error) {
	name := filepath.Base(path)
	w := workload{name: name, size: constant(16 << 10), shares: []float64{0.1, 0.2, 0.4, 0.6, 0.8}}
	f, err := os.Open(path)
	if err != nil {
		return w, fmt.Errorf("open trace: %w", err)
	}
	defer func() { _ = f.Close() }() // it was read only
	var in io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		if in, err = gzip.NewReader(f); err != nil {
			return w, fmt.Errorf("trace %s: %w", path, err)
		}
	}
	ids := map[uint64]uint32{}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || fields[0] == "*" {
			continue
		}
		first, err := strconv.ParseUint(fields[0], 10, 64)
		blocks := uint64(1)
		if len(fields) > 1 && err == nil {
			blocks, err = strconv.ParseUint(fields[1], 10, 64)
		}
		if err != nil {
			return w, fmt.Errorf("trace %s: line %q: %w", path, lines.Text(), err)
		}
		for b := first; b < first+blocks; b++ {
			id, ok := ids[b]
			if !ok {
				id = uint32(len(ids))
				ids[b] = id
			}
			w.keys = append(w.keys, id)
		}
	}
	if err := lines.Err(); err != nil {
		return w, fmt.Errorf("trace %s: %w", path, err)
	}
	return w, nil
}

// mean is what an entry has, key and value, in bytes.
func (w workload) mean() int {
	n, entries := w.weight()
	return int(n) / entries
}

// weight is what all entries of a workload have, keys and values, in bytes.
func (w workload) weight() (n int64, entries int) {
	seen := map[uint32]bool{}
	for _, id := range w.keys {
		if !seen[id] {
			seen[id] = true
			n += int64(keyLen + w.size(id))
		}
	}
	return n, len(seen)
}
