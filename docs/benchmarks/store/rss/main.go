// Rss lets values of one size after the other churn through nearside's store, and holds the
// process's resident memory against the budget: it may never be above budget + 10 % + 25 MiB.
//
// Keys come by Zipf's law from three times as many as fit; what is missing is stored; a
// twentieth of the reads store anew with a value of another length, and as many delete. The
// collector's memory limit is budget + 5 % + 8 MiB: without one, garbage may grow as large as
// what is held, whatever the store does.
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/nearside-cache/nearside/docs/benchmarks/store/internal/plot"
	"github.com/nearside-cache/nearside/localstore"
)

const mib = 1 << 20

// churn is a phase: values of some size.
type churn struct {
	name string
	size func(r *rand.Rand) int
	mean int
}

var churns = []churn{
	{"100 B", func(r *rand.Rand) int { return 90 + r.IntN(21) }, 100},
	{"1 KiB", func(r *rand.Rand) int { return 1000 + r.IntN(49) }, 1 << 10},
	{"16 KiB", func(r *rand.Rand) int { return 16000 + r.IntN(769) }, 16 << 10},
	{"mixed", func(r *rand.Rand) int { return []int{100, 1 << 10, 16 << 10}[r.IntN(3)] + r.IntN(32) }, 6 << 10},
}

func main() {
	budget := flag.Int64("budget", 512, "MiB")
	each := flag.Duration("each", 450*time.Second, "how long each of the four sizes churns, one after the other; the default is half an hour in all")
	out := flag.String("out", "", "file for the plot")
	flag.Parse()
	if err := run(*budget*mib, *each, *out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(budget int64, each time.Duration, out string) error {
	debug.SetMemoryLimit(budget + budget/20 + 8*mib)
	before, err := resident()
	if err != nil {
		return err
	}
	s, err := localstore.Open(localstore.Config{Budget: budget})
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	bound := budget + budget/10 + 25*mib
	chart := plot.Chart{
		Title: fmt.Sprintf("Resident memory, budget %d MiB: 100 B, 1 KiB, 16 KiB, mixed", budget/mib),
		X:     "seconds", Y: "MiB", FromZero: true,
		Series: []plot.Series{{Name: "resident"}, {Name: "budget"}, {Name: "bound"}, {Name: "keys and values"}},
	}
	fmt.Printf("Budget %d MiB, bound %d MiB; a process of %d MiB before the store was opened\n\n"+
		"| values | most resident | ÷ budget | keys and values at the end | operations |\n|---|---|---|---|---|\n",
		budget/mib, bound/mib, before/mib)
	began, most := time.Now(), int64(0)
	for _, c := range churns {
		peak, ops, err := c.run(s, each, func(rss int64) {
			t := time.Since(began).Seconds()
			for i, v := range []int64{rss, budget, bound, s.Stats().Bytes} {
				chart.Series[i].Points = append(chart.Series[i].Points, plot.Point{X: t, Y: float64(v) / mib})
			}
		})
		if err != nil {
			return err
		}
		fmt.Printf("| %s | %.1f MiB | %.3f | %.1f MiB | %d M |\n", c.name, float64(peak)/mib, float64(peak)/float64(budget), float64(s.Stats().Bytes)/mib, ops/1e6)
		most = max(most, peak)
	}
	if out != "" {
		if err := os.WriteFile(out, chart.SVG(), 0o644); err != nil {
			return err
		}
	}
	if most > bound {
		return fmt.Errorf("resident memory was %d bytes: over the bound of %d", most, bound)
	}
	return nil
}

// run churns for so long, and hands the resident memory to sample about once a second.
func (c churn) run(s *localstore.Store, each time.Duration, sample func(rss int64)) (peak, ops int64, err error) {
	r := rand.New(rand.NewPCG(1, uint64(c.mean)))
	keys := uint64(3 * s.Stats().Budget / int64(c.mean))
	zipf := rand.NewZipf(r, 1.01, 1, keys)
	value := make([]byte, 32<<10)
	var buf []byte
	end, next := time.Now().Add(each), time.Now()
	for ; ; ops++ {
		if ops%512 == 0 {
			now := time.Now()
			if now.After(end) {
				return peak, ops, nil
			}
			rss, err := resident()
			if err != nil {
				return peak, ops, err
			}
			if peak = max(peak, rss); !now.Before(next) {
				sample(rss)
				next = next.Add(max(time.Second, each/100))
			}
		}
		key := fmt.Sprintf("%s:%016d", c.name, zipf.Uint64())
		var ok bool
		buf, _, ok = s.AppendTo(buf[:0], key)
		switch what := r.IntN(20); {
		case what == 0:
			s.Delete(key)
		case what == 1 || !ok:
			if err := s.Put(key, value[:c.size(r)], localstore.Meta{Seq: 1<<40 + uint64(ops), Tick: uint64(ops)}, func(localstore.Evicted) {}); err != nil {
				return peak, ops, err
			}
		}
	}
}

// resident returns the resident memory of this process in bytes.
func resident() (int64, error) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}
