package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus/embedded"
)

// process is a running nearside serve.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	socket string
	log    journal
	ended  bool
}

// journal is what a process has written so far. It is safe for concurrent use.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// serveIn starts a sidecar with its files in dir and waits until it serves.
func serveIn(t *testing.T, dir string, args ...string) *process {
	clearEnvironment(t)
	p := &process{t: t, socket: filepath.Join(dir, "n.sock")}
	p.cmd = binary(t, append([]string{"serve", "--socket", p.socket}, args...)...)
	p.cmd.Stderr = &p.log
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() {
		if !p.ended {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
		if t.Failed() {
			t.Log(p.log.String())
		}
	})
	p.await("serves " + p.socket)
	return p
}

// await waits until the process has logged text.
func (p *process) await(text string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool { return strings.Contains(p.log.String(), text) }, patience, 5*time.Millisecond, "%s never appeared in the log", text)
}

// end sends a signal and requires an end without error within two seconds.
func (p *process) end(s os.Signal) {
	start := time.Now()
	require.NoError(p.t, p.cmd.Process.Signal(s))
	err := p.cmd.Wait()
	p.ended = true
	require.NoError(p.t, err)
	took := time.Since(start)
	p.t.Logf("ended after %v", took)
	require.Less(p.t, took, 2*time.Second)
	require.NoFileExists(p.t, p.socket)
}

func (p *process) dial() *resp.Client {
	conn, err := resp.Dial(p.t.Context(), p.socket, resp.ClientConfig{})
	require.NoError(p.t, err)
	p.t.Cleanup(func() { conn.Close() })
	return conn
}

// plainSet returns how a SET of a key would be judged.
func plainSet(t *testing.T, conn *resp.Client, key string) string {
	r, err := conn.Do(t.Context(), "NEAR.EXPLAIN", key)
	require.NoError(t, err)
	for i := 0; i+1 < len(r.Elems); i += 2 {
		if r.Elems[i].Str == "plain_set" {
			return r.Elems[i+1].Str
		}
	}
	t.Fatal("no plain_set in the answer")
	return ""
}

func TestSignalsEndInTime(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(s.String(), func(t *testing.T) {
			dir := t.TempDir()
			p := serveIn(t, dir, "--nats", "embedded", "--data", filepath.Join(dir, "data"))
			p.await("ready: ")
			idle, watching := p.dial(), p.dial()
			_, err := idle.Do(t.Context(), "PING")
			require.NoError(t, err)
			_, err = watching.Do(t.Context(), "HELLO", "3")
			require.NoError(t, err)
			_, err = watching.Do(t.Context(), "NEAR.WATCH")
			require.NoError(t, err)
			p.end(s)
			_, err = watching.WaitPush(t.Context())
			require.ErrorIs(t, err, io.EOF)
		})
	}
}

// A DEL that waits for a NATS that is away does not hold up the end, and is told
// that it is not acknowledged.
func TestSignalWhileDelWaits(t *testing.T) {
	away := "nats://" + freeAddress(func(err error) { t.Fatal(err) })
	p := serveIn(t, t.TempDir(), "--nats", away, "--publish-timeout", "1m")
	conn := p.dial()
	answer := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() {
		_, err := conn.Do(ctx, "DEL", "k")
		answer <- err
	}()
	other := p.dial()
	require.Eventually(t, func() bool {
		r, err := other.Do(ctx, "INFO")
		return err == nil && strings.Contains(r.Str, "connected_clients:2")
	}, patience, 5*time.Millisecond)
	p.end(syscall.SIGTERM)
	require.Error(t, <-answer)
}

const (
	asFill       = "is judged by"
	asInvalidate = "is taken for a write"
)

func policyFile(mode string) string {
	return "namespaces:\n  shop:\n    set: " + mode + "\n"
}

// A good file is taken over while connections live on; a bad one is refused
// whole, with all its faults, and the old policies stay.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "nearside.yaml")
	put := func(text string) { // as editors do
		require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o600))
		require.NoError(t, os.Rename(path+".new", path))
	}
	put(policyFile("fill"))
	p := serveIn(t, dir, "--nats", "embedded", "--data", filepath.Join(dir, "data"), "--config", path)
	p.await("ready: ")
	conn := p.dial()
	is := func(want string) func() bool {
		return func() bool { return strings.HasPrefix(plainSet(t, conn, "shop:1"), want) }
	}
	require.True(t, is(asFill)())

	put(policyFile("invalidate") + "memory: 1GiB\n")
	require.Eventually(t, is(asInvalidate), patience, 5*time.Millisecond)
	p.await("a setting has changed that waits for a restart: setting=memory")

	put(policyFile("maybe") + "memroy: 1\n  ")
	p.await("the old policies stay: faults=2")
	p.await("unknown key memroy")
	p.await(`nearside.yaml:3: namespaces.shop.set is \"maybe\"`)
	require.True(t, is(asInvalidate)())

	put(policyFile("fill") + "fill_window: 20s\n")
	p.await("fill_window is 20s and was 10s: it can only change with a restart")
	require.True(t, is(asInvalidate)())

	require.NoError(t, os.Remove(path))
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	p.await("the file cannot be opened")
	require.True(t, is(asInvalidate)())

	put(policyFile("fill"))
	require.Eventually(t, is(asFill), patience, 5*time.Millisecond)
	p.end(syscall.SIGTERM)
	// The sidecar's own files in the folder change every second.
	require.Equal(t, 2, strings.Count(p.log.String(), "the policies were reloaded"))
}

