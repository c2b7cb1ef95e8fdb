// Command nearside is the sidecar and everything that is asked of one from a
// shell. This package reads flags, puts the libraries together and words their
// answers; what they do is in the libraries.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
)

func main() { os.Exit(run()) }

// plugin is how kubectl calls this binary for "kubectl nearside".
const plugin = "kubectl-nearside"

// run executes the command line and returns the exit code.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	root := newRoot()
	if filepath.Base(os.Args[0]) == plugin {
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl nearside"}
	}
	started := false // the command line was good
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error {
		if err := fromEnvironment(c); err != nil {
			return err
		}
		started = true
		return nil
	}
	c, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return codeOK
	case !started:
		err = &codeError{codeUsage, err}
	}
	report(c, err)
	return codeOf(err)
}

// report tells what failed, and where wrong usage is explained.
func report(c *cobra.Command, err error) {
	if errors.Is(err, errNoWords) {
		return
	}
	fmt.Fprintf(os.Stderr, "nearside: %v\n", err)
	if codeOf(err) == codeUsage {
		fmt.Fprintf(os.Stderr, "Try: %s --help\n", c.CommandPath())
	}
}

// fromEnvironment sets the flags that were not given from their variables.
// serve reads its own, together with its file.
func fromEnvironment(c *cobra.Command) error {
	if c.Annotations[readsItsSettings] != "" {
		return nil
	}
	r := settings.Read(c.Flags(), nil, settings.Sources{Lookup: os.LookupEnv})
	return errors.Join(r.Faults(nil)...)
}

// readsItsSettings annotates a command that reads the environment by itself.
const readsItsSettings = "reads-its-settings"
