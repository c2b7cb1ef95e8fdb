package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nearside-cache/nearside/cmd/nearside/internal/demo"
	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
)

// Groups of commands in the help.
const (
	groupRun   = "run"
	groupAsk   = "ask"
	groupSetUp = "set-up"
)

// newRoot returns the whole command.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "nearside",
		Short: "Keeps the in-memory caches of a fleet of pods coherent",
		Long: `nearside is a cache beside each pod's app, on a Unix socket that every Redis
client can use. DEL in one pod invalidates the key in all of them.

Every flag can also be given as NEARSIDE_<FLAG> in the environment (--max-value
as NEARSIDE_MAX_VALUE), and those of serve as a key of its configuration file
(max_value). The flag prevails, then the environment, then the file.`,
		Example: `  nearside serve --nats embedded --data /tmp/nearside --socket /tmp/n.sock
  redis-cli -s /tmp/n.sock SET greeting hello
  nearside explain greeting --socket /tmp/n.sock`,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
		// Errors are reported by run, and wrong usage with a hint instead of a page.
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	// Flags in the order of their registration, within 80 columns.
	cobra.AddTemplateFunc("flags", func(fs *pflag.FlagSet) string { return fs.FlagUsagesWrapped(columns) })
	root.SetUsageTemplate(strings.NewReplacer(
		".LocalFlags.FlagUsages", "flags .LocalFlags", ".InheritedFlags.FlagUsages", "flags .InheritedFlags",
	).Replace(root.UsageTemplate()))
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return settings.Explain(err) })
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Run:"},
		&cobra.Group{ID: groupAsk, Title: "Ask a sidecar:"},
		&cobra.Group{ID: groupSetUp, Title: "Set up:"},
	)
	add(root, groupRun, newServe(), newInjector(), demo.Command())
	add(root, groupAsk, newGet(), newSet(), newInvalidate(), newExplain(), newStats(), newWatch(), newPolicy(), newWarm(), newReady(), newBench())
	add(root, groupSetUp, newStream(), newCheck(), newConfig(), newInject(), newUninject(), newVersion())
	root.SetHelpCommandGroupID(groupSetUp)
	root.SetCompletionCommandGroupID(groupSetUp)
	// A command that cannot run is a topic of help.
	root.AddCommand(&cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodes})
	return root
}

func add(parent *cobra.Command, group string, children ...*cobra.Command) {
	for _, c := range children {
		c.GroupID = group
		c.Flags().SortFlags = false
		parent.AddCommand(c)
	}
}

// newGroup returns a command that only holds others.
func newGroup(use, short string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Long:  short + ".",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(children...)
	return c
}
