// Reads measures nearside's store in this process, beside others: the time of a lookup of a
// random key among a million, serial and on all cores; the tail of reads with few and with
// many entries while a writer replaces some; and memory for an entry, beside Redis.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
)

func main() {
	rounds := flag.Int("rounds", 5, "rounds; the median counts")
	n := flag.Int("n", 1_000_000, "entries")
	many := flag.Int("many", 5_000_000, "entries that the tail of reads is compared at with 10,000")
	only := flag.String("only", "lookups,tail,memory", "what to measure")
	flag.Parse()
	parts := map[string]func() error{
		"lookups": func() error { return lookups(*n, *rounds) },
		"tail":    func() error { return tail(10_000, *many, *rounds) },
		"memory":  func() error { return memory(*n) },
	}
	for _, name := range []string{"lookups", "tail", "memory"} {
		if !slices.Contains(split(*only), name) {
			continue
		}
		if err := parts[name](); err != nil {
			fmt.Fprintln(os.Stderr, name+":", err)
			os.Exit(1)
		}
	}
}
