package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/natsbus"
	"github.com/nearside-cache/nearside/kube/check"
	"github.com/nearside-cache/nearside/kube/cluster/clustertest"
)

// emptyCluster returns the kubeconfig of a cluster without anything of nearside.
func emptyCluster(t *testing.T) string {
	api := httptest.NewServer(&clustertest.Server{
		Handle: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"gitVersion":"v1.36.3"}`) }),
		Admit:  func(_ string, o map[string]any) { o["status"] = map[string]any{"allowed": true} },
	})
	t.Cleanup(api.Close)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, os.WriteFile(file, []byte(`{"current-context":"a","contexts":[{"name":"a","context":{"cluster":"a"}}],"clusters":[{"name":"a","cluster":{"server":"`+api.URL+`"}}]}`), 0o600))
	return file
}

// runCheck returns what nearside check prints, and its exit code.
func runCheck(t *testing.T, args ...string) (string, int) {
	var out bytes.Buffer
	cmd := newCheck()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(append([]string{"--kubeconfig", emptyCluster(t)}, args...))
	cmd.SetOut(&out)
	err := cmd.ExecuteContext(t.Context())
	if err != nil {
		return out.String() + err.Error(), codeOf(err)
	}
	return out.String(), codeOK
}

func TestCheckPrints(t *testing.T) {
	text, code := runCheck(t, "--pre")
	require.Equal(t, codeOK, code, text)
	require.Equal(t, `kubernetes
----------
✓ the API server answers and is new enough
    v1.36.3
✓ this user may install the chart
    all rights are there
✓ nearside is not installed yet
    nothing of it is there

nats
----
- the stream gives the guarantees
    give --nats as it is reached from here, and what sidecars log in with
- the user may do what a sidecar does
    give --nats as it is reached from here, and what sidecars log in with

3 in order, 0 warnings, 0 failed, 2 skipped: all is in order
`, text)
	text, code = runCheck(t)
	require.Equal(t, codeOK, code, text)
	require.Contains(t, text, "! the API server is told to inject\n    neither a webhook")
	require.Contains(t, text, "    see "+check.Document+"#injection-registered\n")

	text, code = runCheck(t, "-o", "json", "--nats", "nats://127.0.0.1:1")
	require.Equal(t, codeFailed, code)
	var answer struct {
		Checks []check.Outcome
		Failed int
	}
	require.NoError(t, json.Unmarshal([]byte(text), &answer), text)
	require.Equal(t, 2, answer.Failed)
	for _, o := range answer.Checks {
		require.Equal(t, o.ID == "stream" || o.ID == "nats-permissions", o.Result == check.Failed, o.ID)
	}
	_, code = runCheck(t, "--pre", "--proxy")
	require.NotEqual(t, codeOK, code)
}

// A file to log in with that is not there is one fault, with a hint of its own.
func TestCheckFindsNoCredentials(t *testing.T) {
	text, code := runCheck(t, "--pre", "--nats", "nats://127.0.0.1:1", "--nats-creds", filepath.Join(t.TempDir(), "nats.creds"))
	require.Equal(t, codeFailed, code, text)
	require.Contains(t, text, "✗ what to log in to NATS with can be read")
	require.Contains(t, text, "leave the flag away")
	require.Contains(t, text, "1 failed, 2 skipped: something")
}

// The document explains these, too.
func TestNATSChecksAreDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "kubernetes", "check.md"))
	require.NoError(t, err)
	o := new(checkOptions)
	o.nats.URL = "nats://127.0.0.1"
	for _, c := range o.natsChecks() {
		require.Contains(t, string(text), "\n### "+c.ID+"\n")
	}
}

// natsOf starts a server with a user who may do this, and an admin who may do all,
// and returns the user's and the admin's URL.
func natsOf(t *testing.T, publish, subscribe []string) (user, admin string) {
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: t.TempDir(), JetStreamMaxMemory: 1 << 20, JetStreamMaxStore: 1 << 28,
		Users: []*server.User{{Username: "admin", Password: "a"}, {Username: "side", Password: "s", Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: publish},
			Subscribe: &server.SubjectPermission{Allow: subscribe},
		}}},
	})
	require.NoError(t, err)
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	require.True(t, srv.ReadyForConnections(patience))
	at := func(who string) string { return strings.Replace(srv.ClientURL(), "//", "//"+who+"@", 1) }
	return at("side:s"), at("admin:a")
}

// leastPrivilege is what docs/kubernetes/permissions.md gives a sidecar.
func leastPrivilege(t *testing.T) (publish, subscribe []string) {
	subjects, err := bus.NewSubjects(bus.DefaultDomain)
	require.NoError(t, err)
	for _, p := range natsbus.Permissions(subjects, "", "") {
		switch {
		case p.Forbidden, p.Optional:
		case p.Subscribe:
			subscribe = append(subscribe, p.Subject)
		default:
			publish = append(publish, p.Subject)
		}
	}
	return publish, subscribe
}

// The permissions that the document gives are enough for sidecars to keep one
// another coherent, where an operator makes the stream; and check says so.
func TestLeastPrivilege(t *testing.T) {
	publish, subscribe := leastPrivilege(t)
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "kubernetes", "permissions.md"))
	require.NoError(t, err)
	for _, subject := range append(append([]string{}, publish...), subscribe...) {
		require.Contains(t, string(text), `"`+subject+`"`)
	}
	user, admin := natsOf(t, publish, subscribe)
	out, err := binary(t, "stream", "ensure", "--nats", admin).CombinedOutput()
	require.NoError(t, err, string(out))

	checked, code := runCheck(t, "--nats", user)
	require.Equal(t, codeOK, code, checked)
	require.Contains(t, checked, "✓ the stream gives the guarantees")
	require.Contains(t, checked, "✓ the user may do what a sidecar does")

	dir := t.TempDir()
	sockets := []string{filepath.Join(dir, "a.sock"), filepath.Join(dir, "b.sock")}
	for _, socket := range sockets {
		side := binary(t, "serve", "--nats", user, "--socket", socket)
		var log bytes.Buffer
		side.Stderr = &log
		require.NoError(t, side.Start())
		t.Cleanup(func() {
			require.NoError(t, side.Process.Signal(os.Interrupt))
			require.NoError(t, side.Wait(), log.String())
			require.NotContains(t, log.String(), `Publish to`)
		})
	}
	ask := func(socket string, args ...string) string {
		out, _ := binary(t, append(args, "--socket", socket)...).CombinedOutput()
		return string(out)
	}
	for _, socket := range sockets {
		require.Eventually(t, func() bool { return strings.Contains(ask(socket, "stats", "-o", "json"), `"ready":true`) }, patience, 20*time.Millisecond)
		require.Eventually(t, func() bool {
			ask(socket, "set", "product:1", "old")
			return strings.Contains(ask(socket, "get", "product:1"), "old")
		}, patience, 20*time.Millisecond)
	}
	require.NotContains(t, ask(sockets[0], "invalidate", "product:1"), "nearside:")
	require.Eventually(t, func() bool { return !strings.Contains(ask(sockets[1], "get", "product:1"), "old") }, patience, 20*time.Millisecond)
}

func TestCheckFindsPermissions(t *testing.T) {
	publish, subscribe := leastPrivilege(t)
	user, admin := natsOf(t, publish[:len(publish)-2], subscribe)
	out, err := binary(t, "stream", "ensure", "--nats", admin).CombinedOutput()
	require.NoError(t, err, string(out))
	text, code := runCheck(t, "--nats", user)
	require.Equal(t, codeFailed, code)
	require.Contains(t, text, "✗ the user may do what a sidecar does")
	require.Contains(t, text, "may not publish on "+publish[len(publish)-1])
	text, code = runCheck(t, "--nats", admin)
	require.Equal(t, codeOK, code, text)
	require.Contains(t, text, "! the user may do what a sidecar does")
	require.Contains(t, text, "may publish on nearside-live.default.>, where only the server may")
	require.NotContains(t, text, "(B1)")
	require.Contains(t, text, "a NATS without users, such as")
}

// kubectl finds the binary as a plugin, and users see what they typed.
func TestKubectlPlugin(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	link := filepath.Join(t.TempDir(), "bin", plugin)
	require.NoError(t, os.MkdirAll(filepath.Dir(link), 0o700))
	require.NoError(t, os.Symlink(self, link))
	out, err := exec.Command(link, "check", "--help").CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "kubectl nearside check [flags]")
}
