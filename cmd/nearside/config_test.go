package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// clearEnvironment takes away what the tests' own environment says.
func clearEnvironment(t *testing.T) {
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "NEARSIDE_") {
			t.Setenv(name, "")
			require.NoError(t, os.Unsetenv(name))
		}
	}
}

// load reads a configuration file as serve does.
func load(t *testing.T, file string) (*serveOptions, error) {
	path := filepath.Join(t.TempDir(), "nearside.yaml")
	require.NoError(t, os.WriteFile(path, []byte(file), 0o600))
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	new(serveOptions).register(fs)
	require.NoError(t, fs.Parse([]string{"--config", path}))
	o, _, err := loadServe(fs)
	return o, err
}

// The example says the defaults: as it is, and with its comments taken away.
func TestExampleSaysTheDefaults(t *testing.T) {
	clearEnvironment(t)
	var example bytes.Buffer
	require.NoError(t, printExample(&example))
	for _, line := range strings.Split(example.String(), "\n") {
		require.LessOrEqual(t, len(line), 80)
	}
	plain, err := load(t, example.String())
	require.NoError(t, err)
	bare := regexp.MustCompile(`(?m)^#((?:  )*[a-z_]+:)`).ReplaceAllString(example.String(), "$1")
	full, err := load(t, bare)
	require.NoError(t, err)

	set := policy.DefaultSet()
	require.Equal(t, set, plain.sidecar.Policies)
	product := set.Default
	product.TTL = time.Hour
	set.Namespaces = map[string]policy.Namespace{"product": product}
	require.Equal(t, set, full.sidecar.Policies)

	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	new(serveOptions).register(fs)
	fs.VisitAll(func(f *pflag.Flag) {
		if key := settings.Key(f); key != "" {
			require.Regexp(t, "(?m)^"+key+": ", bare)
		}
	})
	full.sidecar.Policies, full.config, full.file = plain.sidecar.Policies, plain.config, plain.file
	full.sidecar.Logger, full.settings = plain.sidecar.Logger, plain.settings
	full.sidecar.Settings, plain.sidecar.Settings = nil, nil
	require.Equal(t, plain, full)
}

func TestFileHasALimit(t *testing.T) {
	clearEnvironment(t)
	_, err := load(t, strings.Repeat("#", settings.MaxFile))
	require.NoError(t, err)
	_, err = load(t, strings.Repeat("#", settings.MaxFile+1))
	require.ErrorContains(t, err, "more than 1048576 bytes")
}

// Kubernetes sets variables for every service: for one named nearside they must
// not be taken for flags.
func TestNoFlagCollidesWithServiceVariables(t *testing.T) {
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	new(serveOptions).register(fs)
	fs.VisitAll(func(f *pflag.Flag) {
		name := settings.Variable(f)
		require.NotRegexp(t, `^NEARSIDE_(PORT|SERVICE)(_|$)`, name)
	})
}
