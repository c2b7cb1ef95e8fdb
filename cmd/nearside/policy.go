package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/toggle"
)

func newPolicy() *cobra.Command {
	return newGroup("policy", "Tell and toggle what policies say in a running sidecar",
		newPolicyGet(), newPolicySet(), newPolicyReset())
}

// explained is what is told of a namespace's policy.
type explained struct {
	key       string // empty: asked by namespace
	namespace string
	where     string // what was asked
	block     string
	effects   []string
	toggles   []toggled
}

// toggled is a toggle in force.
type toggled struct {
	Namespace string `json:"namespace"`
	Setting   string `json:"setting"`
	Value     string `json:"value"`
	LeftMS    int64  `json:"left_ms"` // 0: until it is reset or the sidecar ends
}

// left says for how long.
func (t toggled) left() string {
	if t.LeftMS == 0 {
		return "until it is reset or the sidecar ends"
	}
	left := time.Duration(t.LeftMS) * time.Millisecond
	return "for another " + max(left.Round(time.Second), time.Second).String()
}

// askPolicy asks a sidecar about the policy of e's namespace.
func (c *client) askPolicy(ctx context.Context, e *explained) error {
	replies, err := c.ask(ctx, []string{"NEAR.POLICY", "GET", e.namespace})
	if err != nil {
		return err
	}
	r := replies[0]
	if r.Kind != resp.KindMap {
		return &codeError{codeServer, errors.New("the sidecar's answer is no map: are both sides of the same version?")}
	}
	for i := 0; i+1 < len(r.Elems); i += 2 {
		switch value := r.Elems[i+1]; r.Elems[i].Text() {
		case "block":
			e.block = value.Text()
		case "effects":
			for _, effect := range value.Elems {
				e.effects = append(e.effects, effect.Text())
			}
		case "toggles":
			e.toggles, err = togglesOf(value)
		}
	}
	return err
}

// togglesOf reads a list of toggles.
func togglesOf(list resp.Reply) ([]toggled, error) {
	all := make([]toggled, 0, len(list.Elems))
	for _, r := range list.Elems {
		pairs, err := pairsOf(r)
		if err != nil {
			return nil, err
		}
		word := func(name string) string { s, _ := find(pairs, name).(string); return s }
		left, _ := find(pairs, "left_ms").(int64)
		all = append(all, toggled{word("namespace"), word("setting"), word("value"), left})
	}
	return all, nil
}

// print tells what a policy does.
func (e explained) print(w io.Writer, o output) error {
	if o.isJSON() {
		var pairs []pair
		if e.key != "" {
			pairs = append(pairs, pair{"key", e.key})
		}
		pairs = append(pairs, pair{"namespace", e.namespace}, pair{"policy", e.block}, pair{"from", e.where}, pair{"effects", e.effects})
		if e.toggles != nil {
			pairs = append(pairs, pair{"toggles", e.toggles})
		}
		return printJSON(w, pairs)
	}
	var b strings.Builder
	if e.key != "" {
		fmt.Fprintf(&b, "%s is in namespace %s.\n", printable(e.key), printable(e.namespace))
	}
	if e.block == "defaults" {
		fmt.Fprintf(&b, "%s has no policy of its own: defaults apply, by %s.\n", printable(e.namespace), e.where)
	} else {
		fmt.Fprintf(&b, "Its policy is %s, by %s.\n", printable(e.block), e.where)
	}
	for _, effect := range e.effects {
		fmt.Fprintf(&b, "  - %s\n", strings.Join(wrap(effect, columns-4), "\n    "))
	}
	for _, t := range e.toggles {
		fmt.Fprintf(&b, "Toggled: %s is %s for %s %s.\n", t.Setting, t.Value, everyOr(t.Namespace), t.left())
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// everyOr names what a toggle is for.
func everyOr(namespace string) string {
	if namespace == policy.AllNamespaces {
		return "every namespace"
	}
	return printable(namespace)
}

func newPolicyGet() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use:   "get [NAMESPACE]",
		Short: "Tell which toggles are in force, or what a namespace's policy does",
		Long: `Lists the toggles in force in this sidecar. With NAMESPACE it tells what the
policy of that namespace does, in words, its toggles included; "*" stands for
namespaces without a policy of their own.

Exit codes: 0 told, 3 no sidecar answers, 5 refused, 7 the sidecar answered with
an error.`,
		Example: `  nearside policy get
  nearside policy get product`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				e := explained{namespace: args[0], where: "the sidecar on " + c.socket}
				if err := c.askPolicy(cmd.Context(), &e); err != nil {
					return err
				}
				return e.print(cmd.OutOrStdout(), c.output)
			}
			replies, err := c.ask(cmd.Context(), []string{"NEAR.POLICY", "GET"})
			if err != nil {
				return err
			}
			all, err := togglesOf(replies[0])
			if err != nil {
				return err
			}
			return c.output.printToggles(cmd.OutOrStdout(), all)
		},
	}
	c.register(cmd.Flags())
	return cmd
}

