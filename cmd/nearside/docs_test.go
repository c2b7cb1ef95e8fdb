package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write docs/cli.md anew")

// docs/cli.md is what the commands say of themselves.
func TestReference(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("# The nearside command\n\n" +
		"Written by `go test ./cmd/nearside -run TestReference -update`; a test compares it\n" +
		"with the binary. Every command prints its part with `--help`.\n")
	root := newRoot()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	writeReference(&b, root)
	path := filepath.Join("..", "..", "docs", "cli.md")
	if *update {
		require.NoError(t, os.WriteFile(path, b.Bytes(), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String(), "docs/cli.md is not what the commands say: run this test with -update")
}

func writeReference(b *bytes.Buffer, c *cobra.Command) {
	switch c.Name() {
	case "help", "completion":
		return // cobra's own
	}
	fmt.Fprintf(b, "\n## %s\n\n```text\n%s\n", c.CommandPath(), strings.TrimSpace(c.Long))
	if c.Runnable() && !c.HasAvailableSubCommands() {
		fmt.Fprintf(b, "\nUsage:\n  %s\n", c.UseLine())
		if flags := c.NonInheritedFlags(); flags.HasAvailableFlags() {
			fmt.Fprintf(b, "\nFlags:\n%s", flags.FlagUsagesWrapped(columns))
		}
	}
	if c.Example != "" {
		fmt.Fprintf(b, "\nExamples:\n%s\n", c.Example)
	}
	b.WriteString("```\n")
	for _, child := range c.Commands() {
		writeReference(b, child)
	}
}

// Every command explains itself, shows itself in use, and says how it ends.
func TestEveryCommandIsDocumented(t *testing.T) {
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		for _, child := range c.Commands() {
			visit(child)
		}
		for _, line := range strings.Split(c.Long+"\n"+c.Example+"\n"+c.Flags().FlagUsagesWrapped(columns), "\n") {
			require.LessOrEqual(t, len(line), columns, "%s: %q is wider than 80 columns", c.CommandPath(), line)
		}
		if c.HasSubCommands() || !c.Runnable() {
			return
		}
		require.NotEmpty(t, c.Example, c.CommandPath())
		require.Contains(t, c.Long, "Exit codes:", c.CommandPath())
	}
	visit(newRoot())
}
