//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// result is one arm in one round.
type result struct {
	arm          string
	round        int
	quiet, storm measurement
}

// quantile of some times, which it sorts, in milliseconds; 0 without any.
func quantile(times []time.Duration, q float64) float64 {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	at := times[min(int(q*float64(len(times))), len(times)-1)]
	return float64(at) / float64(time.Millisecond)
}

func (r result) quiet50() float64   { return quantile(r.quiet.latencies, 0.5) }
func (r result) quiet99() float64   { return quantile(r.quiet.latencies, 0.99) }
func (r result) storm50() float64   { return quantile(r.storm.latencies, 0.5) }
func (r result) storm99() float64   { return quantile(r.storm.latencies, 0.99) }
func (r result) origin50() float64  { return quantile(r.storm.origin, 0.5) }
func (r result) origin99() float64  { return quantile(r.storm.origin, 0.99) }
func (r result) perChange() float64 { return float64(r.storm.loads) / float64(max(1, r.storm.changes)) }
func (r result) late() float64 {
	return 100 * float64(r.storm.late) / float64(max(1, len(r.storm.latencies)))
}
func (r result) aside() float64 { return float64(r.storm.aside) / float64(max(1, r.storm.changes)) }

// ofAllowed is the p99 while the key changes, over what it may be: twice that of
// before, and what the origin took for an answer at the same time, in the median.
func (r result) ofAllowed() float64 { return r.storm99() / (2*r.quiet99() + r.origin50()) }

// table is the report in Markdown: medians over the rounds, and ratios to
// cache-aside of the same round.
func table(o options, results []result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d readers of one key, %g reads a second each, over %d sidecars; a change every %v for %v, after %v without; the origin takes %v. Medians of %d rounds.\n\n",
		o.clients, o.rate, o.pods, o.every, o.storm, o.quiet, o.latency, o.rounds)
	b.WriteString("| | origin loads a change | of these by readers | quiet p50 / p99 | p50 / p99 while it changes | origin p50 / p99 | ÷ allowed p99 | late reads | ÷ cache-aside: loads | p99 |\n|---|---|---|---|---|---|---|---|---|---|\n")
	var arms []string
	for _, r := range results {
		if !slices.Contains(arms, r.arm) {
			arms = append(arms, r.arm)
		}
	}
	for _, name := range arms {
		of := only(results, name)
		med := func(value func(result) float64) float64 { return median(values(of, value)) }
		fmt.Fprintf(&b, "| %s | **%.2f** | %.2f | %.2f / %.2f ms | %.2f / %.2f ms | %.2f / %.2f ms | %s | %.2f %% | %s | %s |\n",
			name, med(result.perChange), med(result.aside), med(result.quiet50), med(result.quiet99), med(result.storm50), med(result.storm99),
			med(result.origin50), med(result.origin99), spread(values(of, result.ofAllowed)), med(result.late),
			ratio(of, only(results, redisName), result.perChange), ratio(of, only(results, redisName), result.storm99))
	}
	return b.String()
}

func only(results []result, arm string) []result {
	return slices.DeleteFunc(slices.Clone(results), func(r result) bool { return r.arm != arm })
}

func values(results []result, value func(result) float64) []float64 {
	all := make([]float64, 0, len(results))
	for _, r := range results {
		all = append(all, value(r))
	}
	return all
}

// ratio compares within rounds.
func ratio(ours, theirs []result, value func(result) float64) string {
	var ratios []float64
	for _, their := range theirs {
		for _, our := range ours {
			if our.arm != their.arm && our.round == their.round && value(their) > 0 {
				ratios = append(ratios, value(our)/value(their))
			}
		}
	}
	return spread(ratios)
}

// spread is the median, with the lowest and the highest.
func spread(all []float64) string {
	if len(all) == 0 {
		return "–"
	}
	return fmt.Sprintf("**%.3g** (%.2g–%.2g)", median(all), slices.Min(all), slices.Max(all))
}

// median of one value or more.
func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}