func (o output) printToggles(w io.Writer, all []toggled) error {
	if o.isJSON() {
		return printJSON(w, []pair{{"toggles", all}})
	}
	if len(all) == 0 {
		fmt.Fprintln(w, "no toggles: the policies hold as configured")
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, x := range all {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", printable(x.Namespace), x.Setting, x.Value, x.left())
	}
	return t.Flush()
}

func newPolicySet() *cobra.Command {
	var (
		c     client
		lasts time.Duration
	)
	cmd := &cobra.Command{
		Use:   "set NAMESPACE {mode enforce|shadow|off | purges pause|resume}",
		Short: "Toggle the mode of a namespace, or its wide purges, in this sidecar",
		Long: `Changes what the policy of a namespace says, in this sidecar alone, and leaves
an audit record. "*" stands for every namespace that has no toggle of its own.

  mode enforce   serve what is held
  mode shadow    compute what would be served, count it, and serve nothing
  mode off       keep nothing and serve nothing
  purges pause   refuse the wide purges of this sidecar's clients
  purges resume  permit them, whatever the policy says

Invalidations are published and applied in every mode. A toggle survives a
reload of the policies and ends with the process, after --for, or by nearside
policy reset.

Exit codes: 0 changed, 2 wrong usage, 3 no sidecar answers, 5 refused, 7 the
sidecar answered with an error.`,
		Example: `  nearside policy set product mode shadow --for 1h
  nearside policy set '*' mode off --for 10m
  nearside policy set product purges pause --for 30m`,
		Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			if words := toggle.Setting(args[1]).Words(); !slices.Contains(words, args[2]) {
				return &codeError{codeUsage, fmt.Errorf("%s %s: want mode enforce, shadow or off, or purges pause or resume", args[1], args[2])}
			}
			change := append([]string{"NEAR.POLICY", "SET"}, args...)
			if cmd.Flags().Changed("for") {
				change = append(change, "FOR", lasts.String())
			}
			if _, err := c.ask(cmd.Context(), change); err != nil {
				return err
			}
			done := toggled{args[0], args[1], args[2], lasts.Milliseconds()}
			if c.output.isJSON() {
				return c.output.printToggles(cmd.OutOrStdout(), []toggled{done})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is %s for %s %s\n", done.Setting, done.Value, everyOr(done.Namespace), done.left())
			return nil
		},
	}
	c.register(cmd.Flags())
	cmd.Flags().DurationVar(&lasts, "for", 0, "when it is rolled back by itself; not given: never")
	settings.CommandLineOnly(cmd.Flags(), "for")
	return cmd
}

func newPolicyReset() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use:   "reset NAMESPACE",
		Short: "End the toggles of a namespace in this sidecar",
		Long: `Ends the toggles of a namespace, whose policy then holds as configured, and
leaves an audit record of each. "*" ends those of every namespace, and leaves
those of single ones.

Exit codes: 0 there are none now, 3 no sidecar answers, 5 refused, 7 the sidecar
answered with an error.`,
		Example: `  nearside policy reset product`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			replies, err := c.ask(cmd.Context(), []string{"NEAR.POLICY", "RESET", args[0]})
			if err != nil {
				return err
			}
			if c.output.isJSON() {
				return printJSON(cmd.OutOrStdout(), []pair{{"ended", replies[0].Int}})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d toggles ended\n", replies[0].Int)
			return nil
		},
	}
	c.register(cmd.Flags())
	return cmd
}
