package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
)

func newConfig() *cobra.Command {
	return newGroup("config", "Help with the configuration file of serve", &cobra.Command{
		Use:   "example",
		Short: "Print a configuration file with every setting and its default",
		Long: `Prints a configuration file for nearside serve, with every setting, what it is
for, and its default.

Exit codes: 0 printed.`,
		Example: `  nearside config example > nearside.yaml
  nearside serve --config nearside.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return printExample(cmd.OutOrStdout()) },
	})
}

// policyExample shows the keys that are no flags, with their defaults.
const policyExample = `
# How long after its own miss a reader may SET what it loaded.
#fill_window: 10s

# How keys are treated. A namespace is what stands before the first ":" in a
# key; without one it is "default".
#defaults:
#  class: important    # how fresh plain reads must be: critical (each sees any
#                      # acknowledged write), important (30s), best-effort
#  max_stale: 0        # how stale a plain read may be; 0: as the class says
#  ttl: 10m            # of values that come without one; 0: for ever
#  max_ttl: 0          # caps every ttl; 0: no cap
#  ttl_jitter: 0.1     # shortens ttl by up to so much, against stampedes
#  set: fill           # a plain SET ends a miss; window: is judged as of one
#                      # fill_window ago; invalidate: is a write, and published
#  replica_lag: 0s     # how far the replicas that readers load from may lag
#  allow_flush: false  # whether FLUSHDB may drop everything everywhere

# What a namespace does not say it takes from defaults.
#namespaces:
#  product:
#    ttl: 1h
`

func printExample(w io.Writer) error {
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	fs.SortFlags = false
	new(serveOptions).register(fs)
	var b strings.Builder
	b.WriteString("# Settings of nearside serve, with their defaults. A flag, or NEARSIDE_<NAME>\n" +
		"# in the environment, prevails.\n")
	fs.VisitAll(func(f *pflag.Flag) {
		if key := settings.Key(f); key != "" {
			fmt.Fprintf(&b, "\n# %s\n#%s: %s\n", strings.Join(wrap(f.Usage, columns-2), "\n# "), key, yamlText(f.DefValue))
		}
	})
	b.WriteString(policyExample)
	_, err := io.WriteString(w, b.String())
	return err
}

// yamlText is a flag's default as YAML.
func yamlText(text string) string {
	if text == "" || strings.ContainsAny(text, ":#") {
		return fmt.Sprintf("%q", text)
	}
	return text
}
