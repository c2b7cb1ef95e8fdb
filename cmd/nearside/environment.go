package main

import (
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
	"github.com/nearside-cache/nearside/kube/spelling"
)

const (
	variablePrefix = "NEARSIDE_"
	// typos is how many letters a variable may differ in from one that is meant.
	typos = 2
)

// serviceLink matches what Kubernetes tells every container of the Services of its
// namespace, such as NEARSIDE_NATS_SERVICE_HOST.
var serviceLink = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_.*)?)?)$`)

// variables returns the variable of every flag of every command: a container has one
// environment for all of them.
func variables() []string {
	var all []string
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if name := settings.Variable(f); name != "" {
				all = append(all, name)
			}
		})
		for _, child := range c.Commands() {
			visit(child)
		}
	}
	visit(newRoot())
	slices.Sort(all)
	return slices.Compact(all)
}

// warnUnknown tells of variables that look as if they were settings and are none: a
// typing error would otherwise go unnoticed. Their values are not told.
func warnUnknown(log hclog.Logger) {
	known := variables()
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, variablePrefix) || slices.Contains(known, name) || serviceLink.MatchString(name) {
			continue
		}
		facts := []any{"name", name}
		if meant := spelling.Nearest(name, known, typos); meant != "" {
			facts = append(facts, "nearest", meant)
		}
		log.Warn("a variable of the environment is no setting and has no effect", facts...)
	}
}
