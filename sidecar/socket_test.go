package sidecar_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nearside-cache/nearside/sidecar"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// listens checks that cfg can be listened with, and gives everything back.
func listens(t *testing.T, cfg sidecar.Config) {
	t.Helper()
	cfg.Bus = attach(t)
	s, err := sidecar.Listen(cfg)
	require.NoError(t, err)
	ended, end := context.WithCancel(context.Background())
	end()
	require.NoError(t, s.Run(ended))
	require.NoFileExists(t, cfg.Socket)
}

func TestStaleSocketIsReplaced(t *testing.T) {
	cfg := config(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: cfg.Socket, Net: "unix"})
	require.NoError(t, err)
	l.SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	require.FileExists(t, cfg.Socket)
	listens(t, cfg)
	listens(t, cfg)
}

func TestSecondSidecarOnOneSocket(t *testing.T) {
	s, _ := start(t, nil)
	cfg := config(t)
	cfg.Socket = s.Socket
	_, err := sidecar.Listen(cfg)
	require.ErrorIs(t, err, sidecar.ErrInUse)
	require.ErrorContains(t, err, s.Socket)
	require.ErrorContains(t, err, "another nearside serves it")
	require.Equal(t, "PONG", s.Dial(t).Do("PING").Str, "the first one goes on")
	s.Stop(t)
	listens(t, cfg)
}

func TestForeignSocketIsLeftAlone(t *testing.T) {
	cfg := config(t)
	l, err := net.Listen("unix", cfg.Socket)
	require.NoError(t, err)
	defer l.Close()
	_, err = sidecar.Listen(cfg)
	require.ErrorIs(t, err, sidecar.ErrInUse)
	require.ErrorContains(t, err, "a process that is not nearside answers on it")
	require.FileExists(t, cfg.Socket)
}

// A process that is too busy to answer is alive.
func TestBusyForeignSocketIsLeftAlone(t *testing.T) {
	cfg := config(t)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, unix.Bind(fd, &unix.SockaddrUnix{Name: cfg.Socket}))
	require.NoError(t, unix.Listen(fd, 0))
	for { // until its backlog is full
		c, err := net.Dial("unix", cfg.Socket)
		if err != nil {
			require.ErrorIs(t, err, unix.EAGAIN)
			break
		}
		defer c.Close()
	}
	_, err = sidecar.Listen(cfg)
	require.ErrorContains(t, err, "it cannot be told whether somebody serves it")
	require.FileExists(t, cfg.Socket)
}

func TestFileInTheWay(t *testing.T) {
	cfg := config(t)
	require.NoError(t, os.WriteFile(cfg.Socket, []byte("precious"), 0o600))
	_, err := sidecar.Listen(cfg)
	require.ErrorContains(t, err, "there is a file that is no socket")
	require.Equal(t, "precious", read(t, cfg.Socket))
}

func TestSocketModeAndGroup(t *testing.T) {
	for _, mode := range []os.FileMode{0o666, 0o600, 0o660, 0o777} {
		cfg := config(t)
		cfg.SocketMode, cfg.SocketGroup = mode, strconv.Itoa(os.Getgid())
		cfg.Socket = filepath.Join(filepath.Dir(cfg.Socket), "made", "on", "the", "way")
		s, err := sidecar.Listen(cfg)
		require.NoError(t, err)
		info, err := os.Stat(cfg.Socket)
		require.NoError(t, err)
		require.Equal(t, mode|os.ModeSocket, info.Mode())
		require.Equal(t, uint32(os.Getgid()), info.Sys().(*syscall.Stat_t).Gid)
		ended, end := context.WithCancel(context.Background())
		end()
		require.NoError(t, s.Run(ended))
	}
}

func TestTCP(t *testing.T) {
	s, _ := start(t, func(c *sidecar.Config) { c.TCP = "127.0.0.1:0" })
	require.Equal(t, "OK", sidecartest.Dial(t, s.TCPAddr()).Do("SET", "k", "v").Str)
	require.Equal(t, "v", s.Dial(t).Do("GET", "k").Str, "one cache")
	require.Empty(t, (&sidecar.Sidecar{}).TCPAddr())
	require.Empty(t, (&sidecar.Sidecar{}).AdminAddr())
}

// What is wrong is known before anything is bound, and all of it.
func TestValidateNamesAllFaults(t *testing.T) {
	cfg := config(t)
	cfg.Socket = strings.Repeat("s", 108)
	cfg.SocketMode = 0
	cfg.SocketGroup = "no such group"
	cfg.TCP = "0.0.0.0:6379"
	cfg.MaxValue, cfg.Memory, cfg.MaxConnections = 0, 1, 0
	cfg.FrameTimeout, cfg.WriteTimeout, cfg.PublishTimeout, cfg.DrainTimeout = 0, -1, 0, 0
	cfg.Policies.Window = 0
	_, err := sidecar.Listen(cfg)
	for _, want := range []string{
		"socket has a path of 108 bytes: want 1 to 107", "socket-mode is 0", "socket-group", `tcp is "0.0.0.0:6379": want a loopback address`,
		"max-value is 0", "memory is 1 bytes", "max-connections is 0", "frame-timeout is 0s", "write-timeout is -1ns",
		"publish-timeout is 0s", "drain-timeout is 0s", "fill_window is 0s",
	} {
		require.ErrorContains(t, err, want)
	}
	for addr, ok := range map[string]bool{
		"127.0.0.1:1": true, "[::1]:1": true, "localhost:1": true, "127.9.9.9:1": true,
		":1": false, "[::]:1": false, "10.0.0.1:1": false, "example.org:1": false, "127.0.0.1": false, "localhost.example.org:1": false,
	} {
		cfg := config(t)
		cfg.TCP = addr
		require.Equal(t, ok, cfg.Validate() == nil, addr)
	}
}

// When one address cannot be had, the others are given back.
func TestFailedListenLeavesNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	for _, change := range []func(*sidecar.Config){
		func(c *sidecar.Config) { c.TCP = taken.Addr().String() },
		func(c *sidecar.Config) { c.TCP, c.Admin = "127.0.0.1:0", taken.Addr().String() },
		func(c *sidecar.Config) { c.Memory, c.MaxValue = 8<<20, 100<<20 },
	} {
		cfg := config(t)
		good := cfg
		change(&cfg)
		_, err := sidecar.Listen(cfg)
		require.Error(t, err)
		require.NoFileExists(t, cfg.Socket)
		listens(t, good)
	}
}
