package demo

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// width of everything that is shown, in columns.
const width = 80

// paint colours a text; the zero value leaves it as it is.
type paint struct{ on bool }

func (p paint) in(code, text string) string {
	if !p.on {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (p paint) bold(s string) string  { return p.in("1", s) }
func (p paint) dim(s string) string   { return p.in("2", s) }
func (p paint) green(s string) string { return p.in("1;32", s) }
func (p paint) red(s string) string   { return p.in("1;31", s) }

// table returns the lines of a report, each of at most width columns.
func table(r report, p paint) []string {
	title := fmt.Sprintf("nearside demo: %d sidecars, one embedded NATS, %s cities", len(r.pods), group(uint64(r.records)))
	clock := fmt.Sprintf("%s / %s", clockTime(r.elapsed), clockTime(r.duration))
	lines := []string{
		p.bold(title) + strings.Repeat(" ", max(1, width-len(title)-len(clock))) + clock,
		"No sidecar serves a value older than the last invalidation that it has applied.",
		"",
		p.dim(fmt.Sprintf(podHeader, "sidecar", "reads", "hits", "hit ratio", "fills kept", "refused", "applied up to")),
	}
	for _, pod := range r.pods {
		lines = append(lines, podLine(pod, strconv.FormatInt(pod.appliedSeq, 10)))
	}
	lines = append(lines, podLine(r.total(), ""), "")
	return append(lines, totals(r, p)...)
}

const podHeader = "%-8s%11s%11s%11s%12s%9s%18s"

func podLine(t podReport, applied string) string {
	return strings.TrimRight(fmt.Sprintf(podHeader, t.name, group(t.reads), group(t.hits), percent(t.hits, t.reads),
		group(uint64(t.stored)), group(uint64(t.rejected)), applied), " ")
}

// totals are the lines below the sidecars: a name, a number, what it means.
func totals(r report, p paint) []string {
	line := func(name, number, words string) string {
		return fmt.Sprintf("%-18s%12s  ", name, number) + p.dim(words)
	}
	t := r.total()
	zero := func(n uint64) string { // must be 0; padded before it is coloured
		s := fmt.Sprintf("%12s", group(n))
		if n > 0 {
			return p.red(s)
		}
		return p.green(s)
	}
	return []string{
		line("reads", perSecond(t.reads, r.elapsed), fmt.Sprintf("%s GETs, %s from memory", group(t.reads), group(t.hits))),
		line("writes", perSecond(r.writes, r.elapsed), group(r.writes)+" commits to the origin, then DEL"),
		line("invalidation lag", millis(r.lag.p50), fmt.Sprintf("p50; p99 %s, max %s, in all sidecars", millis(r.lag.p99), millis(r.lag.max))),
		line("behind the origin", group(uint64(r.behind.count)), fmt.Sprintf("hits within that lag: p50 %s, max %s", millis(r.behind.p50), millis(r.behind.max))),
		line("old fills refused", group(r.old-r.kept), "SETs that came after their own invalidation"),
		line("stale reads", zero(r.stale), "older than what was applied: must be 0"),
	}
}

// progress is a report in one line, for what is no terminal.
func progress(r report) string {
	t := r.total()
	return fmt.Sprintf("%s %s reads  %s hits  %s writes  lag p99 %s  %s refused  %s stale",
		clockTime(r.elapsed), group(t.reads), percent(t.hits, t.reads), group(r.writes),
		millis(r.lag.p99), group(r.old-r.kept), group(r.stale))
}

// group writes n with a comma between thousands.
func group(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func percent(part, whole uint64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*float64(part)/float64(whole))
}

func perSecond(n uint64, d time.Duration) string {
	if d <= 0 {
		return "-"
	}
	return group(uint64(float64(n)/d.Seconds()+0.5)) + "/s"
}

func millis(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case d == 0:
		return "-"
	case ms < 10:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 10_000:
		return fmt.Sprintf("%.0f ms", ms)
	default:
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
}

func clockTime(d time.Duration) string {
	s := int(d.Seconds() + 0.5)
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}