// SIGHUP alone reloads: here the folder of the file sees no change.
func TestReloadOnHangUp(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir() // the sidecar's own files are not in dir
	target, path := filepath.Join(elsewhere, "real.yaml"), filepath.Join(dir, "nearside.yaml")
	require.NoError(t, os.WriteFile(target, []byte(policyFile("fill")), 0o600))
	require.NoError(t, os.Symlink(target, path))
	p := serveIn(t, elsewhere, "--nats", "embedded", "--data", filepath.Join(elsewhere, "data"), "--config", path)
	p.await("ready: ")
	conn := p.dial()
	// More than once: a change just after the start would be noticed anyway.
	for _, mode := range []string{"invalidate", "fill", "invalidate"} {
		want := map[string]string{"fill": asFill, "invalidate": asInvalidate}[mode]
		require.NoError(t, os.WriteFile(target, []byte(policyFile(mode)), 0o600))
		require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
		require.Eventually(t, func() bool { return strings.HasPrefix(plainSet(t, conn, "shop:1"), want) }, patience, 5*time.Millisecond)
	}
	p.end(syscall.SIGTERM)
}

// Kubernetes updates a ConfigMap by swapping a link to the folder that holds the
// files.
func TestReloadOfConfigMap(t *testing.T) {
	mount, data := t.TempDir(), t.TempDir()
	version := func(name, mode string) {
		require.NoError(t, os.Mkdir(filepath.Join(mount, name), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(mount, name, "nearside.yaml"), []byte(policyFile(mode)), 0o600))
		require.NoError(t, os.Symlink(name, filepath.Join(mount, "..data_tmp")))
		require.NoError(t, os.Rename(filepath.Join(mount, "..data_tmp"), filepath.Join(mount, "..data")))
	}
	version("..2026_1", "fill")
	path := filepath.Join(mount, "nearside.yaml")
	require.NoError(t, os.Symlink(filepath.Join("..data", "nearside.yaml"), path))
	p := serveIn(t, data, "--nats", "embedded", "--data", filepath.Join(data, "data"), "--config", path)
	p.await("ready: ")
	conn := p.dial()
	require.Contains(t, plainSet(t, conn, "shop:1"), asFill)
	// More than once: a change just after the start would be noticed anyway.
	version("..2026_2", "invalidate")
	require.Eventually(t, func() bool { return strings.HasPrefix(plainSet(t, conn, "shop:1"), asInvalidate) }, patience, 5*time.Millisecond)
	version("..2026_3", "fill")
	require.Eventually(t, func() bool { return strings.HasPrefix(plainSet(t, conn, "shop:1"), asFill) }, patience, 5*time.Millisecond)
	p.end(syscall.SIGTERM)
}

// Losing NATS does not make a sidecar unready; never having had it does.
func TestReadiness(t *testing.T) {
	clearEnvironment(t)
	server := freeAddress(func(err error) { t.Fatal(err) })
	admin := freeAddress(func(err error) { t.Fatal(err) })
	readyz := func() int {
		r, err := http.Get("http://" + admin + "/readyz")
		require.NoError(t, err)
		defer r.Body.Close()
		return r.StatusCode
	}
	p := serveIn(t, t.TempDir(), "--nats", "nats://"+server, "--admin", admin)
	p.await("NATS is away")
	require.Equal(t, http.StatusServiceUnavailable, readyz())
	dir := t.TempDir()
	broker := serveIn(t, dir, "--nats", "embedded", "--data", filepath.Join(dir, "data"), "--nats-listen", server)
	p.await("ready: ")
	require.Equal(t, http.StatusOK, readyz())
	broker.end(syscall.SIGTERM)
	p.await("disconnected from NATS")
	require.Equal(t, http.StatusOK, readyz())
	p.end(syscall.SIGTERM)
}

// A stream that cannot give the guarantees is refused, by all who look at it,
// with what is wrong.
func TestUnfitStream(t *testing.T) {
	clearEnvironment(t)
	broker, err := embedded.Start(embedded.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, broker.Close()) })
	nc, err := nats.Connect(broker.URL())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "NEARSIDE_DEFAULT", Subjects: []string{"nearside.default.>"}, Storage: jetstream.MemoryStorage})
	require.NoError(t, err)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"serve", "--socket", filepath.Join(t.TempDir(), "n.sock")}, "storage is Memory, wants File: acknowledged events would be lost"},
		{[]string{"stream", "info"}, "FATAL: storage is Memory, wants File\n  acknowledged events would be lost\n"},
		{[]string{"stream", "ensure", "-o", "json"}, `"setting":"storage","is":"Memory"`},
	} {
		out, err := binary(t, append(c.args, "--nats", broker.URL())...).CombinedOutput()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, codeUnfit, exit.ExitCode(), "%s", out)
		require.Contains(t, string(out), c.want)
	}
}
