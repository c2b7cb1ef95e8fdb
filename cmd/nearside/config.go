package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
)

func newConfig() *cobra.Command {
	return newGroup("config", "Help with the configuration file of serve",
		newConfigValidate(), newConfigShow(), newConfigExplain(), newConfigSchema(), newConfigExample())
}

// configVariable names the configuration file in the environment.
const configVariable = "NEARSIDE_CONFIG"

// offline reads the settings that a serve of this environment would have, from
// a file or without one.
func offline(file string) (*serveOptions, error) {
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	new(serveOptions).register(fs)
	if file != "" {
		if err := fs.Set("config", file); err != nil {
			return nil, err
		}
	}
	o, _, err := loadServe(fs)
	return o, err
}

// running registers the flags of a client whose socket need not be given: then
// the command works on a file.
func (c *client) running(fs *pflag.FlagSet) {
	fs.StringVar(&c.socket, "socket", "", "ask the sidecar that serves this socket, and read no file")
	settings.CommandLineOnly(fs, "socket")
	fs.StringVar(&c.password, "password", "", "what the sidecar asks for; better given as NEARSIDE_PASSWORD")
	fs.DurationVar(&c.timeout, "timeout", clientTimeout, "how long to wait for an answer")
	c.output.register(fs)
}

func newConfigValidate() *cobra.Command {
	var o output
	cmd := &cobra.Command{
		Use:   "validate [FILE]",
		Short: "Tell every fault of a configuration file",
		Long: `Reads a configuration file as serve does, with the environment, and tells every
fault and its line. Without FILE it reads the one that NEARSIDE_CONFIG names.
Nothing is started.

Exit codes: 0 serve would take it, 2 it has faults, which are all listed, or
cannot be read.`,
		Example: `  nearside config validate nearside.yaml
  nearside config validate nearside.yaml -o json | jq -r '.faults[]'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := strings.Join(args, "")
			if file == "" {
				file = os.Getenv(configVariable)
			}
			if file == "" {
				return &codeError{codeUsage, errors.New("want a FILE, or " + configVariable + " in the environment")}
			}
			loaded, err := offline(file)
			return o.printVerdict(cmd.OutOrStdout(), file, loaded, err)
		},
	}
	o.register(cmd.Flags())
	return cmd
}

// printVerdict tells whether a file is good.
func (o output) printVerdict(w io.Writer, file string, loaded *serveOptions, err error) error {
	var faults faultsError
	if err != nil && !errors.As(err, &faults) {
		return err
	}
	if o.isJSON() {
		words := make([]string, len(faults))
		for i, f := range faults {
			words[i] = f.Error()
		}
		if failed := printJSON(w, []pair{{"file", file}, {"valid", err == nil}, {"faults", words}}); failed != nil || err == nil {
			return failed
		}
		return &codeError{codeUsage, errNoWords}
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%s is good; %d namespaces have a policy of their own\n", file, len(loaded.sidecar.Policies.Namespaces))
	return nil
}

func newConfigShow() *cobra.Command {
	var (
		c       client
		origins bool
	)
	cmd := &cobra.Command{
		Use:   "show [FILE]",
		Short: "Print the settings in effect, and where each was given",
		Long: `Prints the settings that a serve of this environment would have, as a
configuration file: those of FILE, or of the one that NEARSIDE_CONFIG names,
those of the environment, and the defaults. Of a namespace it prints what that
says itself; the rest is as in defaults. Secrets are masked.

--socket asks a running sidecar, which knows its flags too. What toggles change
is told by nearside policy get.

Exit codes: 0 printed, 2 the configuration has faults, which are all listed,
3 no sidecar answers, 5 refused, 7 the sidecar answered with an error.`,
		Example: `  nearside config show nearside.yaml --origin
  nearside config show --origin --socket /run/nearside/nearside.sock
  nearside config show -o json | jq '.settings[] | select(.origin != "default")'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := c.settings(cmd, strings.Join(args, ""))
			if err != nil {
				return err
			}
			if c.output.isJSON() {
				return printJSON(cmd.OutOrStdout(), []pair{{"settings", all}})
			}
			return settings.Print(cmd.OutOrStdout(), all, origins)
		},
	}
	c.running(cmd.Flags())
	cmd.Flags().BoolVar(&origins, "origin", false, "print where each setting was given: flag, variable, line of the file, or default")
	settings.CommandLineOnly(cmd.Flags(), "origin")
	return cmd
}

