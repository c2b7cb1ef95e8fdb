package main

import (
	"github.com/spf13/cobra"
)

func newExplain() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use:   "explain KEY",
		Short: "Tell why the next read of a key hits or misses",
		Long: `Tells what this sidecar holds of a key, why its next read hits or misses, what
became of the last value that was offered for it, and how a SET would be judged
now. It changes nothing and counts as no miss.

Exit codes: 0 told, 3 no sidecar answers, 5 refused, 7 the sidecar answered with
an error.`,
		Example: `  nearside explain product:42
  nearside explain product:42 -o json | jq .next_read`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.tell(cmd, "NEAR.EXPLAIN", args[0]) },
	}
	c.register(cmd.Flags())
	return cmd
}

func newStats() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Tell how this sidecar is",
		Long: `Tells how this sidecar is: whether it follows its stream, up to where it has
applied it, what it holds, and what it has counted since it was started. The age
fresh_age_ms is -1 while there was no proof of freshness since the start.

Exit codes: 0 told, 3 no sidecar answers, 5 refused, 7 the sidecar answered with
an error.`,
		Example: `  nearside stats
  nearside stats -o json | jq .ready`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.tell(cmd, "NEAR.STATUS") },
	}
	c.register(cmd.Flags())
	return cmd
}

// tell prints the map that a command answers.
func (c *client) tell(cmd *cobra.Command, command ...string) error {
	replies, err := c.ask(cmd.Context(), command)
	if err != nil {
		return err
	}
	pairs, err := pairsOf(replies[0])
	if err != nil {
		return err
	}
	if !c.output.isJSON() {
		wordNever(pairs)
	}
	return c.output.printPairs(cmd.OutOrStdout(), pairs)
}

// wordNever says in words that a sidecar has had no proof of freshness yet, which the
// fact tells by a negative age.
func wordNever(pairs []pair) {
	for i, p := range pairs {
		if age, ok := p.value.(int64); ok && p.name == "fresh_age_ms" && age < 0 {
			pairs[i].value = "never"
		}
	}
}
