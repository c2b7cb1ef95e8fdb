package main

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// With certificates of somebody else it needs no cluster; it says why it is not
// ready, and a signal ends it well.
func TestInjectorRuns(t *testing.T) {
	admin := freeAddress(func(err error) { t.Fatal(err) })
	cmd := binary(t, "injector", "--cert-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--admin", admin, "--drain", "1ms")
	var log bytes.Buffer
	cmd.Stderr = &log
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool {
		answer, err := http.Get("http://" + admin + "/readyz")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		var why bytes.Buffer
		_, err = why.ReadFrom(answer.Body)
		return err == nil && answer.StatusCode == http.StatusServiceUnavailable && strings.Contains(why.String(), "tls.crt")
	}, patience, 10*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), log.String())
}

func TestInjectorRefuses(t *testing.T) {
	dir := t.TempDir()
	settings := filepath.Join(dir, "sidecar.yaml")
	require.NoError(t, os.WriteFile(settings, []byte("domain: N O\nlogLevel: loud\n"), 0o600))
	for _, c := range []struct {
		args []string
		code int
		says []string
	}{
		{[]string{"--cert-dir", dir, "--settings", settings}, codeUsage, []string{"domain", "logLevel"}},
		{[]string{"--cert-dir", dir, "--settings", "missing.yaml"}, codeUsage, []string{"no such file"}},
		{[]string{"--kubeconfig", filepath.Join(dir, "missing")}, codeUsage, []string{"no usable configuration"}},
		{[]string{"--cert-dir", dir, "--listen", "256.0.0.1:0"}, codeFailed, []string{"listen"}},
	} {
		cmd := binary(t, append([]string{"injector"}, c.args...)...)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, c.code, exit.ExitCode(), string(out))
		for _, text := range c.says {
			require.Contains(t, string(out), text)
		}
	}
}
