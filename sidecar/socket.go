package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socket is the bound Unix socket with its lock file, which says that this
// process owns the path, and for how long somebody has.
type socket struct {
	listener *net.UnixListener
	lock     *os.File
	life     *life
}

// ErrInUse says that another process serves the socket.
var ErrInUse = errors.New("socket is in use")

// listenSocket binds cfg.Socket. A socket file that nobody answers on is left
// over from a process that was killed, and is replaced.
func listenSocket(cfg Config) (_ *socket, err error) {
	path := cfg.Socket
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("socket %s: its folder cannot be made: %w", path, err)
	}
	lock, existed, err := lockFile(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	s := &socket{lock: lock}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	s.life = newLife(lock, existed, cfg.Clock, cfg.Policies.Window)
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	if s.listener, err = bind(path, cfg.SocketMode); err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	if cfg.SocketGroup != "" {
		gid, err := groupID(cfg.SocketGroup)
		if err != nil {
			return nil, fmt.Errorf("socket %s: group: %w", path, err)
		}
		if err := os.Chown(path, -1, gid); err != nil {
			return nil, fmt.Errorf("socket %s: group: %w", path, err)
		}
	}
	if err := os.Chmod(path, cfg.SocketMode); err != nil {
		return nil, fmt.Errorf("socket %s: mode: %w", path, err)
	}
	return s, nil
}

// bind makes the socket with a file that never grants more than mode: a socket
// passes its own mode, less the umask, on to its file.
func bind(path string, mode fs.FileMode) (*net.UnixListener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		if err := raw.Control(func(fd uintptr) { failed = unix.Fchmod(int(fd), uint32(mode)) }); err != nil {
			return err
		}
		return failed
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// Close unbinds the socket, removes its file, and gives the path free. The lock
// file stays: it remembers this life. Close may be called more than once.
func (s *socket) Close() {
	if s.listener != nil {
		s.listener.Close()
	}
	_ = s.lock.Close() // nothing is buffered
}

// lockFile takes the lock of a path, which the kernel gives back when the
// process ends, however it does.
func lockFile(path string) (f *os.File, existed bool, err error) {
	_, err = os.Stat(path)
	existed = err == nil
	if f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, false, fmt.Errorf("its lock cannot be opened: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, false, fmt.Errorf("%w: another nearside serves it; stop that one, or choose another --socket", ErrInUse)
		}
		return nil, false, fmt.Errorf("its lock cannot be taken: %w", err)
	}
	return f, existed, nil
}

// removeStale removes what a killed process left at path, and nothing else: not
// a socket that somebody answers on, and no file that is no socket.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is a file that is no socket: remove it, or choose another --socket")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("%w: a process that is not nearside answers on it; choose another --socket", ErrInUse)
	case !errors.Is(err, unix.ECONNREFUSED): // that alone says that nobody listens
		return fmt.Errorf("it cannot be told whether somebody serves it; remove it, or choose another --socket: %w", err)
	}
	return os.Remove(path)
}

// loopback refuses an address that other machines could reach: the socket has
// no encryption.
func loopback(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("want host:port: %w", err)
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return errors.New("want a loopback address such as 127.0.0.1:6379, because the protocol is not encrypted")
	}
	return nil
}
