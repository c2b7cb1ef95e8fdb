package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// noRaceSleep is for GORACE: the race detector sleeps for a second at the end
// of every process otherwise.
const noRaceSleep = "atexit_sleep_ms=0"

// The test binary is the command itself when it is called so.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"nearside": main, plugin: main})
}

// TestScripts runs the binary as a user does: see testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("NEARSIDE_SOCKET", filepath.Join(env.WorkDir, "n.sock"))
			env.Setenv("NEARSIDE_ADMIN", "127.0.0.1:0")
			env.Setenv("GORACE", noRaceSleep)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":       code,
			"eventually": eventually,
			"ready":      ready,
			"freeport":   freeport,
		},
	})
}

// code N COMMAND: the command exits with N.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command [args...]")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v: %v", args[1:], err)
		}
		got = exit.ExitCode()
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("%v: exit code %d, want %s", args[1:], got, args[0])
	}
}

// eventually REGEXP COMMAND: the command is repeated until it prints that.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually regexp command [args...]")
	}
	want := regexp.MustCompile(args[0])
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		err := ts.Exec(args[1], args[2:]...)
		out := ts.ReadFile("stdout")
		if err == nil && want.MatchString(out) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%v: never printed %s, at last %q, %v", args[1:], args[0], out, err)
		}
	}
}

// ready [SOCKET]: the sidecar follows its stream.
func ready(ts *testscript.TestScript, neg bool, args []string) {
	command := []string{`"ready":true`, "nearside", "stats", "-o", "json"}
	if len(args) > 0 {
		command = append(command, "--socket", args[0])
	}
	eventually(ts, neg, command)
}

// freeport NAME: sets NAME to a loopback address that nobody listens on.
func freeport(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], freeAddress(func(err error) { ts.Fatalf("no free port: %v", err) }))
}

func freeAddress(fatal func(error)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		fatal(err)
	}
	return addr
}

// binary returns the command for a test that sends it signals itself.
func binary(t *testing.T, args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &exec.Cmd{Path: self, Args: append([]string{"nearside"}, args...), Env: append(os.Environ(), "NEARSIDE_ADMIN=127.0.0.1:0", "GORACE="+noRaceSleep)}
}
