package main

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"github.com/nearside-cache/nearside/localstore"
)

// tail compares the slowest reads of a small Store and of a large one. Collections run
// all the time, one after the other, and a writer replaces entries.
func tail(few, many, rounds int) error {
	small, err := openStore(few)
	if err != nil {
		return err
	}
	large, err := openStore(many)
	if err != nil {
		return err
	}
	var ratios []float64
	fmt.Printf("\nReads while a writer replaces 10,000 entries a second and collections follow each other\n\n"+
		"| round | %d entries: p50 / p99 / p99.9 | %d entries | p99.9 ÷ |\n|---|---|---|---|\n", few, many)
	for round := range rounds {
		a, b := slowest(small, few), slowest(large, many)
		ratios = append(ratios, float64(b.p999)/float64(a.p999))
		fmt.Printf("| %d | %v | %v | %.2f |\n", round+1, a, b, ratios[round])
	}
	fmt.Printf("\nmedian of the ratios: %.2f\n", median(ratios))
	return nil
}

type quantiles struct{ p50, p99, p999 time.Duration }

func (q quantiles) String() string { return fmt.Sprintf("%v / %v / %v", q.p50, q.p99, q.p999) }

// slowest times reads of random keys, one each 20 µs, from when it was due: what stops the
// reader counts for all reads that it holds up, and for as many with few entries as with
// many.
func slowest(s *localstore.Store, n int) quantiles {
	const reads, pace = 200_000, 20 * time.Microsecond
	done, ended := make(chan struct{}), make(chan struct{}, 2)
	go func() {
		defer func() { ended <- struct{}{} }()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				for range 10 {
					_ = put(s, rand.IntN(n))
				}
			}
		}
	}()
	go func() {
		defer func() { ended <- struct{}{} }()
		for {
			select {
			case <-done:
				return
			default:
				runtime.GC()
				time.Sleep(10 * time.Millisecond)
			}
		}
	}()
	took := make([]time.Duration, reads)
	buf := make([]byte, 0, 1<<10)
	keys := make([]string, 1<<16)
	for i := range keys {
		keys[i] = key(rand.IntN(n))
	}
	due := time.Now()
	for i := range took {
		due = due.Add(pace)
		for time.Until(due) > 0 {
			runtime.Gosched()
		}
		buf, _, _ = s.AppendTo(buf[:0], keys[i%len(keys)])
		took[i] = time.Since(due)
	}
	close(done)
	<-ended
	<-ended
	slices.Sort(took)
	return quantiles{took[reads/2], took[reads*99/100], took[reads*999/1000]}
}