// settings returns those of a running sidecar, if a socket was given, or of a
// file.
func (c *client) settings(cmd *cobra.Command, file string) ([]settings.Setting, error) {
	if c.socket == "" {
		o, err := offline(file)
		if err != nil {
			return nil, err
		}
		return newEffective(o.settings).all(), nil
	}
	if file != "" {
		return nil, errFileAndSocket
	}
	replies, err := c.ask(cmd.Context(), []string{"NEAR.POLICY", "SETTINGS"})
	if err != nil {
		return nil, err
	}
	var all []settings.Setting
	if err := json.Unmarshal([]byte(replies[0].Text()), &all); err != nil {
		return nil, &codeError{codeServer, fmt.Errorf("the sidecar's answer cannot be read, are both sides of the same version? %w", err)}
	}
	return all, nil
}

var errFileAndSocket = &codeError{codeUsage, errors.New("want a file, or --socket, and not both")}

func newConfigExplain() *cobra.Command {
	var (
		c    client
		file string
	)
	cmd := &cobra.Command{
		Use:   "explain KEY",
		Short: "Tell in words which policy applies to a key",
		Long: `Tells which policy applies to a key, where it stands, and what it does: one
plain sentence for each effect, with the settings that decide it in brackets.

It reads the file of --config, or the one that NEARSIDE_CONFIG names, or
explains the defaults. --socket asks a running sidecar, whose toggles count too.
What is held of a key, nearside explain tells.

Exit codes: 0 told, 2 the configuration has faults, which are all listed, 3 no
sidecar answers, 5 refused, 7 the sidecar answered with an error.`,
		Example: `  nearside config explain product:42 --config nearside.yaml
  nearside config explain product:42 --socket /run/nearside/nearside.sock
  nearside config explain product:42 -o json | jq -r '.effects[]'`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			e := explained{key: args[0], namespace: bus.NamespaceOf(args[0])}
			if err := c.explainPolicy(cmd, file, &e); err != nil {
				return err
			}
			return e.print(cmd.OutOrStdout(), c.output)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "the configuration file")
	c.running(cmd.Flags())
	return cmd
}

// explainPolicy finds out about the policy of a key's namespace.
func (c *client) explainPolicy(cmd *cobra.Command, file string, e *explained) error {
	if c.socket != "" {
		if cmd.Flags().Changed("config") && os.Getenv(configVariable) != file {
			return errFileAndSocket
		}
		e.where = "the sidecar on " + c.socket
		return c.askPolicy(cmd.Context(), e)
	}
	o, err := offline(file)
	if err != nil {
		return err
	}
	e.where = "the built-in defaults"
	if name := o.settings.File(); name != "" {
		e.where = name
	}
	p := o.sidecar.Policies.Explain(e.key)
	e.block, e.effects = p.Block, p.Effects
	return nil
}

func newConfigSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration file",
		Long: `Prints the JSON Schema (2020-12) of the configuration file of this binary, for
editors and for checks in CI. What it cannot say, such as which settings exclude
each other, nearside config validate finds.

Exit codes: 0 printed.`,
		Example: `  nearside config schema > nearside.schema.json`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(configSchema)
			return err
		},
	}
}

func newConfigExample() *cobra.Command {
	return &cobra.Command{
		Use:   "example",
		Short: "Print a configuration file with every setting and its default",
		Long: `Prints a configuration file for nearside serve, with every setting, what it is
for, and its default.

Exit codes: 0 printed.`,
		Example: `  nearside config example > nearside.yaml
  nearside serve --config nearside.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return printExample(cmd.OutOrStdout()) },
	}
}
