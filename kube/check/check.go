// Package check looks at an installation of nearside in a cluster and says what is
// in order. Each check is small: it asks one thing, and says what to do when the
// answer is not the right one. None of them changes anything.
//
//	platform  the API server, and what this user may do
//	injector  what gives pods their sidecar
//	pods      what is annotated, and what came of it
//	sidecars  how they are doing
package check

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// Result is how a check ended.
type Result string

// Results.
const (
	OK      Result = "ok"
	Warning Result = "warning" // it works, and deserves a look
	Failed  Result = "failed"
	Skipped Result = "skipped" // it could not be asked, and the summary says why
)

// Finding is what a check found.
type Finding struct {
	Result Result
	// Summary is one line.
	Summary string
	// Items are what it is about, such as pods, with what is wrong with each.
	Items []string
	// Hint says what to do, where the Check's own does not fit.
	Hint string
}

// Check is one question.
type Check struct {
	// ID names the check, for programs and as the section of the document that
	// explains it. It never changes.
	ID string
	// Group is the heading that it stands under.
	Group string
	// Name says what is so when all is well.
	Name string
	// Hint says what to do when it is not.
	Hint string
	// Needs are IDs of checks before this one: when one of them failed or was
	// skipped, so is this one.
	Needs []string
	// Ask asks. The context bounds it.
	Ask func(ctx context.Context) Finding
}

// Outcome is a check with its finding.
type Outcome struct {
	ID      string   `json:"id"`
	Group   string   `json:"group"`
	Name    string   `json:"name"`
	Result  Result   `json:"result"`
	Summary string   `json:"summary,omitempty"`
	Items   []string `json:"items,omitempty"`
	Hint    string   `json:"hint,omitempty"` // if it is a warning or failed
	Link    string   `json:"link,omitempty"` // as Hint
}

// Document is where the checks are explained, each below its ID.
const Document = "https://github.com/nearside-cache/nearside/blob/main/docs/kubernetes/check.md"

// perCheck bounds one check.
const perCheck = time.Minute

// Run asks one check after the other and calls report with each outcome. It returns
// how many there were of each result.
func Run(ctx context.Context, checks []Check, report func(Outcome)) map[Result]int {
	count, unfit := map[Result]int{}, map[string]string{}
	for _, c := range checks {
		o := Outcome{ID: c.ID, Group: c.Group, Name: c.Name}
		f := c.ask(ctx, unfit)
		o.Result, o.Summary, o.Items = f.Result, f.Summary, f.Items
		if o.Result == Warning || o.Result == Failed {
			o.Hint, o.Link = cmp.Or(f.Hint, c.Hint), Document+"#"+c.ID
		}
		if o.Result == Failed || o.Result == Skipped {
			unfit[c.ID] = c.Name
		}
		count[o.Result]++
		report(o)
	}
	return count
}

func (c Check) ask(ctx context.Context, unfit map[string]string) Finding {
	if i := slices.IndexFunc(c.Needs, func(id string) bool { return unfit[id] != "" }); i >= 0 {
		return skipped("not known: %s", unfit[c.Needs[i]])
	}
	if ctx.Err() != nil {
		return skipped("interrupted")
	}
	ctx, cancel := context.WithTimeout(ctx, perCheck)
	defer cancel()
	return c.Ask(ctx)
}

func ok(format string, args ...any) Finding      { return finding(OK, format, args) }
func warning(format string, args ...any) Finding { return finding(Warning, format, args) }
func failed(format string, args ...any) Finding  { return finding(Failed, format, args) }
func skipped(format string, args ...any) Finding { return finding(Skipped, format, args) }

func finding(r Result, format string, args []any) Finding {
	return Finding{Result: r, Summary: fmt.Sprintf(format, args...)}
}

// with adds what a finding is about, in a fixed order.
func (f Finding) with(items []string) Finding {
	f.Items = slices.Sorted(slices.Values(items))
	return f
}
