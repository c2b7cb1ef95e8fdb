package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker in a release (-X main.version=v1.2.3).
var version string

// build says what this binary was built from, as the Go command wrote it down.
type build struct {
	version, revision, time string
	modified                bool
}

func readBuild() build {
	b := build{version: "dev"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.version = v
	}
	if version != "" {
		b.version = version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.revision = s.Value
		case "vcs.time":
			b.time = s.Value
		case "vcs.modified":
			b.modified = s.Value == "true"
		}
	}
	return b
}

func newVersion() *cobra.Command {
	var o output
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this binary",
		Long: `Prints the version of this binary and what it was built from.

Exit codes: 0 always.`,
		Example: `  nearside version
  nearside version -o json | jq -r .version`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := readBuild()
			pairs := []pair{{"version", b.version}}
			if b.revision != "" {
				pairs = append(pairs, pair{"revision", b.revision}, pair{"time", b.time}, pair{"modified", b.modified})
			}
			pairs = append(pairs, pair{"go", runtime.Version()}, pair{"platform", runtime.GOOS + "/" + runtime.GOARCH})
			return o.printPairs(cmd.OutOrStdout(), pairs)
		},
	}
	o.register(cmd.Flags())
	return cmd
}
