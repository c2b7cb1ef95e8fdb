package main

import (
	"bytes"
	"errors"
	"math"
	"runtime/debug"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
)

// inContainer reads the settings of a serve in a container with a limit.
func inContainer(t *testing.T, limit int64, env map[string]string, args ...string) (*serveOptions, []error) {
	o, fs := &serveOptions{container: container{memory: limit}}, pflag.NewFlagSet("serve", pflag.ContinueOnError)
	o.register(fs)
	require.NoError(t, fs.Parse(args))
	o.settings = settings.Read(fs, o.sidecar.Policies, settings.Sources{
		Lookup:  func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		Derived: o.container.settings(),
	})
	return o, o.settings.Faults(o.validate())
}

// keepMemoryLimit undoes what a test makes of the collector's limit.
func keepMemoryLimit(t *testing.T) {
	former := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(former) })
	t.Setenv("GOMEMLIMIT", "")
}

func TestMemoryOfContainer(t *testing.T) {
	keepMemoryLimit(t)
	for name, c := range map[string]struct {
		limit  int64
		env    map[string]string
		args   []string
		cache  int64
		heap   int64
		origin string
	}{
		"no limit":    {cache: 64 << 20, heap: 64<<20 + 16<<20 + 64<<20, origin: "default"},
		"the default": {limit: 128 << 20, cache: 64 << 20, heap: 120795955, origin: "50 % of the container's memory limit of 128MiB"},
		"a large one": {limit: 2 << 30, cache: 1 << 30, heap: 1932735283, origin: "50 % of the container's memory limit of 2GiB"},
		"environment": {limit: 128 << 20, env: map[string]string{"NEARSIDE_MEMORY": "32MiB"}, cache: 32 << 20, heap: 120795955, origin: "NEARSIDE_MEMORY"},
		"flag":        {limit: 128 << 20, args: []string{"--memory=16MiB"}, cache: 16 << 20, heap: 120795955, origin: "--memory"},
	} {
		o, faults := inContainer(t, c.limit, c.env, c.args...)
		require.Empty(t, faults, name)
		require.Equal(t, c.cache, o.sidecar.Memory, name)
		require.Equal(t, c.origin, o.settings.Origin("memory"), name)
		o.limitMemory(hclog.NewNullLogger())
		require.Equal(t, c.heap, debug.SetMemoryLimit(-1), name)
	}
}

func TestMemoryOfContainerTooSmall(t *testing.T) {
	_, faults := inContainer(t, 10<<20, nil)
	require.Len(t, faults, 1)
	require.ErrorContains(t, faults[0], "50 % of the container's memory limit of 10MiB: memory is 5242880 bytes: want 8388608 (8 MiB) or more")
}

// GOMEMLIMIT of the environment, which the runtime has read already, stays.
func TestMemoryLimitGiven(t *testing.T) {
	keepMemoryLimit(t)
	t.Setenv("GOMEMLIMIT", "off")
	debug.SetMemoryLimit(math.MaxInt64)
	o, _ := inContainer(t, 128<<20, nil)
	o.limitMemory(hclog.NewNullLogger())
	require.Equal(t, int64(math.MaxInt64), debug.SetMemoryLimit(-1))
}

func TestMemoryIsLogged(t *testing.T) {
	keepMemoryLimit(t)
	for _, c := range []struct {
		limit int64
		err   error
		args  []string
		want  string
	}{
		{limit: 128 << 20, want: `[INFO]  memory: container=128MiB cache=64MiB gomemlimit=115.2MiB from="50 % of the container's memory limit of 128MiB"`},
		{limit: 128 << 20, args: []string{"--memory=100MiB"}, want: "[WARN]  the cache may grow until the container is killed: give it less memory, or the container more: cache=100MiB container=128MiB"},
		{err: errors.New("broken"), want: "[WARN]  the cache is not sized by the container: give --memory and GOMEMLIMIT: error=broken"},
	} {
		var out bytes.Buffer
		o, _ := inContainer(t, c.limit, nil, c.args...)
		o.container.err = c.err
		o.limitMemory(hclog.New(&hclog.LoggerOptions{Output: &out}))
		require.Contains(t, out.String(), c.want)
	}
}
