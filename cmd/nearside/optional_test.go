package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A configuration file that may be missing is read when it comes, and what it
// said stays when it goes: a namespace may get its ConfigMap after its pods.
func TestOptionalConfig(t *testing.T) {
	dir, mount := t.TempDir(), t.TempDir()
	path := filepath.Join(mount, "nearside.yaml")
	p := serveIn(t, dir, "--nats", "embedded", "--data", filepath.Join(dir, "data"), "--config", path, "--config-optional")
	p.await("there is no configuration file: the defaults hold until there is one")
	p.await("ready: ")
	conn := p.dial()
	require.Contains(t, plainSet(t, conn, "shop:1"), asFill)

	require.NoError(t, os.WriteFile(path+".new", []byte(policyFile("invalidate")), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
	isInvalidate := func() bool { return strings.HasPrefix(plainSet(t, conn, "shop:1"), asInvalidate) }
	require.Eventually(t, isInvalidate, patience, 5*time.Millisecond)

	require.NoError(t, os.Remove(path))
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	p.await("is missing")
	require.True(t, isInvalidate())
	p.end(syscall.SIGTERM)
}

// The variable, which injected sidecars have, says the same; a file that is there
// is read as ever.
func TestOptionalConfigFromTheEnvironment(t *testing.T) {
	clearEnvironment(t)
	file := filepath.Join(t.TempDir(), "nearside.yaml")
	t.Setenv("NEARSIDE_CONFIG", file)
	_, err := offline("")
	require.ErrorContains(t, err, "the file cannot be opened")
	t.Setenv("NEARSIDE_CONFIG_OPTIONAL", "true")
	o, err := offline("")
	require.NoError(t, err)
	require.Equal(t, file, o.missing)
	require.NoError(t, os.WriteFile(file, []byte("memroy: 1\n"), 0o600))
	_, err = offline("")
	require.ErrorContains(t, err, "unknown key memroy")
}
